"""The table of recorded trials that comes with the package: real trials of the `cpu` preset, 20 s each on one core.

A CSV that begins with lines of `# ` that say where its rows come from; benchmarks/record_trials.py makes it.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from core.records import Constant, UserError

RECORDED = Path(__file__).resolve().parent / "cpu_trials.csv"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial. `kind` says how its point was chosen: uniform, feasible, near, search or repeat."""

    number: int
    kind: str
    seed: int
    verdict: str  # scored, crash or invalid
    val_bpb: float | None
    steps: int
    train_seconds: float
    wall_seconds: float
    parameters: int | None
    other_load: float | None  # of the machine, beside the trial, in cores
    constants: Mapping[str, Constant]
    reason: str = ""


PLAIN = tuple(field.name for field in fields(Row) if field.name != "constants")


def read(path: Path = RECORDED) -> list[Row]:
    """All rows, in the order they were recorded. UserError if there is no table."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"no recorded trials: {error}; python benchmarks/record_trials.py records them") from None
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    return [_row(line) for line in csv.DictReader(lines)]


def _row(cells: Mapping[str, str]) -> Row:
    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    parameters = number("parameters")
    return Row(
        number=int(cells["number"]),
        kind=cells["kind"],
        seed=int(cells["seed"]),
        verdict=cells["verdict"],
        val_bpb=number("val_bpb"),
        steps=int(cells["steps"]),
        train_seconds=float(cells["train_seconds"]),
        wall_seconds=float(cells["wall_seconds"]),
        parameters=None if parameters is None else int(parameters),
        other_load=number("other_load"),
        constants={name: ast.literal_eval(cells[name]) for name in cells if name not in PLAIN},
        reason=cells["reason"],
    )
