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
from core.records import Budget, Preset, Trial
from core.trainer.constants import write_constants
from core.trial.spec import TrialSpec
from core.trial.supervisor import run_trial

SMALL = dataclasses.replace(
    PRESET,
    backend="torch",
    vocabulary=256,
    sequence_length=64,
    total_batch_size=1024,
    device_batch_size=8,
    startup_seconds=600.0,
    silence_seconds=60.0,
    constants={"ASPECT_RATIO": 32, "HEAD_DIM": 32, "WINDOW_PATTERN": "SL"},
)


@pytest.fixture
def run(corpus_folder: Path, tmp_path: Path) -> Callable[..., tuple[Trial, Path]]:
    """Runs a trial of the reference trainer, filled from the preset; returns its record and its folder."""
    count = 0

    def run(steps: int, seed: int = 1, preset: Preset = SMALL, **constants: Any) -> tuple[Trial, Path]:
        nonlocal count
        count += 1
        text = backends.trainer_path("torch").read_text(encoding="utf-8")
        spec = TrialSpec(
            trainer=write_constants(text, {**preset.trainer_constants(), **constants}),
            preset=preset,
            budget=Budget(steps=steps),
            seed=seed,
            into=tmp_path / str(count),
        )
        return run_trial(spec, prepare(f"folder:{corpus_folder}", preset.vocabulary)), spec.into

    return run


def test_a_trial_trains_and_is_scored_the_same_twice(run):
    first, folder = run(20)
    assert first.verdict == "scored", first.reason
    curve = [json.loads(line)["loss"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert len(curve) == 20
    assert curve[0] == pytest.approx(5.545, abs=0.01), "ln 256: it starts as a guess"
    assert curve[-1] < 3.5
    assert 2.0 < first.val_bpb < 6.0
    assert (first.tokens, first.rows, first.sequence_length) == (20 * 1024, 16, 64)
    assert first.flops_per_token is not None
    assert set(first.choices) == {"kernel", "dtype", "compile"}
    assert all("(" in choice for choice in first.choices.values())

    second, _ = run(20)
    assert second.val_bpb == pytest.approx(first.val_bpb, abs=1e-6)
    assert second.weights_sha256 == first.weights_sha256

    other, _ = run(2, seed=2, SEQUENCE_LENGTH=32, TOTAL_BATCH_SIZE=300, DEPTH=1)
    assert other.verdict == "scored", other.reason
    assert (other.sequence_length, other.rows) == (32, 8)
    assert other.parameters < first.parameters
    assert other.weights_sha256 != first.weights_sha256
    assert (other.scored_bytes, other.yardstick) == (first.scored_bytes, first.yardstick)


def test_a_choice_that_cannot_be_had_ends_the_trial_and_says_why(run):
    trial, _ = run(2, COMPILE="jit")
    assert trial.verdict == "crash"
    assert 'COMPILE is "auto", "inductor" or "eager"' in trial.reason


@pytest.mark.long
def test_a_compiled_trial_learns_what_an_eager_one_does(run):
    eager, _ = run(20, COMPILE="eager")
    compiled, _ = run(20, COMPILE="inductor")
    if compiled.verdict == "crash" and "no C++ compiler" in compiled.reason:
        pytest.skip("no C++ compiler on this machine")
    assert compiled.verdict == "scored", compiled.reason
    assert compiled.choices["compile"].startswith("inductor")
    assert compiled.val_bpb == pytest.approx(eager.val_bpb, abs=0.01)
