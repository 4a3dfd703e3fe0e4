"""Records as tables and lines. Each function returns something that rich can print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.cli.render.terminal import STYLES
from core.records import Audit, Experiment, Trial
from core.system.conditions import remarks
from core.system.text import bpb, count, gain, one_line, seconds

if TYPE_CHECKING:
    from core.agents.llm.archive import Costs
    from core.campaign.confirm import Confirmation
    from core.campaign.status import Status
    from core.store.activity import Activity

# The columns of a list of experiments: name, width, alignment. The hypothesis takes the rest of the line.
COLUMNS = (
    ("#", 5, ">"),
    ("verdict", 7, "<"),
    ("val_bpb", 7, ">"),
    ("gain", 7, ">"),
    ("spread", 6, ">"),
    ("steps", 6, ">"),
    ("seconds", 7, ">"),
)


def headed(left: Sequence[str], right: Sequence[str], wrapped: str = "") -> Table:
    """An empty table: columns that are aligned `left`, columns aligned `right`, and one whose cells may wrap."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    if wrapped:
        table.add_column(wrapped)
    return table


def header() -> Text:
    """The line above `row`s."""
    names = "  ".join(f"{name:{align}{width}}" for name, width, align in COLUMNS)
    return Text(f"{names}  hypothesis", style="bold")


def emit(console: Console, line: Text) -> None:
    """Prints a line, cut at the edge of a terminal; whole if there is no terminal."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def row(experiment: Experiment) -> Text:
    """One experiment as a line under `header`."""
    cells = [f"{cell:{align}{width}}" for cell, (_, width, align) in zip(_cells(experiment), COLUMNS, strict=True)]
    line = Text()
    for index, cell in enumerate(cells):
        line.append(cell + "  ", style=STYLES[experiment.verdict] if index in (1, 3) else "")
    line.append(_description(experiment), style="" if experiment.verdict == "keep" else "bright_black")
    return line


def verdict(experiment: Experiment) -> Group:
    """An experiment's result in a few lines."""
    first = Text()
    first.append(experiment.verdict, style=STYLES[experiment.verdict])
    first.append(f"  experiment {experiment.number}: {one_line(experiment.hypothesis)}")
    measured = f"val_bpb {bpb(experiment.val_bpb)}, champion {bpb(experiment.champion_bpb)}"
    if experiment.gain is not None:
        measured += f", gain {gain(experiment.gain)} (spread of the baseline's seeds {bpb(experiment.spread)})"
    lines = [first, Text(measured), Text(f"reason: {one_line(experiment.reason)}")]
    if experiment.audit is not None:
        lines.append(Text(f"audit: {audit(experiment.audit)}"))
    return Group(*lines)


def trial(record: Trial) -> Table:
    """One trial's results, in two columns."""
    failed = record.verdict != "scored"
    outcome = Text(record.verdict, style="red" if failed else "green")
    if record.reason:
        outcome.append(f": {record.reason}", style="")
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
    if disturbances := remarks(record.conditions):
        text = f"{'; '.join(disturbances)}: this changed the trial's speed"
        rows["warning"] = Text(text, style="yellow")
    rows["where"] = f"{record.backend} on {record.device}, seed {record.seed}, sandbox {record.sandbox}"
    rows.update(dict(sorted(record.choices.items())))
    return _pairs(rows)


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
        rows["champion"] = Text.assemble(
            (bpb(one.champion_bpb), "bold green"),
            f" bpb, {gain(one.baseline_bpb - one.champion_bpb)} from the baseline's {bpb(one.baseline_bpb)}",
            "" if champion is None or champion.spread is None else f"; its seeds differ by {bpb(champion.spread)}",
        )
    else:
        rows["champion"] = "none yet: the baseline has no score"
    if champion is not None:
        rows["commit"] = f"{champion.commit[:9]}, experiment {champion.number}: {one_line(champion.hypothesis, 90)}"
    rows["experiments"] = (
        f"{one.experiments}: {one.kept} kept, {one.discarded} discarded, {one.crashed} crashed, {one.invalid} invalid"
    )
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
        ended = f"autoresearch {one.command} {'failed' if one.failed else 'ended'}"
        rows["last"] = f"{ended}{f' at {one.ended}' if one.ended else ''}: {one_line(one.reason)}"
    if one.away:
        rows["away"] = Text(f"since {one.away_since}: {one_line(one.away)}; the search stands in", style="yellow")
    return rows


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


def _cells(experiment: Experiment) -> tuple[str, ...]:
    spread = bpb(experiment.spread)
    steps = experiment.trials[-1].steps if experiment.trials else 0
    return (
        str(experiment.number),
        experiment.verdict,
        bpb(experiment.val_bpb),
        gain(experiment.gain),
        spread,
        str(steps),
        f"{experiment.wall_seconds:.1f}",
    )


def _description(experiment: Experiment) -> str:
    """The hypothesis, and the reason if the experiment failed."""
    if experiment.verdict in ("crash", "invalid"):
        return f"{one_line(experiment.hypothesis)} [{one_line(experiment.reason)}]"
    return one_line(experiment.hypothesis)


def _pairs(rows: Mapping[str, RenderableType]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        # As Text, so that brackets in a trainer's words are not read as markup.
        table.add_row(Text(name), Text(value) if isinstance(value, str) else value)
    return table
