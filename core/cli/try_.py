"""`autoresearch try`: tries train.py as somebody edited it."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir, NoSandbox, interruptible
from core.cli.render import terminal
from core.records import Experiment

KEYS = ("verdict", "val_bpb", "champion_bpb", "gain", "spread", "reason")


def try_(
    message: Annotated[
        str, Option("--message", "-m", metavar="TEXT", help="the hypothesis: what should get better, and why")
    ],
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    agent: Annotated[str, Option(metavar="NAME", help="the name to record as the agent's")] = "try",
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Try train.py as you edited it, and keep it if it is better.

    If it is not kept, train.py gets the champion's text back. The exit status is 0 for every verdict. With --json, the
    last line has verdict, val_bpb, champion_bpb, reason and experiment.

    \b
      autoresearch try -m "a wider first layer sees more of the byte pairs"
    """
    from core.cli.render import plots, tables
    from core.cli.render.live import Follower

    with resolve.campaign_of(folder, option) as campaign, interruptible("the same command continues from here"):
        with Follower(terminal.err()) as follower:
            result = campaign.try_worktree(message, follower, agent=agent)
        repeat = not isinstance(result, Experiment)
        experiment = result if isinstance(result, Experiment) else result.earlier
        if not repeat and experiment.verdict == "keep":
            plots.campaign_progress(campaign)
    if as_json:
        values = {key: getattr(experiment, key) for key in KEYS}
        terminal.json_line({**values, "experiment": experiment.number, "repeat": repeat})
        return
    if repeat:
        terminal.say(f"not run again: this trainer is experiment {experiment.number} already")
    terminal.out().print(tables.verdict(experiment))
