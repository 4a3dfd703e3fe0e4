"""`autoresearch init`: a campaign in a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import AsJson, BudgetSeconds, Corpus, Device, PresetName, Settings, all_of
from core.cli.render import terminal
from core.cli.resolve import Asked


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder")],
    preset: PresetName = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="the branch is autoresearch/TAG; without it, today's date")
    ] = None,
    program: Annotated[Path | None, typer.Option(metavar="FILE", help="your own program.md")] = None,
    trainer: Annotated[Path | None, typer.Option(metavar="FILE", help="your own train.py, taken as it is")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a campaign in a new folder: train.py, program.md and git."""
    from core.campaign.campaign import Campaign

    chosen = resolve.preset_for(
        Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget)
    )
    prose = None if program is None else resolve.read_text(program)
    text = None if trainer is None else resolve.read_text(trainer)
    with Campaign.create(folder, chosen, tag=tag, program=prose, trainer=text) as campaign:
        if as_json:
            terminal.json_text({"root": str(campaign.root), "branch": campaign.branch, "preset": chosen.name})
        else:
            terminal.say(f"campaign in {campaign.root}, branch {campaign.branch}, preset {chosen.name}")
            terminal.notice(f"next: autoresearch run {folder}, or edit {folder / 'train.py'} and autoresearch try")
