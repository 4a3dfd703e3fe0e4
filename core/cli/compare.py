"""`autoresearch compare`: runs the same trial on several backends or presets, or compares finished records."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from core.cli import completion, resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    BudgetSeconds,
    CorpusName,
    NoSandbox,
    PresetName,
    PresetSettings,
    TrainingDevice,
    comma_separated,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.records import CURVE, RECORD, Budget, Preset, Trial, UserError, to_json
from core.system import scratch, text
from core.system.files import refuse_occupied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType

    from core.measure.compare import Curve, Entry

PLOT = "compare.png"
COLOURS = ("#1a7f37", "#0969da", "#bc4c00", "#8250df", "#cf222e", "#6e7781", "#9a6700", "#1b7c83")
SMOOTHED = 30  # windows that a curve is averaged in


def compare(
    records: Annotated[
        list[Path] | None,
        Argument(metavar="RECORDS", help="campaigns, kept trials, files of --json output; runs nothing"),
    ] = None,
    preset: PresetName = None,
    presets: Annotated[
        str | None,
        Option(
            metavar="A,B", help="compare these presets, each on its own backend", autocompletion=completion.preset_lists
        ),
    ] = None,
    backends: Annotated[
        str | None,
        Option(
            metavar="A,B",
            help="the backends to compare; default: all that are installed",
            autocompletion=completion.backends,
        ),
    ] = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    budget: BudgetSeconds = None,
    wall: Annotated[
        float | None, Option(metavar="SECONDS", help="seconds of start-up and training together, instead of --budget")
    ] = None,
    seeds: Annotated[str | None, Option(metavar="1,2", help="the seeds; default: the preset's")] = None,
    output: Annotated[
        Path | None,
        Option("--out", metavar="FOLDER", help="keep every trial, rows.json and compare.png in this folder"),
    ] = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Compare backends, presets or finished records.

    A seed gives the same batches on every backend. Scores with different yardsticks are not ranked. A campaign's is its
    belief with the 95 % interval. The exit status is 1 if a trial failed. Rows of --json have the keys of train --json.

    \b
      autoresearch compare --preset smoke --backends torch,jax
      autoresearch compare --preset cpu --wall 60 --out speed     which is best a minute after its start?
      autoresearch compare night other-night                      two campaigns' champions
    """
    from core.measure import saved
    from core.measure.compare import check_yardsticks, conclusion, ranked

    if records:
        values = {
            "preset": preset, "presets": presets, "backends": backends, "device": device, "set": settings,
            "corpus": corpus, "budget": budget, "wall": wall, "seeds": seeds,
        }  # fmt: skip
        if given := [f"--{name}" for name, value in values.items() if value not in (None, [])]:
            raise UserError(f"records are compared as they are: leave out {', '.join(given)}, or the records")
    if output is not None:
        refuse_occupied(output, "a comparison that is kept")
    if records:
        entries = saved.compare(*records)
    else:
        options = PresetOptions(preset=preset, device=device, settings=settings, corpus=corpus, budget=budget)
        ran = _run(options, comma_separated(presets), comma_separated(backends), wall, _seeds(seeds), output)
        check_yardsticks([one.scored for one in ran])
        entries = ranked(ran)
    if records and output is not None:
        _keep(entries, output)
    rows = [entry.row() for entry in entries]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / saved.ROWS).write_text(json.dumps(rows, indent=1), encoding="utf-8")
        plot(entries, output / PLOT)
        terminal.notice(f"rows and plot: {output / saved.ROWS}, {output / PLOT}")
    if as_json:
        terminal.json_text(rows)
    else:
        console = terminal.out()
        console.print(table(entries, console.width))
        terminal.say(conclusion(entries))
    if any(entry.failure is not None for entry in entries):
        raise typer.Exit(CRASHED)


def _run(
    options: PresetOptions,
    presets: list[str],
    backends: list[str],
    wall: float | None,
    seeds: list[int],
    output: Path | None,
) -> list[Entry]:
    """Runs every side's trials. After Ctrl-C or an error, prints a table of the trials that ended before."""
    from core.measure.compare import (
        Entry,
        Scored,
        check_yardsticks,
        interleaved,
        named_presets,
        of_backends,
        within_wall,
    )
    from core.store import trial_files
    from core.trainer.reference import reference_trainer

    if presets and (backends or options.preset):
        raise UserError("--presets runs each preset on its own backend: leave out --backends and --preset")
    if wall is not None and options.budget is not None:
        raise UserError("a trial has one budget: give --budget SECONDS of training or --wall SECONDS from the start")
    if presets:
        sides = named_presets(presets, options.changes())
    else:
        sides = of_backends(resolve.preset_for(options), backends, options.device, terminal.notice)
    yardsticks = {n: resolve.dataset_of(side).scored("val", side.score_bytes).yardstick for n, side in sides.items()}
    check_yardsticks(
        [
            Scored(name=name, corpus=side.corpus, bytes=side.score_bytes, yardstick=yardsticks[name])
            for name, side in sides.items()
        ]
    )
    ended: dict[str, Entry] = {}
    numbers = itertools.count(1)
    with scratch.folder() as temporary:

        def run_one(side: Preset, budget: Budget, seed: int, title: str) -> tuple[Trial, Curve]:
            into = _trial_folder(output or temporary, next(numbers), side.name, side.backend, seed)
            trainer = reference_trainer(side)
            trial = resolve.run_with_bar(trainer, side, budget=budget, seed=seed, into=into, title=title)
            return trial, trial_files.points(into)

        with interruptible("the rows above are the trials that ended; the same command starts again"):
            try:
                budgets = {
                    name: within_wall(side, wall, run_one) if wall else Budget(seconds=side.budget_seconds)
                    for name, side in sides.items()
                }
                for name, seed in interleaved({name: seeds or side.seeds for name, side in sides.items()}):
                    trial, curve = run_one(sides[name], budgets[name], seed, f"{name}, seed {seed}: ")
                    entry = ended.get(name, Entry(name=name, trials=()))
                    ended[name] = Entry(name=name, trials=(*entry.trials, trial), curves=(*entry.curves, curve))
                    result = trial.reason or f"{text.bpb(trial.val_bpb)} bpb in {text.seconds(trial.wall_seconds)}"
                    terminal.notice(f"{name}, seed {seed}: {trial.verdict}: {result}")
            except (KeyboardInterrupt, UserError):
                if ended:
                    console = terminal.err()
                    console.print(table(list(ended.values()), console.width))
                raise
    return list(ended.values())


def _trial_folder(root: Path, number: int, preset: str, backend: str, seed: int) -> Path:
    name = re.sub(r"[^\w.-]", "-", f"{preset}-{backend}-{seed}")  # a record may come from elsewhere
    return root / "trials" / f"{number:02d}-{name}"


def _keep(entries: Sequence[Entry], output: Path) -> None:
    """Writes the records and curves of trials that ran before, not their weights."""
    ran = (both for entry in entries for both in zip(entry.trials, entry.curves, strict=False))
    for number, (trial, curve) in enumerate(ran, 1):
        into = _trial_folder(output, number, trial.preset, trial.backend, trial.seed)
        into.mkdir(parents=True)
        (into / RECORD).write_text(json.dumps(to_json(trial), indent=1), encoding="utf-8")
        (into / CURVE).write_text("".join(json.dumps(point) + "\n" for point in curve), encoding="utf-8")


def _seeds(text: str | None) -> list[int]:
    try:
        seeds = [int(part) for part in comma_separated(text)]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers, as in --seeds 1,2, not {text!r}") from None
    if len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise UserError(f"--seeds takes different whole numbers, none below 0, not {text!r}")
    return seeds


def table(entries: Sequence[Entry], width: int = terminal.PIPE_WIDTH) -> RenderableType:
    """A row an entry, best first."""
    from rich.text import Text

    from core.cli.render.tables import Column, fitted
    from core.measure.compare import ranked

    spare = {"seeds": 5, "memory": 4, "start-up": 6, "overhead": 3, "wall": 2, "MFU": 1}
    names = ("val_bpb", "spread", "seeds", "steps", "tokens/s", "MFU", "memory", "start-up", "overhead", "wall")
    columns = [Column("name"), *(Column(name, right=True, spare=spare.get(name, 0)) for name in names)]
    rows = []
    for place, entry in enumerate(ranked(entries)):
        row = entry.row()
        where = Text(f"{row['backend']} on {row['device']}")
        if row["verdict"] != "scored":
            where = Text(f"{row['verdict']}: {row['reason']}", style="red")
        cells = (
            Text(entry.name, style="bold green" if place == 0 and entry.val_bpb is not None else "bold"),
            text.bpb(row["val_bpb"], row["deviation"]),
            text.bpb(row["val_bpb_spread"]),
            ",".join(map(str, row["seeds"])),
            str(row["steps"]),
            text.count(row["tokens_per_second"]),
            "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
            "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f} MB",
            text.seconds(row["startup_seconds"]),
            text.seconds(row["overhead_seconds"]),
            text.seconds(row["wall_seconds"]),
            where,
        )
        rows.append(cells)
    return fitted([*columns, Column("where", words=True)], rows, width)


def plot(entries: Sequence[Entry], path: Path) -> None:
    """Draws bits per byte over the seconds since each process started: training as lines, scores as dots."""
    from core.cli.render import plots
    from core.measure.compare import ranked

    figure = plots.new_figure((9.5, 5.4))
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
            reach = text.half_width(entry.deviation) or (entry.spread or 0.0) / 2
            axes.errorbar(
                sum(ends) / len(ends),
                entry.val_bpb,
                reach or None,
                fmt="o",
                color=colour,
                capsize=4,
                label=f"{entry.name}: {text.bpb(entry.val_bpb, entry.deviation)}",
            )
            lows.append(entry.val_bpb - reach)
            highs.append(entry.val_bpb + reach)
    _finish(axes, lows, highs)
    plots.save(figure, path)


def bits(trial: Trial, curve: Curve) -> list[tuple[float, float]]:
    """A trial's training loss as (seconds since its process started, bits per byte), averaged in windows.

    Converts nats a token with the scored text's tokens per byte; empty if those are unknown.
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
    from core.cli.render.plots import FAINT, INK, RULE

    axes.set_xlabel("seconds since the process started, start-up included", color=INK)
    axes.set_ylabel("bits per byte: training as a line, validation as a dot", color=INK)
    if lows and highs:
        margin = 0.06 * (max(highs) - min(lows)) + 1e-3
        axes.set_ylim(min(lows) - margin, max(highs) + margin)
        # Above the axes, where it covers no point and no curve.
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, fontsize=9)
    axes.set_xlim(left=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
