"""`autoresearch confirm`: compares champion and baseline again, on seeds and text that no choice depended on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from core.campaign.confirm import DEFAULT_SEEDS
from core.cli import resolve
from core.cli.options import CRASHED, AsJson, CampaignArgument, CampaignDir, NoSandbox, interruptible
from core.cli.render import terminal
from core.system.text import bpb, gain, one_line

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from core.campaign.confirm import Confirmation
    from core.campaign.statistics import Interval


def confirm(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    seeds: Annotated[int, Option(metavar="N", help="how many unused seeds; each takes two trials")] = DEFAULT_SEEDS,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Measure champion and baseline again with fresh seeds.

    The two take turns and are scored on the validation text and on the test text, which no other trial is scored on.
    A trial whose scores fail a deep audit takes its seed out. Every trial is recorded: after Ctrl-C the same command
    continues, and a higher number of seeds adds to the results.
    The exit status is 1 if no pair of trials was completed.

    \b
      autoresearch confirm
      autoresearch confirm --seeds 6 --json
    """
    from core.cli.render.live import Follower

    stopping = interruptible("the same command continues from here")
    with resolve.campaign_of(folder, option) as campaign, stopping, Follower(terminal.err()) as follower:
        result = campaign.confirm(seeds, follower)
    if as_json:
        terminal.json_text(dataclasses.asdict(result))
    else:
        console = terminal.out()
        console.print(_report(result, console.width))
    if not result.pairs:
        raise typer.Exit(CRASHED)


def _report(one: Confirmation, width: int) -> Group:
    """All of it for a person: a row a seed, the gains with their intervals, and what they mean."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"experiment {one.champion} ({one.commit[:9]}) against the baseline", style="bold")
    ]
    if one.pairs:
        parts.append(_table(one, width))
    parts += [Text(f"failed and left out: {one_line(failed)}", style="red") for failed in one.failed]
    parts += [Text(f"seed {seed} has run on one side only; the same command continues") for seed in one.unpaired]
    if one.unaudited:
        seeds = ", ".join(map(str, one.unaudited))
        parts.append(Text(f"without a deep audit, from an earlier version: seeds {seeds}; --seeds N adds audited ones"))
    for name, mean, interval in (("val", one.val_gain, one.val), ("test", one.test_gain, one.test)):
        if mean is not None:
            parts.append(Text(f"{name + ' gain':10} {_gain(mean, interval)}"))
    if one.val_gain is not None:
        share = "none" if one.share is None else f"{one.share:.0%} of it remains on fresh seeds"
        parts.append(Text(f"{'claimed':10} {one.claimed:.4f}: {share}"))
    parts.append(Text(one.conclusion, style="bold"))
    if one.note:
        parts.append(Text(f"note: {one.note}"))
    if one.alarm:
        parts.append(Text(f"alarm: {one.alarm}", style="bold red"))
    return Group(*parts)


def _table(one: Confirmation, width: int) -> RenderableType:
    from core.cli.render.tables import Column, fitted

    names = ("seed", "baseline val", "champion val", "gain", "baseline test", "champion test", "gain")
    rows = [
        (
            *(str(pair.seed), bpb(pair.baseline_bpb), bpb(pair.champion_bpb), gain(pair.val)),
            *(bpb(pair.baseline_test_bpb), bpb(pair.champion_test_bpb), gain(pair.test)),
        )
        for pair in one.pairs
    ]
    return fitted([Column(name, right=True) for name in names], rows, width)


def _gain(mean: float, interval: Interval | None) -> str:
    if interval is None:
        return f"{mean:.4f} on one seed: its uncertainty is unknown"
    return f"{interval} (95 % interval, Student's t over {interval.count} pairs of equal seeds)"
