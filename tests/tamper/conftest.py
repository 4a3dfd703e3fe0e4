"""Real trials of trainers on any backend, and audits of what they left. Where an audit looks is seeded."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import PRESET

import backends
from core.data import Dataset, prepare
from core.records import WEIGHTS, Budget, Preset, Trial
from core.trial import audit, audit_deep
from core.trial.scoring import Scorer
from core.trial.spec import AuditSpec, TrialSpec, read_facts
from core.trial.supervisor import backend_environment, run_trial

FRAMEWORKS = ("torch", "jax", "mlx")


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit that isn't given a generator takes seed 0, which is the test's and not the trainer's to know."""
    monkeypatch.setattr(audit, "_unpredictable", lambda: np.random.default_rng(0))


@pytest.fixture(scope="session")
def dataset(cache: Path, corpus_folder: Path) -> Dataset:
    return prepare(f"folder:{corpus_folder}", 256)


@dataclass
class Case:
    """A trial that has run, with all that a review of it needs."""

    trial: Trial
    spec: AuditSpec
    dataset: Dataset

    @property
    def bpb(self) -> float:
        assert self.trial.val_bpb is not None, self.trial.reason
        return self.trial.val_bpb

    def review(self, seed: int = 0) -> audit.AuditResult:
        return audit_deep.review(self.spec, self.dataset, np.random.default_rng(seed))

    def audits(self, seeds: Iterable[int], ask: Callable[..., audit.AuditResult]) -> list[audit.AuditResult]:
        """`audit.small` or `audit.deep` of this trial with each seed, by one process: for models without a memory."""
        folder, preset = self.spec.folder, self.spec.preset
        facts = read_facts(folder)
        claim = audit_deep.claim_of(self.spec, self.dataset, facts)
        environment = backend_environment(preset)
        usage = folder / "usage-test.json"
        with Scorer(self.spec.trainer, preset, environment, usage) as auditor:
            auditor.park(time.monotonic() + 60)
            auditor.restore(folder / WEIGHTS, facts)
            return [ask(auditor, claim, random=np.random.default_rng(seed)) for seed in seeds]


def preset_of(backend: str, **changes: Any) -> Preset:
    if backend != "numpy":
        changes = {"startup_seconds": 120.0, "silence_seconds": 60.0, **changes}
    return dataclasses.replace(PRESET, backend=backend, **changes)


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., Case]:
    """Runs one trial of a trainer's text. Skips where the backend isn't installed."""
    count = 0

    def run(
        text: str,
        backend: str = "numpy",
        *,
        steps: int | None = 20,
        seconds: float | None = None,
        seed: int = 1,
        data: Dataset | None = None,
        test: bool = False,
        **changes: Any,
    ) -> Case:
        nonlocal count
        count += 1
        if reason := backends.get(backend).missing():
            pytest.skip(reason)
        preset, data = preset_of(backend, **changes), data or dataset
        budget = Budget(seconds=seconds, steps=None if seconds else steps)
        into = tmp_path / "trial" / str(count)
        trial = run_trial(TrialSpec(trainer=text, preset=preset, budget=budget, seed=seed, into=into, test=test), data)
        return Case(trial, AuditSpec(trainer=text, preset=preset, trial=trial, folder=into, test=test), data)

    return run
