"""`autoresearch try`: tries train.py as somebody edited it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir, NoSandbox, interruptible, to_type
from core.cli.render import terminal
from core.records import TRAINER, Experiment

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.store.activity import Activity

KEYS = (
    "verdict", "val_bpb", "deviation", "champion_bpb", "champion_deviation", "gain", "probability", "spread", "reason",
)  # fmt: skip


def try_(
    message: Annotated[
        str, Option("--message", "-m", metavar="TEXT", help="the hypothesis: what should get better, and why")
    ],
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    agent: Annotated[str, Option(metavar="NAME", help="the name to record as the agent's")] = "try",
    detach: Annotated[
        bool,
        Option("--detach", help="return at once with the experiment's number; `autoresearch wait` has the verdict"),
    ] = False,
    job: Annotated[str, Option(hidden=True)] = "",
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Try train.py as you edited it, and keep it if it is better.

    If it is not kept, train.py gets the champion's text back, and `autoresearch show N train.py` has yours. The exit
    status is 0 for every verdict, 2 if there is nothing to try, 75 if another process is at work. With --json, the last
    line has verdict, val_bpb, champion_bpb, probability, reason and experiment.

    \b
      autoresearch try -m "a wider first layer sees more of the byte pairs"
      autoresearch try --detach -m "wider heads"; autoresearch wait --for 100
    """
    from core.cli.render import plots
    from core.cli.render.live import Follower

    if detach:
        with resolve.campaign_of(folder, option) as campaign, interruptible("if the experiment has begun, it goes on"):
            _start_detached(campaign, message, agent, no_sandbox=no_sandbox, as_json=as_json)
        return
    with resolve.campaign_of(folder, option) as campaign, interruptible("the same command continues from here"):
        with Follower(terminal.err()) as follower:
            result = campaign.try_worktree(message, follower, agent=agent, job=job)
        repeat = not isinstance(result, Experiment)
        experiment = result if isinstance(result, Experiment) else result.earlier
        if not repeat and experiment.verdict == "keep":
            plots.campaign_progress(campaign)
        show(campaign, experiment, repeat=repeat, as_json=as_json)


def show(campaign: Campaign, experiment: Experiment, *, repeat: bool, as_json: bool) -> None:
    """Prints an experiment's verdict, and where the edit is if train.py has lost it."""
    from core.cli.render import tables

    if as_json:
        values = {key: getattr(experiment, key) for key in KEYS}
        terminal.json_line({**values, "experiment": experiment.number, "repeat": repeat, "running": None})
        return
    if repeat:
        terminal.say(f"not run again: this trainer is experiment {experiment.number} already")
    terminal.out().print(tables.verdict(experiment))
    if experiment.verdict != "keep" or repeat:
        command = to_type("show", *named(campaign), experiment.number, TRAINER)
        terminal.say(f"what was tried: {command}")


def json_of_running(number: int, activity: Activity) -> None:
    """Prints the JSON of an experiment that has no verdict yet."""
    running = {"doing": activity.line, "seconds": activity.seconds, "budget": activity.budget}
    terminal.json_line({**dict.fromkeys(KEYS), "experiment": number, "repeat": False, "running": running})


def named(campaign: Campaign) -> list[Path]:
    """The campaign as the first word of another command; nothing if it is found from here."""
    return [] if resolve.root_of() == campaign.root else [campaign.root]


def _start_detached(campaign: Campaign, message: str, agent: str, *, no_sandbox: bool, as_json: bool) -> None:
    from core.cli import detached

    arguments = ["try", str(campaign.root), f"--message={message}", f"--agent={agent}"]
    started = detached.start(campaign.files, arguments + ["--no-sandbox"] * no_sandbox)
    if isinstance(started, detached.Ended):
        sys.stderr.write(started.printed)
        raise typer.Exit(started.status or 1)
    assert started.target is not None
    if started.repeat:
        show(campaign, campaign.experiment(started.target), repeat=True, as_json=as_json)
    elif as_json:
        json_of_running(started.target, started)
    else:
        command = to_type("wait", *named(campaign), started.target)
        terminal.say(f"experiment {started.target} runs in process {started.pid}; its verdict: {command}")
