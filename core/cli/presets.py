"""`autoresearch presets`: lists the presets, or prints one as TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

import presets as library
from core.cli import completion, resolve
from core.cli.options import AsJson, PresetSettings, TrainingDevice, interruptible
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.records import DeviceName, Preset, to_json
from core.system.accelerators import accelerators
from core.system.text import count
from presets import cost, devices
from presets.estimate import Estimate, estimate

if TYPE_CHECKING:
    from rich.console import Group

BEST_KNOWN = ("rtx4090", "m4-max", "tpu-v5e")  # one of each kind, beside the presets that were set by hand


def presets(
    name: Annotated[
        str | None, Argument(metavar="NAME", help="print this preset as TOML", autocompletion=completion.presets)
    ] = None,
    everything: Annotated[
        bool, Option("--all", help="list all; without it this machine's and the best known ones")
    ] = False,
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
    names = [name] if name is not None else library.names() if everything or as_json else first_names()
    every = [listed(one, chosen) for one in names]
    missing = {backend: backends.get(backend).missing() for backend in sorted({one.preset.backend for one in every})}
    if as_json:
        rows = [row(one, missing[one.preset.backend]) for one in every]
        terminal.json_text(rows if name is None else rows[0])
    elif name is not None:
        sys.stdout.write(toml(every[0]))
    else:
        console = terminal.out()
        console.print(_table(every, missing, console.width))
        if rest := [one for one in library.names() if one not in names]:
            shown = ", ".join(rest[:4])
            terminal.say(f"{len(rest)} more ({shown}, ...): autoresearch presets --all")
        terminal.say("auto measures this machine: autoresearch presets auto")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A preset that comes with autoresearch, with its origin and an estimate of its trials."""

    preset: Preset
    about: library.Origin
    estimate: Estimate | None
    changed: tuple[str, ...] = ()  # what settings changed in it, as `depth = 6`
    elsewhere: bool = False  # settings move it to another device or backend than its values are for

    @property
    def measured(self) -> str:
        """Date and result of a trial with just these values; empty if there was none."""
        return "" if self.changed or self.elsewhere else self.about.measured

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
        if self.changed:
            return f"changed: {', '.join(self.changed)}; nothing is measured with that"
        if self.measured:
            return f"measured {self.measured}"
        return f"derived: {self.about.note}" if self.about.note else "derived"


def listed(name: str, settings: Mapping[str, str]) -> Listed:
    """The preset `name` of `library.names()` with `--set` values put over it."""
    preset, about, own = library.load(name, settings), library.origin(name), library.load(name)
    kind, own_kind = DeviceName.parse(preset.device).kind, DeviceName.parse(own.device).kind
    elsewhere = (preset.backend, kind) != (own.backend, own_kind)
    held_against = devices.named(about.device) if about.device and not about.exempt and not elsewhere else None
    found = estimate(preset, held_against) if held_against else None
    before, after = to_json(own), to_json(preset)
    changed = tuple(f"{key} = {value}" for key, value in _flat(after).items() if value != _flat(before).get(key))
    return Listed(preset=preset, about=about, estimate=found, changed=changed, elsewhere=elsewhere)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's values and those of its tables under one name each."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    return flat


def first_names() -> list[str]:
    """The presets that are listed without --all: this machine's accelerators', those set by hand, the best known."""
    found = (devices.matching(one.name, one.memory_gb) for one in accelerators())
    here = [device.key for device in found if device is not None and device.key in library.names()]
    return list(dict.fromkeys((*here, *(name for name in library.names() if _is_known(name)))))


def _is_known(name: str) -> bool:
    return name in BEST_KNOWN or (library.FOLDER / f"{name}.toml").is_file()


def row(one: Listed, missing: str | None) -> dict[str, Any]:
    """A preset as JSON's own types; `missing` says why its backend can't run here."""
    facts = {} if one.estimate is None else to_json(one.estimate)
    return {
        **to_json(one.preset),
        "measured": one.measured or None,
        "derived": not one.measured and not one.about.exempt and not one.elsewhere,
        "note": one.about.note,
        "exempt": one.about.exempt,
        "estimate": facts,
        "warnings": one.warnings,
        "missing": missing,
    }


def _table(every: Sequence[Listed], missing: Mapping[str, str | None], width: int) -> Group:
    """All presets; `missing` says for a backend why it can't run here."""
    from rich.console import Group
    from rich.text import Text

    from core.cli.render.tables import Column, fitted

    spare = {"context": 2, "vocab": 3, "batch": 4, "width": 5}
    sizes = ("depth", "width", "context", "vocab", "batch", "steps", "tok/par", "memory")
    columns = [Column("preset"), Column("backend"), Column("corpus", spare=1)]
    columns += [Column(size, right=True, spare=spare.get(size, 0)) for size in sizes]
    rows = []
    for one in every:
        preset, found = one.preset, one.estimate
        lacks = missing.get(preset.backend) is not None
        origin = Text(one.origin, style="green" if one.measured else "")
        for warning in one.warnings:
            origin.append(f"\n{warning}", style="yellow")
        cells = (
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
        rows.append(cells)
    lines = [
        Text("Steps, tokens a parameter and memory are estimates for its budget; `autoresearch train` measures them.")
    ]
    lines += [Text(f"{backend}: {why}", style="yellow") for backend, why in missing.items() if why is not None]
    return Group(fitted([*columns, Column("values", words=True)], rows, width), *lines)


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
