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
