"""`autoresearch wait`: waits for an experiment's verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from core.cli import detached, resolve
from core.cli.options import AsJson, CampaignDir, ExperimentWords, interruptible, to_type
from core.cli.render import terminal
from core.cli.try_ import json_of_running, named, show
from core.cli.words import split_words
from core.records import Experiment, UserError
from core.store import activity
from core.store.activity import Activity
from core.store.lock import Busy

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.cli.render.live import Bars

LOOK_SECONDS = 0.25
STILL_RUNNING = Busy.status


def wait(
    first: ExperimentWords = None,
    second: Annotated[
        str | None,
        Argument(metavar="N", help="the experiment's number; default: the one at work, else the last one"),
    ] = None,
    seconds: Annotated[
        float | None, Option("--for", metavar="SECONDS", min=0, help="wait no longer than this; default: until the end")
    ] = None,
    option: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Wait for an experiment's verdict, and print it as `try` does.

    The exit status is 0 for every verdict, and 75 if it is still running after --for seconds: wait again then. A shell
    that ends its commands after two minutes never sees that with --for 100. Ctrl-C ends the waiting alone.

    \b
      autoresearch try --detach -m "wider heads"
      autoresearch wait --for 100
      autoresearch wait night 3
    """
    from core.cli.render.live import Bars

    folder, named_number, _ = split_words([word for word in (first, second) if word is not None])
    with resolve.campaign_of(folder, option, tell=False) as campaign:
        number = _default(campaign) if named_number is None else named_number
        again = to_type("wait", *named(campaign), number)
        with interruptible(f"experiment {number} goes on; {again} waits again"):
            with Bars(terminal.err()) as bars:
                result = _wait(campaign, number, seconds, bars)
            if isinstance(result, Experiment):
                show(campaign, result, repeat=False, as_json=as_json)
                return
    if as_json:
        json_of_running(number, result)
    else:
        terminal.say(f"still running, {result.line}")
    raise typer.Exit(STILL_RUNNING)


def _wait(campaign: Campaign, number: int, seconds: float | None, bars: Bars) -> Experiment | Activity:
    """The experiment once it has its verdict, else what is at work when the seconds are over."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found = activity.read(campaign.files)  # before the ledger: what ends in between has its row there
        experiment = campaign.ledger.experiment(number)
        if experiment is not None and (found is None or _let_go(found, number)):
            return experiment
        if found is None or not found.running:
            raise _never(campaign, number, found)
        if until is not None and time.monotonic() >= until:
            return found
        fraction = found.seconds / found.budget if found.seconds is not None and found.budget else None
        bars.show("wait", "waiting for", fraction, f"experiment {number}: {found.line}")
        time.sleep(LOOK_SECONDS if until is None else max(0.0, min(LOOK_SECONDS, until - time.monotonic())))


def _let_go(found: Activity, number: int) -> bool:
    """Whether nobody is at work on this experiment any more: not on its files, nor, for a `try`, on the campaign."""
    return not found.running or (number != found.target and found.judged is not None and found.judged >= number)


def _default(campaign: Campaign) -> int:
    """The experiment that is waited for if none is named."""
    found = activity.read(campaign.files)
    if found is not None and (found.running or (found.failed and found.target is not None)):
        for number in (found.target, found.experiment):
            if number is not None:
                return number
        return len(campaign)
    if len(campaign) == 0:
        raise UserError(f"nothing runs in {campaign.root}; try an edit of train.py with: autoresearch try -m TEXT")
    return len(campaign) - 1


def _never(campaign: Campaign, number: int, found: Activity | None) -> UserError:
    """The error for an experiment that nobody is at work on."""
    if found is not None and found.failed and found.target == number:
        activity.mark_told(campaign.files, found)
        return UserError(detached.failure(campaign.files, found))
    count = len(campaign)
    there = f"there are 0 to {count - 1}" if count else "there are none yet"
    return UserError(f"there is no experiment {number}, {there}, and nothing runs in {campaign.root}")
