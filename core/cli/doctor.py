"""`autoresearch doctor`: examines this machine, and says what is missing and what to do first."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import typer
from rich.text import Text

import presets
from core.cli import resolve
from core.cli.options import CRASHED, AsJson, PresetName, interruptible
from core.cli.render import terminal
from core.records import Preset

if TYPE_CHECKING:
    from core.measure.doctor import Report

STYLES = {"ok": "green", "warning": "yellow", "missing": "red"}


def doctor(preset: PresetName = None, as_json: AsJson = False) -> None:
    """Check whether trials can run on this machine.

    This shows the devices, the backends, the data and what is missing. It uses no network. It changes nothing, but
    removes what killed runs left among the temporary files. The exit status is 1 if no trial of the preset can run.

    \b
      autoresearch doctor --preset h100
      autoresearch doctor --json
    """
    from core.measure.doctor import examine

    name = preset or resolve.DEFAULT_PRESET
    chosen, origin = _preset(name)
    console = terminal.err()
    with interruptible("nothing was changed"), console.status("examining this machine") as status:
        report = examine(chosen, origin, name=name, on_stage=lambda stage: status.update(f"examining {stage}"))
    if as_json:
        terminal.json_text(report.json())
    else:
        _print(report, name)
    if report.first:
        raise typer.Exit(CRASHED)


def _preset(name: str) -> tuple[Preset, str]:
    """The preset to check, and where its values come from. Does not measure for `auto`."""
    if name != resolve.AUTO:
        return presets.load(name), ""
    from core.measure import auto_preset

    found = auto_preset.find({})[0]
    if (text := auto_preset.kept(found)) is not None:
        return presets.parse(text), "measured before"
    return auto_preset.guess(found), "not measured yet: the first run measures for a minute"


def _print(report: Report, name: str) -> None:
    console = terminal.out()
    width = max(len(one.subject) for one in report.diagnoses) + 2
    status_width = max(map(len, STYLES)) + 2
    before = ""
    for one in report.diagnoses:
        message = one.message + (f" -> {one.fix}" if one.fix else "")
        head, before = "" if one.subject == before else one.subject, one.subject
        status: str = one.status
        room = max(40, console.width - width - status_width)
        for line in textwrap.wrap(message, room, break_long_words=False, break_on_hyphens=False) or [""]:
            text = Text(head.ljust(width), style="bold")
            text.append(status.ljust(status_width), style=STYLES[one.status])
            text.append(line, style="")
            console.print(text, soft_wrap=True)
            head = status = ""
    if not report.first:
        terminal.say(f"ready: autoresearch run night --preset {name}")
        return
    terminal.say("not ready; first:")
    for number, todo in enumerate(report.first, 1):
        terminal.say(f"{number}. {todo}")
