"""`autoresearch presets`: the presets as a list, or one of them as TOML."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.options import AsJson, Settings
from core.records import to_json
from core.views import terminal


def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="print this one as TOML")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """List the presets, or print one as TOML.

    What is printed can be saved, changed and given to --preset.
    """
    import backends
    import presets as rooms
    from core.views import tables

    chosen = rooms.settings_from(settings or [])
    if name is not None:
        preset = rooms.load(name, chosen)
        if as_json:
            terminal.json_text(to_json(preset))
        else:
            sys.stdout.write(rooms.dump(preset))
        return
    found = [rooms.load(one, chosen) for one in rooms.names()]
    missing = {backend: backends.get(backend).missing() for backend in sorted({preset.backend for preset in found})}
    if as_json:
        terminal.json_text([{**to_json(preset), "missing": missing[preset.backend]} for preset in found])
    else:
        terminal.out().print(tables.presets(found, missing))
