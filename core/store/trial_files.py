"""What trials left in an experiment's folder: which there are, the curve of each, what it printed. Only reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from core.records import CURVE, FIRST_OUTPUT, OUTPUT
from core.system.text import clean

Point = dict[str, float]


def trials(folder: Path) -> list[Path]:
    """The folders of an experiment's trials, in their order."""
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def points(trial: Path, most: int = -1) -> list[Point]:
    """A trial's curve: step, seconds, progress and loss (nats a token) of every report; empty if it has none.

    A power cut may have left half of a line: the curve ends before it. `most`: characters that are read, -1 for all.
    """
    try:
        with open(trial / CURVE, encoding="utf-8") as file:
            lines = file.read(most).splitlines()
    except FileNotFoundError:
        return []
    curve: list[Point] = []
    with contextlib.suppress(ValueError):
        curve.extend(json.loads(line) for line in lines)
    return curve


def thinned(curve: Sequence[Point], count: int) -> list[Point]:
    """At most `count` points in even distance, the first and the last among them."""
    if len(curve) <= count:
        return list(curve)
    return [curve[round(place * (len(curve) - 1) / (count - 1))] for place in range(count)]


def printed(trial: Path) -> str:
    """What the trial printed while it trained, cleaned. If memory ran out and it was tried once more, both outputs."""
    paths = [trial / name for name in (FIRST_OUTPUT, OUTPUT)]
    return clean("".join(path.read_text(encoding="utf-8", errors="replace") for path in paths if path.exists()))
