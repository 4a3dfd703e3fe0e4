"""Draws progress.png: a campaign's experiments over time, and the best bits per byte so far.

Where scores are beliefs, each stands with its 95 % interval, and the scores of single trials are faint.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.records import COMPARE, Experiment, Measurement, Trial
from core.system.files import disk_full_as_user_error, replacing
from core.system.text import bpb, chance, gain, half_width, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from core.campaign.campaign import Campaign

INK, FAINT, KEPT, FAILED, BAND, RULE = "#24292f", "#8b949e", "#1a7f37", "#cf222e", "#54aeff", "#d0d7de"
DISTURBED = "#bc4c00"
SIZE_INCHES, DPI = (13.0, 6.2), 150
MOST_NAMED = 14  # kept experiments whose hypotheses are listed beside the plot
LINE_LETTERS, MOST_LINES = 44, 2  # of a hypothesis in that list


def campaign_progress(campaign: Campaign) -> Path:
    """Draws progress.png in the campaign's folder, and returns its path."""
    path = campaign.root / "progress.png"
    # Without beliefs only the band of the baseline's seeds needs trials.
    records = [*campaign.experiments(0, 1), *campaign.experiments(1, trials=campaign.believes)]
    records = [campaign.ledger.believed(record) for record in records]
    again = [one for one in campaign.ledger.all_measurements() if one.purpose == COMPARE]
    with disk_full_as_user_error(campaign.root):
        progress(records, path, campaign.name, again)
    return path


def progress(experiments: Sequence[Experiment], path: Path, title: str = "", again: Sequence[Measurement] = ()) -> None:
    """Draws the experiments to `path` as PNG: every score, the running best, and the noise.

    The noise is the 95 % interval of each belief; without beliefs the spread of the baseline's seeds. `again` are the
    champions' trials that verdicts asked for.
    What has no place on the scale stands at its upper edge, where the bad scores are: scores far above the baseline as
    triangles, so that one diverged model doesn't flatten the rest, and failures as crosses.
    """
    figure = new_figure(SIZE_INCHES)
    axes, margin = figure.subplots(1, 2, width_ratios=(3.0, 1.0))
    _draw(axes, experiments, title, again)
    _list(margin, experiments)
    save(figure, path)


def new_figure(inches: tuple[float, float]) -> Figure:
    """An empty figure that draws to files only."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, at once or not at all."""
    with warnings.catch_warnings(), replacing(path) as file:
        # A hypothesis may be in any script; where the font lacks it, boxes do.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="png")


def _draw(axes: Axes, experiments: Sequence[Experiment], title: str, again: Sequence[Measurement]) -> None:
    from matplotlib.ticker import MaxNLocator

    scored = [(e.number, e.val_bpb, e) for e in experiments if e.val_bpb is not None]
    beliefs = any(e.deviation is not None for e in experiments)
    kept = [(number, bpb, e) for number, bpb, e in scored if e.verdict == "keep"]
    last = max((e.number for e in experiments), default=0)
    axes.set_xlabel("experiment", color=INK)
    axes.set_ylabel("validation bits per byte (lower is better)", color=INK)
    if not scored:
        axes.set_title(
            title or "no experiment has a score yet", loc="left", color=INK, fontweight="bold", parse_math=False
        )
        return

    low, high = _limits(scored, kept)
    ceiling = high - 0.04 * (high - low)  # a point nearer to the edge would be cut by it
    top = high - 0.02 * (high - low)
    if beliefs:
        _intervals(axes, [e for _, bpb, e in scored if bpb <= ceiling], last)
        ran = [(e.number, trial) for e in experiments for trial in e.trials]
        _single_trials(axes, [*ran, *((one.series, one.trial) for one in again)], top)
    else:
        _spread(axes, experiments)
    discarded = [(number, bpb) for number, bpb, e in scored if e.verdict != "keep"]
    inside = [(number, bpb) for number, bpb in discarded if bpb <= ceiling]
    above = [number for number, bpb in discarded if bpb > ceiling]
    axes.scatter(*_columns(inside), s=26, color=FAINT, alpha=0.65, linewidths=0, label="discarded", zorder=3)
    if above:
        axes.scatter(
            above, [top] * len(above), s=30, marker="^", color=FAINT, alpha=0.65, label="off the scale", zorder=3
        )
    _without_score(axes, [e for e in experiments if e.val_bpb is None], top)
    if kept:
        axes.set_title(
            _heading(title, [e for _, _, e in kept], len(experiments) - 1), loc="left", color=INK, fontweight="bold",
            pad=46 if beliefs else 30, parse_math=False,
        )  # fmt: skip
        _champions(axes, kept, last)

    axes.set_xlim(-0.6, last + 0.6)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    columns = 5 if beliefs else 6
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, frameon=False, fontsize=9, handletextpad=0.4
    )
    for experiment in _named(experiments):
        where = (experiment.number, experiment.val_bpb or 0.0)
        axes.annotate(
            str(experiment.number),
            where,
            (-3, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=KEPT,
        )


def _heading(title: str, kept: Sequence[Experiment], experiments: int) -> str:
    """What the campaign came to, in a line."""
    within = sum(e.kept_within_spread for e in kept)
    lucky = f" ({within} within the spread)" if within else ""
    gained = f"{bpb(kept[0].val_bpb)} → {bpb(kept[-1].val_bpb, kept[-1].deviation)} bpb"
    heading = f"{gained} after {experiments} experiments, {len(kept) - 1} kept{lucky}"
    return f"{title}: {heading}" if title else heading


def _champions(axes: Axes, kept: Sequence[tuple[int, float, Experiment]], last: int) -> None:
    """Draws what was kept, and the best score so far as a line."""
    numbers, best = _columns([(number, bpb) for number, bpb, _ in kept])
    axes.step([*numbers, last + 0.5], [*best, best[-1]], where="post", color=KEPT, linewidth=1.8, zorder=4)
    clear = [(number, bpb) for number, bpb, e in kept if not e.kept_within_spread]
    axes.scatter(*_columns(clear), s=58, color=KEPT, edgecolors="white", linewidths=1.2, label="kept", zorder=5)
    if within := [(number, bpb) for number, bpb, e in kept if e.kept_within_spread]:
        axes.scatter(
            *_columns(within), s=46, color="white", edgecolors=KEPT, linewidths=1.6, zorder=5,
            label="kept within the spread",
        )  # fmt: skip


def _without_score(axes: Axes, without: Sequence[Experiment], top: float) -> None:
    """Draws the experiments without a score, at the upper edge."""
    if stopped := [e.number for e in without if e.verdict == "stopped"]:
        axes.scatter(
            stopped,
            [top] * len(stopped),
            s=26,
            marker="|",
            color=FAINT,
            linewidths=1.4,
            label="stopped early",
            zorder=3,
        )
    if failed := [e.number for e in without if e.verdict != "stopped"]:
        axes.scatter(
            failed, [top] * len(failed), s=34, marker="x", color=FAILED, linewidths=1.4, label="crash or invalid",
            zorder=3,
        )  # fmt: skip


def _limits(
    scored: Sequence[tuple[int, float, Experiment]], kept: Sequence[tuple[int, float, Experiment]]
) -> tuple[float, float]:
    """The range of the scale: from the best score to as far above the start as the start is above the best."""
    scores = sorted(bpb for _, bpb, _ in scored)
    lowest = min(bpb - _half(e) for _, bpb, e in scored)
    start = kept[0][1] if kept else scores[len(scores) // 2]
    spread = max((e.spread or _half(e) for _, _, e in scored), default=0.0)
    reach = max(start - scores[0], 2 * spread, 0.002 * start)
    # What was merely a bad idea stays on the scale; what diverged doesn't.
    usual = min(scores[int(0.85 * (len(scores) - 1))], 1.15 * start)
    highest = min(scores[-1], max(start + reach, usual))
    margin = 0.08 * (max(highest, start + spread) - lowest) + 1e-4
    return lowest - 1.6 * margin, max(highest, start + spread) + margin


def _spread(axes: Axes, experiments: Sequence[Experiment]) -> None:
    """Draws the band between the baseline's seeds: a difference within it may be luck."""
    baseline = next((e for e in experiments if e.number == 0), None)
    scores = [trial.val_bpb for trial in baseline.trials if trial.val_bpb is not None] if baseline else []
    if len(scores) > 1:
        axes.axhspan(min(scores), max(scores), color=BAND, alpha=0.18, linewidth=0, label="baseline's seeds", zorder=1)


def _intervals(axes: Axes, scored: Sequence[Experiment], last: int) -> None:
    """Draws the 95 % interval of every belief: a band for the champions, each as long as it was one, and bars."""
    kept = [e for e in scored if e.verdict == "keep"]
    if kept:
        bounds = [((e.val_bpb or 0.0) - half, (e.val_bpb or 0.0) + half) for e in kept for half in [_half(e)]]
        lows, highs = zip(*bounds, bounds[-1], strict=True)
        axes.fill_between(
            [*(e.number for e in kept), last + 0.5], lows, highs, step="post", color=KEPT, alpha=0.12, linewidth=0,
            label="champion, 95 %", zorder=1,
        )  # fmt: skip
    for colour, width, group in ((FAINT, 0.8, [e for e in scored if e.verdict != "keep"]), (KEPT, 1.4, kept)):
        axes.errorbar(
            [e.number for e in group], [e.val_bpb or 0.0 for e in group], [_half(e) for e in group], fmt="none",
            ecolor=colour, elinewidth=width, alpha=0.6, zorder=2,
        )  # fmt: skip


def _half(experiment: Experiment) -> float:
    return half_width(experiment.deviation) or 0.0


def _single_trials(axes: Axes, ran: Sequence[tuple[int, Trial]], top: float) -> None:
    """Draws what each trial scored, at the number of the experiment that it ran for.

    A disturbed one that is off the scale stands at `top`, so that none is hidden.
    """
    for disturbed, label, marker in ((False, "single trials", "."), (True, "disturbed", "d")):
        found = [
            (number, min(trial.val_bpb, top) if disturbed else trial.val_bpb)
            for number, trial in ran
            if trial.val_bpb is not None and bool(trial.disturbed) == disturbed
        ]
        if found:
            colour = DISTURBED if disturbed else FAINT
            axes.scatter(
                *_columns(found), s=22, marker=marker, color=colour, alpha=0.45, linewidths=0.9, label=label, zorder=2
            )


def _named(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The kept experiments with the largest gains, by number, without the baseline."""
    kept = [e for e in experiments if e.verdict == "keep" and e.number > 0]
    return sorted(sorted(kept, key=lambda e: -(e.gain or 0.0))[:MOST_NAMED], key=lambda e: e.number)


def _list(axes: Axes, experiments: Sequence[Experiment]) -> None:
    """Lists the kept hypotheses beside the plot."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    named = _named(experiments)
    kept = sum(e.verdict == "keep" and e.number > 0 for e in experiments)
    heading = "kept" if len(named) == kept else f"kept: the {len(named)} largest of {kept} gains"
    axes.text(0, 1, heading if named else "nothing kept yet", color=INK, fontsize=9, fontweight="bold", va="top")
    y = 0.95
    for experiment in named:
        if experiment.deviation is not None:
            y = _believed(axes, y, experiment)
            continue
        lines = textwrap.wrap(one_line(experiment.hypothesis), LINE_LETTERS, max_lines=MOST_LINES, placeholder=" …")
        axes.text(0.0, y, str(experiment.number), color=KEPT, fontsize=8, fontweight="bold", va="top")
        unsure = "?" if experiment.kept_within_spread else ""
        axes.text(0.1, y, gain(experiment.gain) + unsure, color=KEPT, fontsize=8, va="top")
        axes.text(0.31, y, "\n".join(lines), color=INK, fontsize=8, va="top", parse_math=False)
        y -= 0.03 * max(1, len(lines)) + 0.012


def _believed(axes: Axes, y: float, experiment: Experiment) -> float:
    """Lists a kept hypothesis under its belief, at height `y`. Returns the next one's height."""
    axes.text(0.0, y, str(experiment.number), color=KEPT, fontsize=8, fontweight="bold", va="top")
    belief = (
        f"{bpb(experiment.val_bpb, experiment.deviation)}   {gain(experiment.gain)}, {chance(experiment.probability)}"
    )
    axes.text(0.1, y, belief, color=KEPT, fontsize=8, va="top")
    words = one_line(experiment.hypothesis, LINE_LETTERS + 4)
    axes.text(0.1, y - 0.028, words, color=INK, fontsize=8, va="top", parse_math=False)
    return y - 0.066


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
