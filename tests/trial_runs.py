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
from core.trial.supervisor import run_trial


@pytest.fixture(scope="session")
def dataset(cache: Path, corpus_folder: Path) -> Dataset:
    return prepare(f"folder:{corpus_folder}", 256)


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., Trial]:
    """Runs one trial of a trainer's text (default: the reference one) and returns its record."""
    count = 0

    def run(
        text: str | None = None,
        *,
        steps: int | None = 5,
        seconds: float | None = None,
        seed: int = 1,
        data: Dataset | None = None,
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
            into=tmp_path / "trial" / str(count),
        )
        return run_trial(spec, data or dataset)

    return run
