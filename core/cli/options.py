"""What several commands share: options with their help, exit statuses, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from core.cli.render import terminal
from core.system.signals import Signalled, graceful_shutdown

USER_ERROR, CRASHED, INTERRUPTED = 2, 1, 130
SIGNALLED = 128  # above it: this and the signal's number

PresetName = Annotated[
    str | None,
    typer.Option("--preset", "-p", metavar="NAME", help="a name that `autoresearch presets` lists, or a .toml file"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="where to train, by the backend's name: cpu, cuda, cuda:1, mps")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="another value for a number of the preset; may be repeated"),
]
Corpus = Annotated[str | None, typer.Option(metavar="NAME", help="apidocs, climbmix, tinystories or folder:PATH")]
BudgetSeconds = Annotated[float | None, typer.Option("--budget", metavar="SECONDS", help="training time of a trial")]
AsJson = Annotated[bool, typer.Option("--json", help="for programs: JSON on standard output")]
Folder = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="the campaign's folder; without it, this one or the nearest above"),
]
Number = Annotated[int | None, typer.Option("--experiment", "-e", metavar="N", help="without it, the champion")]


def _sandbox(off: bool) -> None:
    """Turns the sandbox off where that is asked for, and tells once a command that there is none."""
    from core.sandbox import tier

    tier.turn_off("--no-sandbox" if off else "")
    if not (here := tier.here()).enforced:
        lacks = ", ".join(here.unenforced)
        terminal.notice(f"WARNING: no sandbox ({here.why}): trainers run with your rights; not kept from: {lacks}")


NoSandbox = Annotated[
    bool,
    typer.Option("--no-sandbox", callback=_sandbox, help="run trainers with your rights; stands in every record"),
]


def all_of(settings: list[str] | None) -> tuple[str, ...]:
    """Every `--set` that was given."""
    return tuple(settings or ())


def same_command() -> str:
    """The command as it was typed, quoted for a shell to take it again."""
    words = ["autoresearch", *sys.argv[1:]]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


@contextlib.contextmanager
def interruptible(what_next: str) -> Iterator[None]:
    """Ctrl-C within it ends the command with one line that says what comes next; so do SIGTERM and a closed terminal.

    The status is 128 and the signal's number, as a shell has it.
    """
    try:
        with graceful_shutdown(lambda: _told("ending what runs; once more to leave it as it is")):
            yield
    except KeyboardInterrupt as interrupt:
        _told(f"interrupted; {what_next}")
        raise typer.Exit(SIGNALLED + interrupt.signum if isinstance(interrupt, Signalled) else INTERRUPTED) from None


def _told(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what was closed
        terminal.notice(line)
