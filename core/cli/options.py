"""What several commands share: options with their help, exit statuses, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from core.cli import completion
from core.cli.render import terminal
from core.cli.render.streams import OutputError
from core.records import UserError
from core.system.signals import Signalled, graceful_shutdown

CRASHED, INTERRUPTED = 1, 130
SIGNALLED = 128  # above it: this and the signal's number

PresetName = Annotated[
    str | None,
    Option(
        "--preset",
        "-p",
        metavar="NAME",
        help="a name from `autoresearch presets`, or a .toml file",
        autocompletion=completion.presets,
    ),
]
TrainingDevice = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="the device to train on, as the backend names it: cpu, cuda, cuda:1, mps",
        autocompletion=completion.devices,
    ),
]
PresetSettings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="change one value of the preset; may be repeated",
        autocompletion=completion.settings,
    ),
]
CorpusName = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="the text: apidocs, climbmix, tinystories or folder:PATH",
        autocompletion=completion.corpora,
    ),
]
BudgetSeconds = Annotated[float | None, Option("--budget", metavar="SECONDS", help="seconds of training in each trial")]
AsJson = Annotated[bool, Option("--json", help="print JSON for programs")]
_CAMPAIGN = "the campaign's folder; default: this folder or the nearest one above"
CampaignArgument = Annotated[
    Path | None,
    Argument(
        metavar="DIR",
        help=_CAMPAIGN,
        show_default=False,
        autocompletion=completion.campaigns,
    ),
]
CampaignDir = Annotated[
    Path | None, Option("--dir", metavar="DIR", help="the same as DIR", autocompletion=completion.campaigns)
]
# The first of the words that `core.cli.words` tells apart.
ExperimentWords = Annotated[
    str | None,
    Argument(
        metavar="DIR",
        help=_CAMPAIGN,
        show_default=False,
        autocompletion=completion.folder_or_number,
    ),
]
ExperimentNumber = Annotated[
    int | None,
    Option(
        "--experiment",
        "-e",
        metavar="N",
        help="the experiment; default: the champion",
        autocompletion=completion.numbers,
    ),
]


def _sandbox(off: bool) -> bool:
    """Turns the sandbox off if `off`. Warns once if trials of this command run without one."""
    from core.sandbox import tier

    tier.turn_off("--no-sandbox" if off else "")
    if not (here := tier.here()).enforced:
        lacks = ", ".join(here.unenforced)
        terminal.notice(f"WARNING: no sandbox ({here.why}): trainers run with your rights. Not prevented: {lacks}")
    if os.environ.get("PYTHONPATH"):
        from core.sandbox.paths import unseen_python_path

        for folder in unseen_python_path():
            terminal.notice(
                f"warning: PYTHONPATH names {folder}, which trials can't read, because no installer put its packages "
                "there; if train.py imports any of them, install them: pip install FOLDER"
            )
    return off


NoSandbox = Annotated[
    bool,
    Option("--no-sandbox", callback=_sandbox, help="run trainers with your rights, unconfined; every record says so"),
]


def parsed_hours(text: str | float) -> float:
    """Hours from what was typed: 8, 0.5 or 1:30."""
    from core.store.program import hours_of

    try:
        return hours_of(str(text))
    except ValueError:
        raise typer.BadParameter(f"expected hours, as in 8, 0.5 or 1:30, not {text!r}") from None


def comma_separated(names: str | None) -> list[str]:
    """The parts of an option that takes several names: `torch,jax`."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def to_type(*words: object) -> str:
    """The command `autoresearch` with these words, quoted for a shell; with its path where no PATH leads to it."""
    command = ["autoresearch", *map(str, words)]
    started = Path(sys.argv[0])
    if started.stem == "autoresearch" and started.is_file() and not shutil.which("autoresearch"):
        command[0] = min(os.path.relpath(started), str(started.absolute()), key=len)
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def same_command() -> str:
    """The command as it was typed, for a shell to take it again."""
    return to_type(*sys.argv[1:])


@contextlib.contextmanager
def interruptible(what_next: str) -> Iterator[None]:
    """Makes Ctrl-C, SIGTERM and a closed terminal end the command with one line that says `what_next`.

    The exit status is 128 plus the signal's number, as in a shell.
    """
    try:
        with graceful_shutdown(lambda: _notice("stopping; press Ctrl-C again to leave at once")):
            yield
    except OutputError as error:
        raise UserError(f"{error}; {what_next}") from error
    except KeyboardInterrupt as interrupt:
        _notice(f"interrupted; {what_next}")
        raise typer.Exit(SIGNALLED + interrupt.signum if isinstance(interrupt, Signalled) else INTERRUPTED) from None


def _notice(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what was closed
        terminal.notice(line)
