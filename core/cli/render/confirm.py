"""A confirmation: a row a seed, the gains with their intervals, and what they mean."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.campaign.confirm import Confirmation, told
from core.campaign.statistics import Interval
from core.system.text import bpb, gain, one_line


def report(one: Confirmation) -> Group:
    """All of it, for a person."""
    parts: list[RenderableType] = [
        Text(f"experiment {one.champion} ({one.commit[:9]}) against the baseline", style="bold")
    ]
    if one.pairs:
        parts.append(_table(one))
    parts += [Text(f"failed and left out: {one_line(failed)}", style="red") for failed in one.failed]
    parts += [Text(f"seed {seed} has run on one side only; the same command goes on") for seed in one.unpaired]
    for name, mean, interval in (("val", one.val_gain, one.val), ("test", one.test_gain, one.test)):
        if mean is not None:
            parts.append(Text(f"{name + ' gain':10} {_gain(mean, interval)}"))
    if one.val_gain is not None:
        share = "none" if one.share is None else f"{one.share:.0%} of it is left on fresh seeds"
        parts.append(Text(f"{'claimed':10} {one.claimed:.4f}: {share}"))
    parts.append(Text(one.conclusion, style="bold"))
    if one.note:
        parts.append(Text(f"note: {one.note}"))
    if one.alarm:
        parts.append(Text(f"alarm: {one.alarm}", style="bold red"))
    return Group(*parts)


def _table(one: Confirmation) -> Table:
    rows = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("seed", "baseline val", "champion val", "gain", "baseline test", "champion test", "gain"):
        rows.add_column(name, justify="right", no_wrap=True)
    for pair in one.pairs:
        val = (bpb(pair.baseline_bpb), bpb(pair.champion_bpb), gain(pair.val))
        test = (bpb(pair.baseline_test_bpb), bpb(pair.champion_test_bpb), gain(pair.test))
        rows.add_row(str(pair.seed), *val, *test)
    return rows


def _gain(mean: float, interval: Interval | None) -> str:
    if interval is None:
        return f"{mean:.4f}, of one seed: how far it can be trusted is not known"
    return f"{told(interval)} (95 % interval, Student's t over {interval.count} pairs of equal seeds)"
