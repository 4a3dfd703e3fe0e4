"""`autoresearch try`: the trainer as somebody edited it, tried once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import resolve
from core.cli.options import AsJson, Folder, NoSandbox, interruptible
from core.cli.render import terminal
from core.records import Experiment

if TYPE_CHECKING:
    from core.events import Repeat


def try_(
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="the hypothesis: what should be better, and why")
    ],
    folder: Folder = None,
    agent: Annotated[str, typer.Option(metavar="NAME", help="the name that stands in the record")] = "try",
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Try train.py as you edited it; keep it if it is better.

    On anything but keep, train.py gets the champion's text back. Every verdict ends with status 0. With --json the
    last line has verdict, val_bpb, champion_bpb, reason and experiment.

    \b
      autoresearch try -m "a wider first layer sees more of the byte pairs"
    """
    from core.cli.render import plots, tables
    from core.cli.render.live import Follower

    with resolve.campaign_of(folder) as campaign, interruptible("the same command goes on from here"):
        with Follower(terminal.err()) as follower:
            result = campaign.try_worktree(message, follower, agent=agent)
        told, experiment, repeat = _told(result)
        if isinstance(result, Experiment) and result.verdict == "keep":
            plots.campaign_progress(campaign)
    if as_json:
        terminal.json_line(told)
        return
    if repeat:
        terminal.say(f"not run again: this trainer is experiment {experiment.number} already")
    terminal.out().print(tables.verdict(experiment))


def _told(result: Experiment | Repeat) -> tuple[dict[str, Any], Experiment, bool]:
    """What `try --json` prints, the experiment that it is about, and whether that was run before."""
    repeat = not isinstance(result, Experiment)
    experiment = result if isinstance(result, Experiment) else result.earlier
    told = {key: getattr(experiment, key) for key in ("verdict", "val_bpb", "champion_bpb", "gain", "spread", "reason")}
    return {**told, "experiment": experiment.number, "repeat": repeat}, experiment, repeat
