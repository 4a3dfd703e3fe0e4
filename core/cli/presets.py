"""`autoresearch presets`: the presets as a list, or one of them as TOML."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import AsJson, Device, Settings, all_of, interruptible
from core.cli.render import terminal
from core.cli.resolve import Asked
from core.records import to_json


def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="print this one as TOML")] = None,
    settings: Settings = None,
    device: Device = None,
    again: Annotated[bool, typer.Option("--again", help="of auto: measure anew, whatever the cache holds")] = False,
    as_json: AsJson = False,
) -> None:
    """List the presets, or print one as TOML.

    What is printed can be saved, changed and given to --preset. `auto` measures this machine for up to a minute.

    \b
      autoresearch presets auto > mine.toml
      autoresearch run night --preset mine.toml
    """
    import backends
    import presets as rooms
    from core.cli.render import presets as view

    chosen = Asked(device=device, settings=all_of(settings)).changes()
    if name == resolve.AUTO:
        with interruptible("what was measured is lost: run the command again"):
            preset, text = resolve.measured_preset(chosen, again=again)
        terminal.json_text(to_json(preset)) if as_json else sys.stdout.write(text)
        return
    if name is not None and name not in rooms.names():
        preset = rooms.load(name, chosen)
        terminal.json_text(to_json(preset)) if as_json else sys.stdout.write(rooms.dump(preset))
        return
    every = [view.listed(one, chosen) for one in ([name] if name is not None else rooms.names())]
    missing = {backend: backends.get(backend).missing() for backend in sorted({one.preset.backend for one in every})}
    if as_json:
        rows = [view.row(one, missing[one.preset.backend]) for one in every]
        terminal.json_text(rows if name is None else rows[0])
    elif name is not None:
        sys.stdout.write(view.toml(every[0]))
    else:
        terminal.out().print(view.table(every, missing))
