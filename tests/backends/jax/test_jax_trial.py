"""Real trials of the reference trainer under the real supervisor, each of a few seconds beside its imports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PRESET

import backends
from core.data import prepare
from core.records import Budget, Trial
from core.trainer.constants import write_constants
from core.trial.spec import TrialSpec
from core.trial.supervisor import run_trial

SMALL = dataclasses.replace(
    PRESET,
    backend="jax",
    vocabulary=256,
    sequence_length=64,
    total_batch_size=1024,
    device_batch_size=8,
    startup_seconds=240.0,
    silence_seconds=120.0,
    constants={"ASPECT_RATIO": 32, "HEAD_DIM": 32, "WINDOW_PATTERN": "SL"},
)


@pytest.fixture
def run(corpus_folder: Path, tmp_path: Path) -> Callable[..., tuple[Trial, Path]]:
    """Runs a trial of the reference trainer, filled from the preset; returns its record and its folder."""
    count = 0

    def run(steps: int, **constants: Any) -> tuple[Trial, Path]:
        nonlocal count
        count += 1
        text = backends.trainer_path("jax").read_text(encoding="utf-8")
        spec = TrialSpec(
            trainer=write_constants(text, {**SMALL.trainer_constants(), **constants}),
            preset=SMALL,
            budget=Budget(steps=steps),
            seed=1,
            into=tmp_path / str(count),
        )
        return run_trial(spec, prepare(f"folder:{corpus_folder}", SMALL.vocabulary)), spec.into

    return run


def test_a_trial_trains_is_scored_the_same_twice_and_starts_warm(run, cache):
    first, folder = run(20)
    assert first.verdict == "scored", first.reason
    curve = [json.loads(line)["loss"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert len(curve) == 20
    assert curve[0] == pytest.approx(5.545, abs=0.01), "ln 256: it starts as a guess"
    assert curve[-1] < 3.5
    assert first.val_bpb is not None and 2.0 < first.val_bpb < 6.0
    assert (first.tokens, first.rows, first.sequence_length) == (20 * 1024, 16, 64)
    assert set(first.choices) == {"kernel", "dtype", "compile"}
    assert all("(" in choice for choice in first.choices.values())
    assert {"jax", "jaxlib", "flax", "optax"} <= first.versions.keys()
    programs = compiled(cache)
    assert any("train_step" in name for name in programs)

    second, _ = run(20)
    assert second.val_bpb == first.val_bpb
    assert second.weights_sha256 == first.weights_sha256
    assert compiled(cache) == programs, "the second trial compiled nothing"

    searched, _ = run(20, MATRIX_LR=0.02, EMBEDDING_LR=0.3, ADAM_BETAS=(0.9, 0.95), WARMDOWN_RATIO=0.3)
    assert searched.verdict == "scored", searched.reason
    assert searched.weights_sha256 != first.weights_sha256
    assert compiled(cache) == programs, "rates are no part of the program"


def test_a_choice_that_cannot_be_had_ends_the_trial_and_says_why(run):
    trial, _ = run(2, COMPILE="inductor")
    assert trial.verdict == "crash"
    assert 'COMPILE is "auto", "xla" or "eager" for JAX' in trial.reason


def compiled(cache: Path) -> set[str]:
    """Names of the programs in the compile cache."""
    return {path.name for path in (cache / "compiled" / "jax" / "xla").glob("*-cache")}
