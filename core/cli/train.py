"""`autoresearch train`: one trial outside the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from core.cli import resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    BudgetSeconds,
    CampaignArgument,
    CampaignDir,
    CorpusName,
    NoSandbox,
    PresetName,
    PresetSettings,
    TrainingDevice,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.records import CONSTANT_FIELDS, TRAINER, Budget, Preset, UserError, to_json
from core.system.files import read_text, refuse_occupied


def train(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    preset: PresetName = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    budget: BudgetSeconds = None,
    steps: Annotated[
        int | None, Option(metavar="N", help="train for N steps instead of a time; this repeats exactly")
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="the random seed; default: the preset's first")] = None,
    trainer: Annotated[Path | None, Option(metavar="FILE", help="a train.py; only --set changes it")] = None,
    output: Annotated[
        Path | None, Option("--out", metavar="FOLDER", help="keep output, loss curve and weights in this new folder")
    ] = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Run one trial without recording it.

    In a campaign's folder this runs its train.py as it stands; elsewhere, the preset's trainer. The exit status is 1
    if the trial failed. With --json, the last line is the record.

    \b
      autoresearch train --preset cpu --budget 60 --json
      autoresearch train --steps 5                          check that an edit runs at all
    """
    from core.cli.render import tables
    from core.measure.lone_trial import trial_warnings
    from core.trainer.reference import reference_trainer

    if budget is not None and steps is not None:
        raise UserError("a trial has one budget: give --budget SECONDS or --steps N, not both")
    options = PresetOptions(preset=preset, device=device, settings=settings, corpus=corpus, budget=budget)
    chosen = resolve.preset_here(options, folder, option)
    if trainer is None and preset is None and (root := resolve.root_of(folder, option)) is not None:
        trainer = root / TRAINER
    if output is not None:
        refuse_occupied(output, "a trial that is kept")
    with interruptible("nothing was kept: run the command again"):
        record = resolve.run_with_bar(
            reference_trainer(chosen) if trainer is None else _changed(trainer, chosen, options.changes()),
            chosen,
            budget=Budget(seconds=chosen.budget_seconds) if steps is None else Budget(steps=steps),
            seed=chosen.seeds[0] if seed is None else seed,
            into=output,
        )
    if as_json:
        terminal.json_line(to_json(record))
    else:
        terminal.out().print(tables.trial(record))
        for warning in trial_warnings(record):
            terminal.notice(f"warning: {warning}")
    if record.verdict != "scored":
        raise typer.Exit(CRASHED)


def _changed(path: Path, preset: Preset, changes: Mapping[str, str]) -> str:
    """The trainer in `path`, with those of the preset's constants that `changes` names under either name."""
    from core.trainer.check import check
    from core.trainer.constants import write_constants

    constants = preset.trainer_constants().items()
    chosen = {name: value for name, value in constants if name in changes or CONSTANT_FIELDS.get(name) in changes}
    text = write_constants(read_text(path), chosen, str(path))
    check(text, str(path))
    return text
