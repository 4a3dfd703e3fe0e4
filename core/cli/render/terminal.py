"""The two streams of a terminal, and how numbers and words look on them. Results go to out, all else to err."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from rich.console import Console

from core.records import Experiment, Verdict, to_json

# A pipe has no width; wide enough that no row of a table is cut there.
PIPE_WIDTH = 160

STYLES: dict[Verdict, str] = {"keep": "bold green", "discard": "bright_black", "crash": "red", "invalid": "magenta"}


def out() -> Console:
    """For results: standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """For progress, notices and errors: standard error."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def say(text: str) -> None:
    """A line of a result, as it is."""
    _line(sys.stdout, text)


def notice(text: str) -> None:
    """A line for a person beside the results."""
    _line(sys.stderr, text)


def with_gain(experiment: Experiment) -> dict[str, Any]:
    """An experiment for a program: its record and the gain that follows from it."""
    return {**to_json(experiment), "gain": experiment.gain}


def json_text(value: object) -> None:
    """A result for a program, indented."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def json_line(value: object) -> None:
    """A result for a program on one line."""
    say(json.dumps(value, ensure_ascii=False))


def _line(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def bpb(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def gain(value: float | None) -> str:
    """Bits per byte below the champion, with its sign: more is better."""
    return "-" if value is None else f"{value:+.4f}"


def seconds(value: float) -> str:
    """A duration in the largest unit that keeps it short: `0.3 s`, `42 s`, `7m 05s`, `3h 20m`."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def count(value: float | None) -> str:
    """A count with the letter of its thousands: `812`, `11.7K`, `50.3M`."""
    if value is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}" if abs(value) < 999.5 * size else f"{value / size:.0f}{letter}"
    return f"{value:.0f}"


def one_line(text: str, width: int = 0) -> str:
    """The text without line breaks, tabs and control characters, cut to `width` with an ellipsis if that is given."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if not width or len(flat) <= width else flat[: width - 1].rstrip() + "…"
