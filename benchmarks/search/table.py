"""Writes the table of recorded trials, which core.agents.search.recorded reads: rows are appended and never changed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from core.agents.search.recorded import PLAIN, Row
from core.trainer.constants import read_tunables
from core.trainer.literals import literal

# The ranges that the points of the recorded table were drawn from, around the cpu preset's values.
RANGES = """
DEPTH = 4  # tune: int 2 .. 16
ASPECT_RATIO = 32  # tune: one of 32, 48, 64, 96
HEAD_DIM = 128  # tune: one of 32, 64, 128
WINDOW_PATTERN = "L"  # tune: one of "L", "SL", "SSL", "SSSL"
SEQUENCE_LENGTH = 256  # tune: one of 128, 256, 512, 1024, 2048
TOTAL_BATCH_SIZE = 8192  # tune: log int 4096 .. 1048576
EMBEDDING_LR = 0.6  # tune: log 0.05 .. 2
UNEMBEDDING_LR = 0.004  # tune: log 0.0005 .. 0.03
MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2
SCALAR_LR = 0.5  # tune: log 0.05 .. 2
WEIGHT_DECAY = 0.2  # tune: linear 0 .. 0.6
ADAM_BETAS = (0.8, 0.95)  # tune: one of (0.8, 0.95), (0.9, 0.95), (0.8, 0.99), (0.9, 0.99)
WARMUP_RATIO = 0.0  # tune: linear 0 .. 0.2
WARMDOWN_RATIO = 0.5  # tune: linear 0.1 .. 1
FINAL_LR_FRAC = 0.0  # tune: linear 0 .. 0.2
"""
SPACES = read_tunables(RANGES)


def start(path: Path, facts: Iterable[str], names: Iterable[str]) -> None:
    """A new table with these lines of facts, for constants of these names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"# {fact}\n" for fact in facts)
    path.write_text(head + _line([*PLAIN, *names]), encoding="utf-8", newline="\n")


def append(path: Path, row: Row) -> None:
    """One more row, on the disk when this returns."""
    cells = ["" if getattr(row, name) is None else str(getattr(row, name)) for name in PLAIN]
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(_line([*cells, *map(literal, row.constants.values())]))


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
