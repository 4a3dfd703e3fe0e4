"""`autoresearch init`: makes a campaign in a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from core.cli import resolve
from core.cli.options import AsJson, BudgetSeconds, CorpusName, PresetName, PresetSettings, TrainingDevice
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.system.files import read_text


def init(
    folder: Annotated[Path, Argument(metavar="DIR", help="a new or empty folder")],
    preset: PresetName = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    budget: BudgetSeconds = None,
    tag: Annotated[
        str | None, Option(metavar="TAG", help="names the branch autoresearch/TAG; default: today's date")
    ] = None,
    program: Annotated[
        Path | None, Option(metavar="FILE", help="your own program.md, instead of the default one")
    ] = None,
    trainer: Annotated[
        Path | None, Option(metavar="FILE", help="your own train.py, used unchanged; default: the preset's")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a campaign in a new folder, with train.py, program.md and a git repository."""
    from core.campaign.campaign import Campaign
    from core.store import program as programs
    from core.trainer.check import check

    chosen = resolve.preset_for(
        PresetOptions(preset=preset, device=device, settings=settings, corpus=corpus, budget=budget)
    )
    prose = None if program is None else read_text(program)
    text = None if trainer is None else read_text(trainer)
    if program is not None and prose is not None:
        programs.parse(prose, str(program))
    if trainer is not None and text is not None:
        check(text, str(trainer))
    with Campaign.create(folder, chosen, tag=tag, program=prose, trainer=text) as campaign:
        if as_json:
            terminal.json_text({"root": str(campaign.root), "branch": campaign.branch, "preset": chosen.name})
        else:
            terminal.say(f"campaign in {campaign.root}, branch {campaign.branch}, preset {chosen.name}")
            terminal.notice(f"next: autoresearch run {folder}, or edit {folder / 'train.py'} and autoresearch try")
