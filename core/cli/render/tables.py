"""Records as tables and lines. Each function returns something that rich can print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core.cli.render.terminal import PIPE_WIDTH, STYLES
from core.records import Audit, Experiment, Measurement, Trial
from core.store.activity import INTERRUPTED
from core.system.conditions import remarks
from core.system.text import bpb, chance, clean, count, gain, interval, one_line, seconds

if TYPE_CHECKING:
    from core.agents.llm.archive import Costs
    from core.campaign.confirm import Confirmation
    from core.campaign.status import Status
    from core.store.activity import Activity
    from core.store.ledger import DisturbedTrial, StopTotals

# The columns of a list of experiments: name, width, alignment, and the width of a terminal from which it is shown. The
# hypothesis takes the rest of the line.
COLUMNS = (
    ("#", 5, ">", 0),
    ("verdict", 7, "<", 0),
    ("val_bpb", 7, ">", 0),
    ("gain", 7, ">", 0),
    ("spread", 6, ">", 60),
    ("steps", 6, ">", 100),
    ("seconds", 7, ">", 100),
)
# Where scores are beliefs: `better` is the probability that it truly beats the champion, `trials` how many it took.
BELIEF_COLUMNS = (
    *COLUMNS[:3],
    ("+- (95 %)", 9, ">", 60),
    COLUMNS[3],
    ("better", 6, ">", 70),
    ("trials", 6, ">", 120),
    *COLUMNS[5:],
)
MOST_NAMED = 12  # experiments whose disturbed trials a line names
WITHIN = "within the spread"  # of the baseline's seeds: what is said of a gain that may be luck
MAY_BE_LUCK = "the gain is within it and may be luck; autoresearch confirm measures it with fresh seeds"
GAP = 3  # between columns
LEAST_WORDS = 24  # columns that words which may wrap get beside numbers; with fewer they stand below


@dataclass(frozen=True)
class Column:
    """A column of `fitted`. Where there is no room, the one with the highest `spare` goes first; 0 always stays."""

    name: str
    right: bool = False  # aligned so, as numbers are
    words: bool = False  # may wrap, and may stand below its row
    spare: int = 0


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]], width: int) -> RenderableType:
    """A table with nothing cut: in a narrow terminal spare columns are left out, and words stand below their row.

    `rows` have a cell for each of `columns`; a column of empty cells is left out. A last line names what had no room.
    """
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in one] for one in rows]
    sizes = [
        max([len(column.name), *(cell_len(line) for one in cells for line in one[place].plain.splitlines())])
        for place, column in enumerate(columns)
    ]

    def taken(places: Iterable[int]) -> int:
        return sum(min(LEAST_WORDS, sizes[at]) if columns[at].words else sizes[at] + GAP for at in places)

    shown = [place for place in range(len(columns)) if any(one[place].plain for one in cells)]
    below = [place for place in shown if columns[place].words and taken(shown) > width]
    shown = [place for place in shown if place not in below]
    no_room: list[int] = []
    while taken(shown) > width and (spare := [place for place in shown if columns[place].spare]):
        no_room.append(max(spare, key=lambda place: columns[place].spare))
        shown.remove(no_room[-1])
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for place in shown:
        column = columns[place]
        table.add_column(column.name, justify="right" if column.right else "left", no_wrap=not column.words)
    parts: list[RenderableType] = [table]
    if not below:
        for one in cells:
            table.add_row(*(one[place] for place in shown))
    else:
        parts = [_line([Text(columns[place].name, style="bold") for place in shown], columns, sizes, shown)]
        for one in cells:
            parts.append(_line([one[place] for place in shown], columns, sizes, shown))
            parts += [Padding(one[place], (0, 0, 0, 4)) for place in below if one[place].plain]
    if no_room:
        names = ", ".join(columns[place].name for place in sorted(no_room))
        parts.append(Text(f"a wider terminal, or --json, also has: {names}", style="bright_black"))
    return Group(*parts)


def _line(cells: Sequence[Text], columns: Sequence[Column], sizes: Sequence[int], shown: Sequence[int]) -> Text:
    """Cells beside each other, each in its column's size."""
    line = Text(no_wrap=True)
    for cell, place in zip(cells, shown, strict=True):
        aligned = cell.copy()
        aligned.align("right" if columns[place].right else "left", sizes[place])
        line.append_text(aligned).append(" " * GAP)
    return line


def header(width: int = PIPE_WIDTH, *, beliefs: bool = False) -> Text:
    """The line above `row`s, for a terminal of that width."""
    columns = BELIEF_COLUMNS if beliefs else COLUMNS
    names = "  ".join(f"{name:{align}{size}}" for name, size, align, least in columns if width >= least)
    return Text(f"{names}  hypothesis", style="bold")


def emit(console: Console, line: Text) -> None:
    """Prints a line, cut at the edge of a terminal; whole if there is no terminal."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def row(experiment: Experiment, width: int = PIPE_WIDTH, *, beliefs: bool = False) -> Text:
    """One experiment as a line under `header`, with what was believed when it got its verdict."""
    steps = experiment.trials[-1].steps if experiment.trials else 0
    cells = {
        "#": str(experiment.number),
        "verdict": experiment.verdict,
        "val_bpb": bpb(experiment.val_bpb),
        "gain": gain(experiment.gain),
        "spread": bpb(experiment.spread),
        "+- (95 %)": interval(experiment.deviation),
        "better": chance(experiment.probability),
        "trials": str(len(experiment.trials)),
        "steps": str(steps),
        "seconds": f"{experiment.wall_seconds:.1f}",
    }
    line = Text()
    for name, size, align, least in BELIEF_COLUMNS if beliefs else COLUMNS:
        if width >= least:
            style = _style(experiment) if name in ("verdict", "gain") else ""
            line.append(f"{cells[name]:{align}{size}}  ", style=style)
    if experiment.kept_within_spread:
        line.append(f"[{WITHIN}] ", style=_style(experiment))
    if slowed := sum(bool(one.disturbed) for one in experiment.trials):
        line.append(f"[{slowed} of {len(experiment.trials)} trials disturbed] ", style="yellow")
    line.append(_description(experiment), style="" if experiment.verdict == "keep" else "bright_black")
    return line


def verdict(experiment: Experiment) -> Group:
    """An experiment's result in a few lines."""
    first = Text()
    said = str(experiment.verdict)
    if experiment.kept_within_spread:
        said += f", {WITHIN}"
    if experiment.probability is not None:
        said += f", {chance(experiment.probability)} likely better"
    first.append(said, style=_style(experiment))
    first.append(f"  experiment {experiment.number}: {one_line(experiment.hypothesis)}")
    measured = f"val_bpb {bpb(experiment.val_bpb, experiment.deviation)}, "
    measured += f"champion {bpb(experiment.champion_bpb, experiment.champion_deviation)}"
    if experiment.gain is not None:
        measured += f", gain {gain(experiment.gain)}"
        if experiment.deviation is None:
            measured += f" (spread of the baseline's seeds {bpb(experiment.spread)})"
        if experiment.kept_within_spread:
            measured += f": {MAY_BE_LUCK}"
    lines = [first, Text(measured)]
    if experiment.effect is not None:
        effect = f"{gain(experiment.effect)} {interval(experiment.effect_error)}"
        lines.append(Text(f"measured {effect} in its trials, before what is known of other changes is weighed in"))
    lines.append(Text(f"reason: {one_line(experiment.reason)}"))
    if experiment.audit is not None:
        lines.append(Text(f"audit: {audit(experiment.audit)}"))
    return Group(*lines)


def trial(record: Trial) -> Table:
    """One trial's results, in two columns."""
    style = {"scored": "green", "stopped": STYLES["stopped"]}.get(record.verdict, "red")
    outcome = Text(record.verdict, style=style)
    if record.reason:
        outcome.append(f": {clean(record.reason)}", style="")
    rows: dict[str, RenderableType] = {"verdict": outcome}
    if record.val_bpb is not None:
        rows["val_bpb"] = f"{record.val_bpb:.6f} over {count(record.scored_bytes)}B of text"
    if record.test_bpb is not None:
        rows["test_bpb"] = f"{record.test_bpb:.6f}"
    rows["model"] = f"{count(record.parameters)} parameters, vocabulary {record.vocabulary}"
    if record.rows and record.sequence_length:
        rows["training"] = (
            f"{record.steps} steps of {record.rows} x {record.sequence_length}: {count(record.tokens)} tokens"
        )
    rows["time"] = (
        f"start-up {seconds(record.startup_seconds)}, training {seconds(record.train_seconds)}, "
        f"scoring {seconds(record.score_seconds)}, wall {seconds(record.wall_seconds)}"
    )
    if record.tokens_per_second:
        speed = f"{count(record.tokens_per_second)} tokens/s"
        if record.flops_per_token:
            speed += f", {count(record.tokens_per_second * record.flops_per_token)}FLOP/s"
        if record.mfu is not None:
            speed += f", {record.mfu:.1%} of {count(record.peak_flops)}FLOP/s"
        rows["speed"] = speed
    if record.peak_memory_mb is not None:
        rows["memory"] = f"{record.peak_memory_mb:.0f} MB at its peak"
    if record.audit is not None:
        rows["audit"] = audit(record.audit)
    if record.stop_progress is not None:
        then = "was stopped" if record.verdict == "stopped" else "ran on, to check the rule that stops such trials"
        rows["progress"] = f"at {record.stop_progress:.0%} it could hardly have won any more, and {then}"
    if record.disturbed:
        rows["disturbed"] = Text(f"{clean(record.disturbed)}: counts only beside trials slowed alike", style="yellow")
    elif disturbances := remarks(record.conditions):
        text = f"{'; '.join(disturbances)}: this changed the trial's speed"
        rows["warning"] = Text(text, style="yellow")
    rows["where"] = f"{record.backend} on {record.device}, seed {record.seed}, sandbox {record.sandbox}"
    rows.update(dict(sorted(record.choices.items())))
    return _pairs(rows)


def measured(one: Measurement) -> Text:
    """A trial that is no experiment's, in a line."""
    result = f"{bpb(one.trial.val_bpb)} bpb" if one.trial.verdict == "scored" else one.trial.verdict
    line = Text(f"held against it: the {one.role}, experiment {one.experiment}, seed {one.trial.seed}: {result}")
    if one.trial.disturbed:
        line.append(f"; disturbed: {one_line(one.trial.disturbed)}", style="yellow")
    return line


def audit(found: Audit) -> str:
    """How many positions of a score were checked, and how closely they matched."""
    text = f"{found.positions} positions, largest difference {found.largest:.1g} of {found.tolerance:g} nats"
    if found.kind == "deep":
        text += f"; a gain of {found.hidden_bpb:.4f} bpb could be hidden"
    if found.permuted_bpb is not None:
        text += f"; {found.permuted_bpb:.2f} bpb with the weights in another order"
    return text


def status(one: Status, champion: Experiment | None, title: str) -> Group:
    """A campaign's state."""
    rows: dict[str, RenderableType] = {}
    if one.baseline_bpb is not None and one.champion_bpb is not None:
        total = one.baseline_bpb - one.champion_bpb
        spread = None if champion is None or one.champion_deviation is not None else champion.spread
        noise = "" if spread is None else f"; its seeds differ by {bpb(spread)}"
        if champion is not None and champion.number > 0 and spread is not None and total <= spread:
            noise += f": {MAY_BE_LUCK}"
        rows["champion"] = Text.assemble(
            (bpb(one.champion_bpb, one.champion_deviation), "bold green"),
            f" bpb, {gain(total)} from the baseline's {bpb(one.baseline_bpb, one.baseline_deviation)}{noise}",
        )
        if one.champion_deviation is not None:
            rows["+-"] = "the true score lies within it with a probability of 95 %"
    else:
        rows["champion"] = "none yet: the baseline has no score"
    if champion is not None:
        rows["commit"] = f"{champion.commit[:9]}, experiment {champion.number}: {one_line(champion.hypothesis, 90)}"
    within = f" ({one.kept_within_spread} {WITHIN})" if one.kept_within_spread else ""
    early = f"{one.stopped} stopped early, " if one.stopped else ""
    others = f"{one.discarded} discarded, {early}{one.crashed} crashed, {one.invalid} invalid"
    rows["experiments"] = f"{one.experiments}: {one.kept} kept{within}, {others}"
    if one.stops is not None:
        rows["stops"] = stops(one.stops)
    if one.disturbed:
        rows["disturbed"] = Text(disturbed(one.disturbed_trials), style="yellow")
    if champion is not None and champion.number > 0:
        rows["retest"] = _retest(one.confirmation, champion)
    if one.experiments_per_hour is not None and one.overhead_fraction is not None:
        rows["pace"] = (
            f"{one.experiments_per_hour:.1f} experiments an hour; "
            f"{one.overhead_fraction:.0%} of the wall time is not training"
        )
    if one.model is not None:
        rows["model"] = costs(one.model)
    rows["yardstick"] = (one.yardstick or "-")[:12]
    if one.activity is not None:
        rows.update(_activity(one.activity))
    return Group(Text(title, style="bold"), _pairs(rows))


def _activity(one: Activity) -> dict[str, RenderableType]:
    """What writes to a campaign now, or how the last one ended, and the agent that can't propose."""
    rows: dict[str, RenderableType] = {}
    if one.running:
        rows["now"] = f"autoresearch {one.command}, process {one.pid}, since {one.began}: {one_line(one.line)}"
    elif one.reason:
        how = "was" if one.reason == INTERRUPTED else "failed:" if one.failed else "ended:"
        rows["last"] = f"{one.ended or one.began}, autoresearch {one.command} {how} {one_line(one.reason)}"
    if one.away:
        rows["away"] = Text(f"since {one.away_since}: {one_line(one.away)}; the search stands in", style="yellow")
    return rows


def disturbed(trials: Sequence[DisturbedTrial]) -> str:
    """Which trials were slowed, and by what: `3 trials: experiments 0 (seeds 1, 2), 4; other processes took ...`."""
    seeds: dict[int, list[int]] = {}
    for one in trials:
        seeds.setdefault(one.experiment, []).append(one.seed)
    named = [f"{number} (seed {', '.join(map(str, those))})" for number, those in sorted(seeds.items())]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    several = f"{len(trials)} trials" if len(trials) > 1 else "1 trial"
    of = f"experiment{'s' * (len(named) > 1)} {', '.join(named[-MOST_NAMED:])}{more}"
    return f"{several} of {of}; the last: {trials[-1].reason}"


def stops(totals: StopTotals) -> str:
    """What stopping early has saved, and how often it would have been wrong."""
    text = f"{seconds(totals.saved_seconds)} of training saved by stopping early"
    if not totals.audited:
        return f"{text}; one in twenty runs on in secret as a check: none so far"
    return f"{text}; of {totals.audited} that ran on in secret to check that, {totals.wrong} won"


def costs(model: Costs) -> str:
    """What agents spent on a model."""
    text = f"${model.usd:.2f}"
    if model.usd_per_experiment is not None:
        text += f", ${model.usd_per_experiment:.4f} an experiment"
    if model.usd_per_keep is not None:
        text += f", ${model.usd_per_keep:.2f} a kept gain"
    text += f"; {count(model.tokens)} tokens in {model.requests} requests"
    if model.tokens:
        text += f", {model.cache_read_tokens / model.tokens:.0%} of them from the cache"
    if model.failed:
        text += f", {model.failed} failed"
    if model.unpriced:
        text += f"; {model.unpriced} requests have no known price"
    return text


def _retest(confirmation: Confirmation | None, champion: Experiment) -> str:
    """The last result of `confirm`."""
    if confirmation is None:
        return "not yet: autoresearch confirm measures the champion again with fresh seeds"
    if confirmation.champion != champion.number:
        return f"of experiment {confirmation.champion}, which is no longer the champion: {confirmation.line}"
    return confirmation.line


def _style(experiment: Experiment) -> str:
    return "yellow" if experiment.kept_within_spread else STYLES[experiment.verdict]


def _description(experiment: Experiment) -> str:
    """The hypothesis, and the reason if the experiment has no score."""
    if experiment.verdict in ("stopped", "crash", "invalid"):
        return f"{one_line(experiment.hypothesis)} [{one_line(experiment.reason)}]"
    return one_line(experiment.hypothesis)


def _pairs(rows: Mapping[str, RenderableType]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        # As Text, so that brackets in a trainer's words are not read as markup.
        table.add_row(Text(clean(name)), Text(clean(value)) if isinstance(value, str) else value)
    return table
