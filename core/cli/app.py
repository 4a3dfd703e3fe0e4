"""The `autoresearch` command: its subcommands, a file each, and its entry point.

Results go to standard output, all else to standard error. What a command needs is imported when it runs, so that
`--help` and `status` answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer import Option

from core.cli import (
    ablate,
    audit,
    bench,
    compare,
    confirm,
    doctor,
    export,
    init,
    log,
    prepare,
    presets,
    run,
    sample,
    show,
    status,
    train,
    transcript,
    transfer,
    try_,
    wait,
)
from core.cli.options import CRASHED, SIGNALLED
from core.cli.render import streams, terminal
from core.records import UserError
from core.system import signals
from core.system.files import explained

HELP = """
Train a model for minutes, keep the change if it made the model better, and repeat.

\b
  autoresearch run night --preset cpu --hours 8      run a campaign in the folder night with the built-in search
  cd night && autoresearch status                    see how it stands; `log` and `show N` have the details
  autoresearch try -m "wider heads"                  try train.py as you edited it
  autoresearch confirm                               measure champion and baseline again with fresh seeds
  autoresearch ablate                                see which of the kept changes the champion still needs
  autoresearch transfer --depth 8                    see how much of the gain carries over to another scale
  autoresearch train --preset smoke                  run one trial outside any campaign
"""

app = typer.Typer(
    name="autoresearch",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        terminal.say(version("autoresearch"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


for _command in (
    init.init,
    prepare.prepare,
    train.train,
    run.run,
    try_.try_,
    wait.wait,
    status.status,
    log.log,
    show.show,
    transcript.transcript,
    confirm.confirm,
    ablate.ablate,
    transfer.transfer,
    export.export,
    sample.sample,
    audit.audit,
    # Those about devices, in the order in which they are met.
    doctor.doctor,
    presets.presets,
    compare.compare,
    bench.bench,
):
    app.command(_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """The entry point. A user's mistake, or a path that the system refuses, is one message and status 2."""
    output = streams.guard()
    try:
        try:
            app(prog_name="autoresearch")
        except SystemExit as ended:
            if not _signalled(ended):  # else the terminal may be what was closed
                output.finish()
            raise
    except SystemExit as ended:
        if _signalled(ended):
            signals.ignore_signals()
        raise
    except UserError as error:
        if isinstance(error, streams.OutputError) and error.unread:
            sys.exit(CRASHED)  # quietly, as any program before `head`
        terminal.notice(f"autoresearch: {error}")
        sys.exit(error.status)
    except OSError as error:
        if error.filename is None:
            raise
        told = explained(error)
        terminal.notice(f"autoresearch: {told}")
        sys.exit(told.status)


def _signalled(ended: SystemExit) -> bool:
    return isinstance(ended.code, int) and ended.code > SIGNALLED


if __name__ == "__main__":
    main()
