"""A real trial that is compiled learns what an eager one does; what every backend's trials do: tests/conformance."""

from __future__ import annotations

import dataclasses
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


@pytest.mark.long
def test_a_compiled_trial_learns_what_an_eager_one_does(run):
    eager, _ = run(20, COMPILE="eager")
    compiled, _ = run(20, COMPILE="inductor")
    if compiled.verdict == "crash" and "no C++ compiler" in compiled.reason:
        pytest.skip("no C++ compiler on this machine")
    assert compiled.verdict == "scored", compiled.reason
    assert compiled.choices["compile"].startswith("inductor")
    assert compiled.val_bpb == pytest.approx(eager.val_bpb, abs=0.01)
