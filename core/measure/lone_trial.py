"""A trial outside any campaign: its record, the end of its output, and warnings about what it can mean."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import presets
from core.records import RECORD, Budget, Preset, Trial, to_json
from core.store import trial_files
from core.system import hardware
from presets import estimate

if TYPE_CHECKING:
    from core.data import Dataset
    from core.events import Progress

LAST_LINES = 20


@dataclass(frozen=True)
class LoneTrial:
    """A trial's record and, if it failed, the last lines of its output."""

    record: Trial
    last_output: str


def lone_trial(
    trainer: str,
    preset: Preset,
    dataset: Dataset,
    *,
    budget: Budget,
    seed: int,
    into: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> LoneTrial:
    """Runs one trial of the text `trainer`. `into`, a new or empty folder, gets its files and its record."""
    from core.trial.spec import TrialSpec
    from core.trial.supervisor import run_trial

    with contextlib.ExitStack() as stack:
        if into is None:
            into = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autoresearch-"))) / "trial"
        spec = TrialSpec(trainer=trainer, preset=preset, budget=budget, seed=seed, into=into)
        record = run_trial(spec, dataset, on_progress)
        (into / RECORD).write_text(json.dumps(to_json(record), indent=1), encoding="utf-8")
        lines = [] if record.verdict == "scored" else trial_files.printed(into).splitlines(keepends=True)
    return LoneTrial(record, "".join(lines[-LAST_LINES:]))


def trial_warnings(trial: Trial) -> list[str]:
    """The rules for meaningful trials that a finished trial broke; none for exempt presets and for failed trials."""
    if trial.preset in presets.names() and presets.origin(trial.preset).exempt:
        return []
    memory_gb = hardware.memory_mb() / 1024 if trial.device.startswith("cpu") else None
    found = estimate.of_trial(trial, memory_gb)
    return [] if found is None else found.warnings()
