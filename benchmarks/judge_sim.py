"""Campaigns with known truth: how much true improvement each policy finds in equal time, and what it believes of it.

python -m benchmarks.judge_sim
python -m benchmarks.judge_sim --cells cells.json --json
python -m benchmarks.judge_sim --campaigns 30 --policies greedy belief
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.judge.policies import POLICIES
from benchmarks.judge.world import Cell, Outcome, SimulatedCampaign, World, cell_of
from core.records import Experiment, Trial, UserError

FIGURES = tuple(field.name for field in dataclasses.fields(Outcome))
# Typical gains below, at and above the noise, and far above it and below; with and without pairing; frequent good ones;
# and changes that do nothing at all.
GRID = (
    *(
        Cell(gain_scale=gain, noise=noise, pairing=pairing)
        for gain, noise in ((0.001, 0.003), (0.002, 0.002), (0.005, 0.002), (0.003, 0.0003), (0.003, 0.02))
        for pairing in (0.0, 0.6)
    ),
    Cell(gain_scale=0.003, noise=0.003, pairing=0.4, p_good=0.2),
    Cell(gain_scale=0.002, harm_scale=0.002, noise=0.002, pairing=0.3),
    Cell(p_good=0.0, p_nothing=1.0, noise=0.002, pairing=0.3),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        cells = _cells(options.cells) if options.cells else list(GRID)
    except UserError as error:
        print(f"judge_sim: {error}", file=sys.stderr)
        return 2
    if options.campaigns:
        cells = [dataclasses.replace(cell, campaigns=options.campaigns) for cell in cells]
    with contextlib.ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(options.jobs, context)) if options.jobs > 1 else None
        for cell in cells:
            for name in options.policies:
                row = dataclasses.asdict(cell) | {"policy": name} | figures(cell, name, pool)
                print(json.dumps(row) if options.json else line(row), flush=True)
            if not options.json:
                print()
    return 0


def figures(cell: Cell, policy: str, pool: ProcessPoolExecutor | None = None) -> dict[str, float]:
    """Means over the cell's campaigns."""
    numbers = range(cell.campaigns)
    if pool is None:
        played = [play(cell, policy, number) for number in numbers]
    else:
        played = list(pool.map(play, *zip(*[(cell, policy, number) for number in numbers], strict=True), chunksize=5))
    return {name: statistics.fmean(getattr(one, name) for one in played) for name in FIGURES}


def play(cell: Cell, policy: str, number: int) -> Outcome:
    """One campaign of a cell."""
    trial, experiment = _templates()
    return SimulatedCampaign(World(cell, number), POLICIES[policy], trial, experiment).play()


def line(row: dict[str, Any]) -> str:
    cell = f"good {row['p_good']:.2f} x {row['gain_scale']:.4f}  noise {row['noise']:.4f}  pairing {row['pairing']:.1f}"
    bpb = "  ".join(f"{name} {row[name]:8.5f}" for name in ("true_gain", "undone", "missed", "optimism"))
    return f"{cell}  {row['policy']:7} {bpb}  keeps {row['keeps']:5.2f}, wrong {row['wrong_keeps']:5.2f}"


def _cells(path: Path) -> list[Cell]:
    """Those of a JSON file: an object, a list of objects, or an object a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    try:
        data = json.loads(text)
    except ValueError:
        try:
            data = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UserError(f"{path} is no JSON: {error}") from None
    return [cell_of(one) for one in (data if isinstance(data, list) else [data])]


@functools.cache
def _templates() -> tuple[Trial, Experiment]:
    """A trial and an experiment whose scores a campaign fills in."""
    tests = str(Path(__file__).resolve().parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from campaigns import a_trial

    experiment = Experiment(
        number=0, commit="", parent="", hypothesis="", agent="", verdict="keep", reason="", val_bpb=None,
        champion_bpb=None, spread=None, fingerprint="", wall_seconds=0, train_seconds=0, ended="", trials=(),
    )  # fmt: skip
    return a_trial(), experiment


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="judge_sim", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cells", type=Path, metavar="FILE", help="JSON: a list of objects with a cell's keys")
    parser.add_argument("--campaigns", type=int, help="of each cell (300, or the cell's own)")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="one object a cell and policy")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
