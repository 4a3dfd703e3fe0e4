"""`autoresearch confirm`: is the champion really better, on seeds and on text that nothing was chosen on?"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from core.campaign.confirm import DEFAULT_SEEDS
from core.cli import resolve
from core.cli.options import CRASHED, AsJson, Folder, NoSandbox, interruptible
from core.cli.render import terminal


def confirm(
    seeds: Annotated[int, typer.Option(metavar="N", help="so many that no trial has had; two trials each")] = (
        DEFAULT_SEEDS
    ),
    folder: Folder = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Measure the champion against the baseline anew.

    Fresh seeds, both sides in turn, on the validation text and on the test text, which no other trial is scored on.
    Every trial is recorded: after Ctrl-C the same command goes on, and a higher number of seeds adds to what is there.
    Ends with status 1 if no pair of trials ran to its end.

    \b
      autoresearch confirm
      autoresearch confirm --seeds 6 --json
    """
    from core.cli.render.confirm import report
    from core.cli.render.live import Follower

    with resolve.campaign_of(folder) as campaign, interruptible("the same command goes on from here"):
        follower = Follower(terminal.err(), lambda judged: None)
        try:
            result = campaign.confirm(seeds, follower)
        finally:
            follower.close()
    if as_json:
        terminal.json_text(dataclasses.asdict(result))
    else:
        terminal.out().print(report(result))
    if not result.pairs:
        raise typer.Exit(CRASHED)
