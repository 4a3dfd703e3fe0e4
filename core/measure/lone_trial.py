"""A trial outside any campaign: its record, the end of its output, and warnings about what it can mean."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import presets
from core.records import RECORD, Budget, Preset, Trial, to_json
from core.store import trial_files
from core.system import conditions, hardware, scratch
from presets import estimate

if TYPE_CHECKING:
    from core.data import Dataset
    from core.events import Progress

LAST_LINES = 20


def lone_trial(
    trainer: str,
    preset: Preset,
    dataset: Dataset,
    *,
    budget: Budget,
    seed: int,
    into: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Trial, str]:
    """Runs one trial of the text `trainer`. `into`, a new or empty folder, gets its files and its record.

    Returns the record and, if the trial failed, the last lines of its output.
    """
    from core.trial.spec import TrialSpec
    from core.trial.supervisor import run_trial

    with contextlib.ExitStack() as stack:
        if into is None:
            into = stack.enter_context(scratch.folder()) / "trial"
        spec = TrialSpec(trainer=trainer, preset=preset, budget=budget, seed=seed, into=into)
        record = run_trial(spec, dataset, on_progress)
        (into / RECORD).write_text(json.dumps(to_json(record), indent=1), encoding="utf-8")
        lines = [] if record.verdict == "scored" else trial_files.printed(into).splitlines(keepends=True)
    return record, "".join(lines[-LAST_LINES:])


def train(
    preset: Preset | str,
    *,
    trainer: str | None = None,
    budget: Budget | float | None = None,
    seed: int | None = None,
    into: Path | str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trial:
    """Runs one trial and returns its record; prepares the preset's corpus first. A failed trial is a record, too.

    Args:
        preset: a preset, or the name of one.
        trainer: the text of a train.py; default: the preset's trainer.
        budget: seconds of training, or a Budget; default: the preset's seconds.
        seed: default: the preset's first.
        into: a new or empty folder for output, loss curve, weights and record; default: they are deleted.
        on_progress: called while the trial runs.

    Raises:
        UserError: the trainer can't be parsed, or the preset's device, framework or corpus isn't here.
    """
    from core.data import prepare
    from core.data.dataset import prepared
    from core.system.files import refuse_occupied
    from core.trainer.check import check
    from core.trainer.reference import reference_trainer
    from core.trial.probe import require

    chosen = presets.load(preset) if isinstance(preset, str) else preset
    text = reference_trainer(chosen) if trainer is None else trainer
    check(text)
    folder = None if into is None else Path(into)
    if folder is not None:
        refuse_occupied(folder, "a trial that is kept")
    if prepared(chosen.corpus, chosen.vocabulary) is None:
        require(chosen)  # before minutes go into a corpus; afterwards the trial itself says so
    dataset = prepare(chosen.corpus, chosen.vocabulary)
    if not isinstance(budget, Budget):
        budget = Budget(seconds=chosen.budget_seconds if budget is None else budget)
    seed = chosen.seeds[0] if seed is None else seed
    return lone_trial(text, chosen, dataset, budget=budget, seed=seed, into=folder, on_progress=on_progress)[0]


def trial_warnings(trial: Trial) -> list[str]:
    """The rules for meaningful trials that a finished trial broke; none for exempt presets and for failed trials.

    If the trial was disturbed, what disturbed it is named instead: its speed says nothing of the preset.
    """
    if trial.preset in presets.names() and presets.origin(trial.preset).exempt:
        return []
    memory_gb = hardware.memory_mb() / 1024 if trial.device.startswith("cpu") else None
    found = estimate.of_trial(trial, memory_gb)
    warnings = [] if found is None else found.warnings()
    if warnings and (disturbances := conditions.remarks(trial.conditions)):
        return [f"{'; '.join(disturbances)}: on a quiet machine it makes more steps"]
    return warnings
