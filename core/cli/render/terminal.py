"""The two streams of a terminal: results go to standard output, all else to standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from rich.console import Console

from core.records import SCHEMA_KEY, Experiment, Verdict, to_json
from core.system.text import clean

# A pipe has no width of its own but COLUMNS, if that is set. No row of a table is wider than this.
PIPE_WIDTH = 160

# Of what --json prints: raised when a key disappears or changes its meaning or type; new keys leave it as it is.
SCHEMA_VERSION = 1

STYLES: dict[Verdict, str] = {
    "keep": "bold green", "discard": "bright_black", "stopped": "bright_black", "crash": "red", "invalid": "magenta",
}  # fmt: skip


def out() -> Console:
    """Standard output, for results."""
    return Console(highlight=False, width=_width(sys.stdout))


def err() -> Console:
    """Standard error, for progress, notices and errors."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(stream: TextIO) -> int | None:
    """None for rich to find it out: from COLUMNS, or from the terminal."""
    return None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else PIPE_WIDTH


def say(text: str) -> None:
    """Prints a line to standard output, without markup."""
    _line(sys.stdout, text)


def notice(text: str) -> None:
    """Prints a line to standard error, cleaned: it may name files and what others wrote."""
    _line(sys.stderr, clean(text))


def write(text: str) -> None:
    """Writes a text of others to standard output: as it is to a file or a pipe, cleaned to a terminal."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)


def with_gain(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON for `--json`: its record and its gain."""
    return {**to_json(experiment), "gain": experiment.gain}


def json_text(value: object, *, plain: bool = False) -> None:
    """Prints indented JSON. Unless `plain`, an object, or each one of an array, begins with the schema's version."""
    say(_escaped(json.dumps(value if plain else _versioned(value), indent=2, ensure_ascii=False)))


def json_line(value: object) -> None:
    """Prints JSON on one line, with the version of the schema."""
    say(_escaped(json.dumps(_versioned(value), ensure_ascii=False)))


def _versioned(value: object) -> object:
    if isinstance(value, list):
        return [_versioned(one) for one in value]
    return {SCHEMA_KEY: SCHEMA_VERSION, **value} if isinstance(value, dict) else value


def _escaped(text: str) -> str:
    """JSON that says the same without a character that could drive a terminal or hide there."""
    if text.isprintable():
        return text
    return "".join(one if one == "\n" or one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _line(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
