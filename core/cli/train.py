"""`autoresearch train`: one trial by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    BudgetSeconds,
    Corpus,
    Device,
    Folder,
    NoSandbox,
    PresetName,
    Settings,
    all_of,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import Asked
from core.records import Budget, UserError, to_json


def train(
    preset: PresetName = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="train for so many steps instead: repeats exactly")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="without it, the preset's first")] = None,
    trainer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a train.py, taken as it is but for --set")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="keep output, curve and weights in this folder")
    ] = None,
    folder: Folder = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Run one trial by itself; nothing is recorded.

    In a campaign's folder it is of the train.py there, as it stands; elsewhere, of the preset's trainer. Ends with
    status 1 if the trial failed. With --json the record is the last line.

    \b
      autoresearch train --preset cpu --budget 60 --json
      autoresearch train --steps 5                          does my edit run at all?
    """
    from core.cli.presets import doubts
    from core.cli.render import tables

    if budget is not None and steps is not None:
        raise UserError("a trial has one budget: give --budget SECONDS or --steps N, not both")
    wanted = Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget)
    chosen = resolve.preset_here(folder, wanted)
    if trainer is None and preset is None and (root := resolve.root_of(folder)) is not None:
        trainer = root / "train.py"
    with interruptible("of a trial by itself nothing is kept: run the command again"):
        record = resolve.lone_trial(
            chosen,
            trainer=trainer,
            constants=wanted.changes(),
            budget=Budget(seconds=chosen.budget_seconds) if steps is None else Budget(steps=steps),
            seed=chosen.seeds[0] if seed is None else seed,
            into=output,
        )
    if as_json:
        terminal.json_line(to_json(record))
    else:
        terminal.out().print(tables.trial(record))
        for doubt in doubts(record):
            terminal.notice(f"doubt: {doubt}")
    if record.verdict != "scored":
        raise typer.Exit(CRASHED)
