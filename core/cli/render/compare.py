"""Entries of a comparison as a table and as a plot of bits per byte over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from core.cli.render.plots import FAINT, INK, RULE, save
from core.measure.compare import Curve, Entry, ranked
from core.records import Trial
from core.system.text import bpb, count, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1a7f37", "#0969da", "#bc4c00", "#8250df", "#cf222e", "#6e7781", "#9a6700", "#1b7c83")
SMOOTHED = 30  # windows that a curve is averaged in


def table(entries: Sequence[Entry]) -> Table:
    """A row an entry, best first."""
    rows = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    rows.add_column("name", no_wrap=True)
    for name in ("val_bpb", "spread", "seeds", "steps", "tokens/s", "MFU", "memory", "start-up", "overhead", "wall"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("where")
    for place, entry in enumerate(ranked(entries)):
        row = entry.row()
        where = Text(f"{row['backend']} on {row['device']}")
        if row["verdict"] != "scored":
            where = Text(f"{row['verdict']}: {row['reason']}", style="red")
        rows.add_row(
            Text(entry.name, style="bold green" if place == 0 and entry.val_bpb is not None else "bold"),
            bpb(row["val_bpb"]),
            bpb(row["val_bpb_spread"]),
            ",".join(map(str, row["seeds"])),
            str(row["steps"]),
            count(row["tokens_per_second"]),
            "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
            "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f} MB",
            seconds(row["startup_seconds"]),
            seconds(row["overhead_seconds"]),
            seconds(row["wall_seconds"]),
            where,
        )
    return rows


def plot(entries: Sequence[Entry], path: Path) -> None:
    """Draws bits per byte over the seconds since each process started: training's as lines, the scores as dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lows, highs = [], []
    for place, entry in enumerate(ranked(entries)):
        colour = COLOURS[place % len(COLOURS)]
        for trial, curve in zip(entry.trials, entry.curves, strict=False):
            points = bits(trial, curve)
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, alpha=0.75)
                highs.append(points[len(points) // 8][1])
                lows.append(min(value for _, value in points))
        if entry.val_bpb is not None:
            ends = [trial.startup_seconds + trial.train_seconds for trial in entry.trials]
            reach = (entry.spread or 0.0) / 2
            axes.errorbar(
                sum(ends) / len(ends),
                entry.val_bpb,
                reach or None,
                fmt="o",
                color=colour,
                capsize=4,
                label=f"{entry.name}: {entry.val_bpb:.4f}",
            )
            lows.append(entry.val_bpb - reach)
            highs.append(entry.val_bpb + reach)
    _finish(axes, lows, highs)
    save(figure, path)


def bits(trial: Trial, curve: Curve) -> list[tuple[float, float]]:
    """A trial's training loss as (seconds since its process started, bits per byte), averaged in windows.

    Nats a token become bits per byte by the tokens a byte of the scored text; empty where those are not known.
    """
    if not curve or not trial.scored_tokens or not trial.scored_bytes:
        return []
    factor = trial.scored_tokens / trial.scored_bytes / math.log(2)
    width = max(1, math.ceil(len(curve) / SMOOTHED))
    windows = [curve[first : first + width] for first in range(0, len(curve), width)]
    return [
        (
            trial.startup_seconds + sum(point["seconds"] for point in window) / len(window),
            factor * sum(point["loss"] for point in window) / len(window),
        )
        for window in windows
    ]


def _finish(axes: Axes, lows: Sequence[float], highs: Sequence[float]) -> None:
    axes.set_xlabel("seconds since the process started, start-up included", color=INK)
    axes.set_ylabel("bits per byte: training as a line, validation as a dot", color=INK)
    if lows and highs:
        margin = 0.06 * (max(highs) - min(lows)) + 1e-3
        axes.set_ylim(min(lows) - margin, max(highs) + margin)
        axes.legend(frameon=False, loc="upper right")
    axes.set_xlim(left=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
