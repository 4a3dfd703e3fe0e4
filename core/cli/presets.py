"""`autoresearch presets`: lists the presets, or prints one as TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

import presets as library
from core.cli import resolve
from core.cli.options import AsJson, PresetSettings, TrainingDevice, interruptible
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.records import DeviceName, Preset, to_json
from core.system.text import count
from presets import cost, devices
from presets.estimate import Estimate, estimate

if TYPE_CHECKING:
    from rich.console import Group


def presets(
    name: Annotated[str | None, Argument(metavar="NAME", help="print this preset as TOML")] = None,
    settings: PresetSettings = None,
    device: TrainingDevice = None,
    again: Annotated[bool, Option("--again", help="with auto: measure again, even if the cache has a result")] = False,
    as_json: AsJson = False,
) -> None:
    """List the presets, or print one as TOML.

    You can save the TOML, change it and give the file to --preset. `auto` measures this machine for up to a minute.

    \b
      autoresearch presets auto > mine.toml
      autoresearch run night --preset mine.toml
    """
    import backends

    chosen = PresetOptions(device=device, settings=settings).changes()
    if name == resolve.AUTO:
        with interruptible("the measurements are lost: run the command again"):
            preset, text = resolve.measured_preset(chosen, again=again)
        terminal.json_text(to_json(preset)) if as_json else sys.stdout.write(text)
        return
    if name is not None and name not in library.names():
        preset = library.load(name, chosen)
        terminal.json_text(to_json(preset)) if as_json else sys.stdout.write(library.dump(preset) + _followed(preset))
        return
    every = [listed(one, chosen) for one in ([name] if name is not None else library.names())]
    missing = {backend: backends.get(backend).missing() for backend in sorted({one.preset.backend for one in every})}
    if as_json:
        rows = [row(one, missing[one.preset.backend]) for one in every]
        terminal.json_text(rows if name is None else rows[0])
    elif name is not None:
        sys.stdout.write(toml(every[0]))
    else:
        terminal.out().print(_table(every, missing))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A preset that comes with autoresearch, with its origin and an estimate of its trials."""

    preset: Preset
    about: library.Origin
    estimate: Estimate | None
    elsewhere: bool = False  # settings move it to another device or backend than its values are for

    @property
    def warnings(self) -> list[str]:
        """The rules for meaningful trials that it breaks on its device; none if it is exempt."""
        return [] if self.about.exempt or self.estimate is None else self.estimate.warnings()

    @property
    def origin(self) -> str:
        """`measured` with date and result, or `derived`."""
        if self.about.exempt:
            return f"exempt: {self.about.exempt}"
        if self.elsewhere:
            place = f"{self.preset.backend} on {self.preset.device}"
            return f"values for another device or backend; nothing is measured or estimated for {place}"
        if self.about.measured:
            return f"measured {self.about.measured}"
        return f"derived: {self.about.note}" if self.about.note else "derived"


def listed(name: str, settings: Mapping[str, str]) -> Listed:
    """The preset `name` of `library.names()` with `--set` values put over it."""
    preset, about, own = library.load(name, settings), library.origin(name), library.load(name)
    kind, own_kind = DeviceName.parse(preset.device).kind, DeviceName.parse(own.device).kind
    elsewhere = (preset.backend, kind) != (own.backend, own_kind)
    held_against = devices.named(about.device) if about.device and not about.exempt and not elsewhere else None
    found = estimate(preset, held_against) if held_against else None
    return Listed(preset=preset, about=about, estimate=found, elsewhere=elsewhere)


def row(one: Listed, missing: str | None) -> dict[str, Any]:
    """A preset as JSON's own types; `missing` says why its backend can't run here."""
    facts = {} if one.estimate is None else to_json(one.estimate)
    return {
        **to_json(one.preset),
        "measured": (one.about.measured or None) if not one.elsewhere else None,
        "derived": not one.about.measured and not one.about.exempt and not one.elsewhere,
        "note": one.about.note,
        "exempt": one.about.exempt,
        "estimate": facts,
        "warnings": one.warnings,
        "missing": missing,
    }


def _table(every: Sequence[Listed], missing: Mapping[str, str | None]) -> Group:
    """All presets; `missing` says for a backend why it can't run here."""
    from rich.console import Group
    from rich.text import Text

    from core.cli.render import tables

    sizes = ("depth", "width", "context", "vocab", "batch", "steps", "tok/par", "memory")
    columns = tables.headed(("preset", "backend", "corpus"), sizes, "values")
    for one in every:
        preset, found = one.preset, one.estimate
        lacks = missing.get(preset.backend) is not None
        origin = Text(one.origin, style="green" if one.about.measured and not one.elsewhere else "")
        for warning in one.warnings:
            origin.append(f"\n{warning}", style="yellow")
        columns.add_row(
            Text(preset.name, style="bright_black" if lacks else "bold"),
            preset.backend,
            Text(preset.corpus),
            str(preset.depth),
            str(cost.width(preset)) if found else "",
            str(preset.sequence_length),
            str(preset.vocabulary),
            count(preset.total_batch_size),
            f"{found.steps:.0f}" if found else "",
            f"{found.tokens_per_parameter:.1f}" if found else "",
            f"{found.memory_share:.0%}" if found and found.memory_share is not None else "",
            origin,
        )
    lines = [
        Text("Steps, tokens a parameter and memory are estimates for its budget; `autoresearch train` measures them.")
    ]
    lines += [Text(f"{backend}: {why}", style="yellow") for backend, why in missing.items() if why is not None]
    return Group(columns, *lines)


def toml(one: Listed) -> str:
    """A preset as TOML, with comments that say where its values come from."""
    lines = [f"# {one.preset.name}: {one.origin}"]
    if one.about.device and not one.about.exempt and not one.elsewhere:
        device = devices.named(one.about.device)
        lines[0] += f", for {device.name}"
        lines.append(f"# The device's facts: {device.source}")
    lines += [f"# warning: {warning}" for warning in one.warnings]
    return "\n".join(lines) + "\n" + library.dump(one.preset) + _followed(one.preset)


def _followed(preset: Preset) -> str:
    """As comments, where a search looks for the constants that [tune] says nothing of."""
    from core.trainer.constants import read_tunables
    from core.trainer.literals import literal
    from core.trainer.reference import reference_trainer

    found = read_tunables(reference_trainer(preset))
    lines = [f"# {name} = {literal(one.range)}" for name, one in found.items() if name not in preset.tune]
    head = [
        "",
        "# What a search changes else, and where it looks: it follows from the values above. To change one, write it",
    ]
    return (
        "\n".join([*head, '# of these under [tune]; "fixed" leaves a constant alone.', *lines]) + "\n" if lines else ""
    )
