"""Real trials of the numpy backend, each well under a second of training."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PRESET

import backends
from core.data import Dataset, prepare
from core.records import Budget, Trial
from core.trial.spec import TrialSpec
from core.trial.stop_rule import StopRule
from core.trial.supervisor import run_trial

# One trial in a process of its own: python -c SUPERVISOR TRAINER INTO CORPUS.
SUPERVISOR = """
import sys
from pathlib import Path
from core.data import prepare
from core.records import Budget, Preset, UserError
from core.trial.spec import TrialSpec
from core.trial.supervisor import run_trial

trainer, into, corpus = map(Path, sys.argv[1:])
preset = Preset(
    name="test", backend="numpy", device="cpu", corpus=f"folder:{corpus}", vocabulary=256, depth=2,
    sequence_length=32, total_batch_size=512, device_batch_size=16, budget_seconds=1, startup_seconds=60,
    silence_seconds=60, score_bytes=4000, peak_tflops=1,
)
dataset = prepare(preset.corpus, 256)
budget = Budget(steps=5)
spec = TrialSpec(trainer=trainer.read_text(), preset=preset, budget=budget, seed=1, into=into)
try:
    print(run_trial(spec, dataset, lambda p: print(p.phase, flush=True)).verdict, flush=True)
except UserError as error:
    sys.exit(f"mistake: {error}")
"""


@pytest.fixture(scope="session")
def dataset(cache: Path, corpus_folder: Path) -> Dataset:
    return prepare(f"folder:{corpus_folder}", 256)


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., Trial]:
    """Runs one trial of a trainer's text (default: the reference one) and returns its record."""
    return runner(dataset, tmp_path)


def runner(dataset: Dataset, folder: Path) -> Callable[..., Trial]:
    """What `run` gives. The first trial leaves its files in `trial/1` of the folder."""
    count = 0

    def run(
        text: str | None = None,
        *,
        steps: int | None = 5,
        seconds: float | None = None,
        seed: int = 1,
        data: Dataset | None = None,
        stop: StopRule | None = None,
        **preset: Any,
    ) -> Trial:
        nonlocal count
        count += 1
        if text is None:
            text = backends.trainer_path("numpy").read_text(encoding="utf-8")
        spec = TrialSpec(
            trainer=textwrap.dedent(text),
            preset=dataclasses.replace(PRESET, **preset),
            budget=Budget(seconds=seconds, steps=None if seconds else steps),
            seed=seed,
            into=folder / "trial" / str(count),
            stop=stop,
        )
        return run_trial(spec, data or dataset)

    return run
