"""`autoresearch audit`: verifies a campaign from its ledger, refs and weights alone."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.text import Text
from typer import Option

from core.cli import resolve
from core.cli.options import CRASHED, AsJson, CampaignArgument, CampaignDir, NoSandbox, interruptible
from core.cli.render import terminal


def audit(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    quick: Annotated[bool, Option("--quick", help="check only ledger, refs and hashes; run no model")] = False,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Verify a campaign's records and every champion's score.

    This checks each row's hash, each commit's ref and each weights file's hash, and then scores and audits the weights
    again. It changes nothing. If a check fails, the output names the row and the exit status is 1.

    \b
      autoresearch audit night
      autoresearch audit night --quick --json
    """
    from core.cli.render.live import Follower

    console = terminal.out()
    faults = 0
    checks = []
    stopping = interruptible("nothing was changed")
    with resolve.campaign_of(folder, option) as campaign, stopping, Follower(terminal.err()) as follower:
        for check in campaign.verify(follower, scores=not quick):
            faults += bool(check.fault)
            checks.append(dataclasses.asdict(check))
            if not as_json:
                line = Text(f"{'FAULT' if check.fault else 'holds'}  ", style="red" if check.fault else "green")
                line.append(f"{check.subject}: {check.what}", style="")
                line.append(f"  {check.fault or check.found}", style="" if check.fault else "bright_black")
                console.print(line, soft_wrap=True)
    if as_json:
        terminal.json_text({"holds": not faults, "faults": faults, "checks": checks})
    else:
        terminal.say(f"{len(checks)} checks, {faults} faults" if faults else f"{len(checks)} checks: all of it holds")
    if faults:
        raise typer.Exit(CRASHED)
