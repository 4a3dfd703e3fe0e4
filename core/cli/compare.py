"""`autoresearch compare`: the same trial on several backends or presets, or finished records side by side."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    BudgetSeconds,
    Corpus,
    Device,
    NoSandbox,
    PresetName,
    Settings,
    all_of,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import Asked
from core.measure.compare import Curve, Entry
from core.records import RECORD, Budget, Preset, Trial, UserError, to_json
from core.store import trial_files
from core.system import text
from core.system.files import refuse_occupied

PLOT = "compare.png"


def compare(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORDS]", help="campaigns, kept trials, files of --json: nothing is run"),
    ] = None,
    preset: PresetName = None,
    presets: Annotated[str | None, typer.Option(metavar="A,B", help="these presets, each on its own backend")] = None,
    backends: Annotated[
        str | None, typer.Option(metavar="A,B", help="of one preset; without it, every one that is installed")
    ] = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    wall: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="start-up and training together, instead of a budget")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2", help="without it, the preset's own")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="keep every trial, rows.json and compare.png here")
    ] = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Compare backends, presets or finished records.

    The same seeds see the same batches on every backend. Scores of unequal yardsticks are not ranked. Ends with
    status 1 if a trial failed. With --json, rows with the keys of train --json.

    \b
      autoresearch compare --preset smoke --backends torch,jax
      autoresearch compare --preset cpu --wall 60 --out speed     who is best a minute after the start?
      autoresearch compare night other-night                      two campaigns' champions
    """
    from core.cli.render import compare as view
    from core.measure import compare as logic
    from core.measure import saved

    if records:
        options = {
            "preset": preset, "presets": presets, "backends": backends, "device": device, "set": settings,
            "corpus": corpus, "budget": budget, "wall": wall, "seeds": seeds,
        }  # fmt: skip
        if given := [f"--{name}" for name, value in options.items() if value not in (None, [])]:
            raise UserError(f"records are compared as they are: leave {', '.join(given)} out, or the records")
    if output is not None:
        refuse_occupied(output, "a comparison that is kept")
    if records:
        entries = saved.read(records)
    else:
        wanted = Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget)
        entries = _run(wanted, _split(presets), _split(backends), wall, _seeds(seeds), output)
    logic.check_yardsticks([logic.scored_by(entry) for entry in entries])
    entries = logic.ranked(entries)
    if records and output is not None:
        places = _Places(output)
        for entry in entries:
            _keep(entry, places)
    rows = [entry.row() for entry in entries]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / saved.ROWS).write_text(json.dumps(rows, indent=1), encoding="utf-8")
        view.plot(entries, output / PLOT)
        terminal.notice(f"rows and plot: {output / saved.ROWS}, {output / PLOT}")
    if as_json:
        terminal.json_text(rows)
    else:
        terminal.out().print(view.table(entries))
        terminal.say(logic.conclusion(entries))
    if any(entry.failure is not None for entry in entries):
        raise typer.Exit(CRASHED)


def _run(
    wanted: Asked, presets: list[str], backends: list[str], wall: float | None, seeds: list[int], output: Path | None
) -> list[Entry]:
    """Runs every side's trials. What ran before Ctrl-C, or before a side that can't, is told."""
    from core.cli.render import compare as view
    from core.measure import compare as logic

    if presets and (backends or wanted.preset):
        raise UserError("--presets takes each on its own backend: leave --backends and --preset out")
    if wall is not None and wanted.budget is not None:
        raise UserError("a trial has one budget: give --budget SECONDS of training or --wall SECONDS from the start")
    if presets:
        sides = logic.named_presets(presets, wanted.changes())
    else:
        sides = logic.of_backends(resolve.preset_for(wanted), backends, wanted.device, terminal.notice)
    texts = {name: resolve.dataset_of(side).scored("val", side.score_bytes) for name, side in sides.items()}
    logic.check_yardsticks(
        [
            logic.Scored(
                name=name, corpus=side.corpus, bytes=texts[name].bytes, yardstick=texts[name].yardstick,
                asked_bytes=side.score_bytes,
            )
            for name, side in sides.items()
        ]
    )  # fmt: skip
    done: dict[str, list[tuple[Trial, Curve]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as temporary:
        place = _Places(output or Path(temporary))

        def run_one(side: Preset, budget: Budget, seed: int, title: str) -> tuple[Trial, Curve]:
            into = place.next(side.name, side.backend, seed)
            trial = resolve.lone_trial(
                side, trainer=None, constants={}, budget=budget, seed=seed, into=into, title=title
            )
            return trial, trial_files.points(into)

        with interruptible("the rows above are what had ended; the same command starts again"):
            try:
                budgets = {
                    name: logic.within_wall(side, wall, run_one) if wall else Budget(seconds=side.budget_seconds)
                    for name, side in sides.items()
                }
                each = {name: seeds or list(side.seeds) for name, side in sides.items()}
                for name, trial, curve in logic.run(sides, each, budgets, run_one):
                    done[name].append((trial, curve))
                    told = trial.reason or f"{text.bpb(trial.val_bpb)} bpb in {text.seconds(trial.wall_seconds)}"
                    terminal.notice(f"{name}, seed {trial.seed}: {trial.verdict}: {told}")
            except (KeyboardInterrupt, UserError):
                if entries := _entries(done):
                    terminal.err().print(view.table(entries))
                raise
    return _entries(done)


class _Places:
    """Folders for trials below a root, numbered as they run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def next(self, preset: str, backend: str, seed: int) -> Path:
        self._count += 1
        name = re.sub(r"[^\w.-]", "-", f"{preset}-{backend}-{seed}")  # of a record somebody else wrote, perhaps
        return self._root / "trials" / f"{self._count:02d}-{name}"


def _keep(entry: Entry, places: _Places) -> None:
    """Writes what is compared again of trials that ran before: their records and curves, not their weights."""
    for trial, curve in zip(entry.trials, entry.curves, strict=False):
        into = places.next(trial.preset, trial.backend, trial.seed)
        into.mkdir(parents=True)
        (into / RECORD).write_text(json.dumps(to_json(trial), indent=1), encoding="utf-8")
        (into / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve), encoding="utf-8")


def _entries(done: dict[str, list[tuple[Trial, Curve]]]) -> list[Entry]:
    return [
        Entry(name=name, trials=tuple(trial for trial, _ in ran), curves=tuple(curve for _, curve in ran))
        for name, ran in done.items()
        if ran
    ]


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _seeds(text: str | None) -> list[int]:
    try:
        seeds = [int(part) for part in _split(text)]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers, as in --seeds 1,2, not {text!r}") from None
    if len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise UserError(f"--seeds takes different whole numbers, none below 0, not {text!r}")
    return seeds
