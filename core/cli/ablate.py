"""`autoresearch ablate`: which of the kept changes the champion still needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from core.campaign.ablate import DEFAULT_SEEDS
from core.cli import resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    CampaignArgument,
    CampaignDir,
    NoSandbox,
    interruptible,
    parsed_hours,
    to_type,
)
from core.cli.render import terminal
from core.system.text import gain, one_line

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from core.campaign.ablate import AblatedChange, Ablation, SmallerChampion

FINDINGS = {
    "helps": "helps",
    "noise": "noise",
    "hurts": "hurts",
    "needed": "needed",
    "overlaps": "can't go alone",
    "replaced": "replaced",
    "undecided": "not known yet",
}


def ablate(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    seeds: Annotated[
        int, Option(metavar="N", min=2, help="how many unused seeds; each takes the champion and what is undecided")
    ] = DEFAULT_SEEDS,
    hours: Annotated[
        float | None,
        Option(metavar="HOURS", parser=parsed_hours, help="start no trial after so many hours: 8, 0.5 or 1:30"),
    ] = None,
    minutes: Annotated[float | None, Option(metavar="MINUTES", min=0, help="the same in minutes")] = None,
    trials: Annotated[int | None, Option(metavar="N", min=0, help="run no more than N trials")] = None,
    propose: Annotated[
        bool, Option("--propose", help="then try the champion without what it does not need, as one more experiment")
    ] = False,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Leave each kept change out of the champion and measure what it contributes.

    Champion and what is left of it run with the same fresh seeds, those trials first that are worth most for what can
    go: a change whose gain was small before one that plainly helped. A constant goes back to what it was before, unless
    a later change set it again. Code on whose lines a later change stands can't go alone, and the report says so. Every
    trial is recorded: after Ctrl-C, or at a limit, the same command continues. The exit status is 1 if nothing was
    measured.

    \b
      autoresearch ablate night --minutes 30
      autoresearch ablate night --propose
    """
    from core.cli.render.live import Follower

    limit = None if hours is None and minutes is None else (hours or 0.0) + (minutes or 0.0) / 60
    stopping = interruptible("the same command continues from here")
    with resolve.campaign_of(folder, option) as campaign, stopping, Follower(terminal.err()) as follower:
        found = campaign.ablate(seeds, hours=limit, trials=trials, propose=propose, on_event=follower)
    if as_json:
        terminal.json_text(dataclasses.asdict(found))
    else:
        console = terminal.out()
        console.print(_report(found, console.width, to_type("ablate", campaign.root, "--propose")))
    if not any(change.pairs or change.finding == "needed" for change in found.changes):
        raise typer.Exit(CRASHED)


def _report(one: Ablation, width: int, propose: str) -> Group:
    """All of it for a person: a row a change, the noise, and what a smaller champion could do without."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"experiment {one.champion} ({one.commit[:9]}) without each of its changes", style="bold"),
        _table(one, width),
    ]
    parts += [Text(f"failed and left out: {failed}", style="red") for failed in one.failed]
    parts += [
        Text(f"experiment {change.experiment}: {change.why}")
        for change in one.changes
        if change.finding in ("needed", "overlaps", "replaced")
    ]
    parts += [
        Text(f"experiment {change.experiment}: {', '.join(change.stay)} stayed: set again later")
        for change in one.changes
        if change.stay and change.finding != "replaced"
    ]
    if one.noise is not None:
        noise = f"noise of a pair {one.noise:.2g} bpb, from {one.freedom} degrees of freedom over all changes"
        parts.append(Text(f"{noise}; 95 % intervals, Student's t"))
    if one.left:
        parts.append(Text(f"{one.left} trials are left to run: the same command continues"))
    parts.append(Text(one.conclusion, style="bold"))
    if one.smaller is not None:
        parts.append(Text(_smaller(one.smaller, propose)))
    elif any(change.finding == "noise" for change in one.changes):
        parts.append(Text("nothing to leave out: what can't be told from luck takes no code away, or leans to helping"))
    return Group(*parts)


def _table(one: Ablation, width: int) -> RenderableType:
    from core.cli.render.tables import Column, fitted

    columns = [
        Column("#", right=True),
        Column("it is"),
        Column("contributes", right=True),
        Column("claimed", right=True, spare=1),
        Column("pairs", right=True, spare=2),
        Column("nodes", right=True, spare=3),
        Column("hypothesis", words=True),
    ]
    rows = [
        (
            str(change.experiment),
            FINDINGS[change.finding],
            _contribution(change),
            gain(change.gain),
            str(change.pairs),
            f"{change.nodes:+d}" if change.nodes else "",
            one_line(change.hypothesis),
        )
        for change in one.changes
    ]
    return fitted(columns, rows, width)


def _contribution(change: AblatedChange) -> str:
    if change.interval is not None:
        return f"{change.interval.mean:+.4f} +- {change.interval.half_width:.4f}"
    return "-" if change.contribution is None else f"{change.contribution:+.4f}"


def _smaller(one: SmallerChampion, propose: str) -> str:
    numbers = ", ".join(map(str, one.without))
    what = f"without experiment{'s' * (len(one.without) > 1)} {numbers} the trainer has {one.nodes} nodes"
    what += f" instead of {one.champion_nodes}"
    if one.experiment is not None:
        return f"{what}: experiment {one.experiment} tried that: {one.verdict}"
    return f"{what}; have it tried with: {propose}"
