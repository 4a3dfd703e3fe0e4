"""The presets: from files, from devices' facts, with `--set KEY=VALUE` over them; checked, and frozen as TOML.

`presets/<name>.toml` holds numbers that were set or measured by hand, as differences from its `base`. The other
devices in devices.toml have presets that are scaled from their facts. Nothing here looks at the machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.records import CONSTANT_FIELDS, DeviceName, Preset, UserError, instead, unknown
from core.system.files import read_text, user_path
from core.system.text import valid
from presets import devices, scaling
from presets.schema import FIELDS, TABLES, build, checked_table, toml, value
from presets.schema import dump as dump

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the numbers of a preset come from: the table [about] of its file."""

    device: str  # the key in devices.toml of the device that it is for; empty for any
    measured: str = ""  # date and result on that device; empty if nothing was run there
    note: str = ""
    exempt: str = ""  # why `Estimate.warnings` don't apply to it; empty if they do


def names() -> list[str]:
    """The presets that come with autoresearch: the known devices' in their order, then the others."""
    files = sorted(path.stem for path in FOLDER.glob("*.toml") if path != devices.FILE)
    return list(dict.fromkeys((*devices.known(), *files)))


def origin(name: str) -> Origin:
    """Where the numbers of the preset `name`, of `names()`, come from."""
    path = FOLDER / f"{name}.toml"
    table = toml(path.read_text(encoding="utf-8"), str(path)).get("about", {}) if path.is_file() else {}
    return Origin(**{"device": name if name in devices.known() else "", **table})


def anchors() -> scaling.Anchors:
    """The two presets set by hand that the others are scaled from."""
    return scaling.Anchors(load("h100"), load("cpu"))


def load(name: str, settings: Mapping[str, str] | None = None) -> Preset:
    """The preset `name`, or the one in the file `name` if it ends in .toml, with `--set` values put over it.

    A key in lower case is a field of Preset, one in upper case a constant of the trainer, and `tune.NAME` is where a
    search looks for a constant (`none`: where it follows from the value). Values are TOML; a bare word is text.
    UserError for an unknown name or key and for a value of the wrong type or out of range.
    """
    return _with(_values(name, ()), settings or {}, f"preset {name}")


def override(preset: Preset, settings: Mapping[str, str]) -> Preset:
    """A preset with `--set` values put over it, as `load` does."""
    return _with(toml(dump(preset), "the frozen preset"), settings, f"preset {preset.name}")


def parse(text: str) -> Preset:
    """The preset that `dump` wrote."""
    return build(toml(text, "the frozen preset"), "the frozen preset")


def program() -> str:
    """The default program.md: beside this package's files when installed, at the root of a source tree."""
    installed, source = FOLDER / "program.md", FOLDER.parent / "program.md"
    return (installed if installed.exists() else source).read_text(encoding="utf-8")


def settings_from(pairs: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` arguments as a mapping; of two with the same key the last counts."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes KEY=VALUE, not {pair!r}: for example --set depth=6 --set MATRIX_LR=0.03")
        found[key.strip()] = value.strip()
    return found


def _with(values: dict[str, Any], settings: Mapping[str, str], where: str) -> Preset:
    for table in TABLES:
        values.setdefault(table, {})
    kind = _kind(values)
    for key, text in settings.items():
        _put(values, CONSTANT_FIELDS.get(key, key), text)
    if _kind(values) != kind and "peak_tflops" not in settings:
        values.pop("peak_tflops", None)  # another device's
    preset = build(values, where)
    if preset.corpus.startswith("folder:"):
        # A campaign may be continued from another working folder, so its corpus is named by its absolute path.
        folder = user_path(preset.corpus.removeprefix("folder:"), "--corpus").resolve()
        if (shown := valid(str(folder))) != str(folder):
            raise UserError(f"--corpus names {shown}, which is no UTF-8: rename the folder, or name a link to it")
        preset = dataclasses.replace(preset, corpus=f"folder:{folder}")
    return preset


def _kind(values: Mapping[str, Any]) -> str:
    return DeviceName.parse(str(values.get("device"))).kind


def _values(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UserError(f"preset {seen[0]}: its bases form a ring: {' -> '.join((*seen, name))}")
    path = user_path(name, "--preset") if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if name in devices.known() and not path.is_file():
        return toml(dump(scaling.scaled(devices.named(name), anchors())), f"preset {name}")
    if name not in names() and not name.endswith(".toml"):
        raise unknown(
            "preset", name, names(), "or name a .toml file of your own; `autoresearch presets --all` lists them"
        )
    values = toml(read_text(path), str(path))
    values.pop("about", None)
    base = values.pop("base", None)
    inherited = _values(base, (*seen, name)) if base is not None else {}
    tables = {table: {**inherited.get(table, {}), **checked_table(values, table, str(path))} for table in TABLES}
    return {**inherited, **values, "name": path.stem, **tables}


def _put(values: dict[str, Any], key: str, text: str) -> None:
    if key.isupper():
        values["constants"] = {**values["constants"], key: value(text)}
        return
    table, _, constant = key.partition(".")
    if table == "tune" and constant:
        ranges = {name: words for name, words in values["tune"].items() if name != constant}
        values["tune"] = ranges if text == "none" else {**ranges, constant: value(text)}
        return
    settable = [name for name in FIELDS if name not in ("name", *TABLES)]
    if key not in settable:
        raise UserError(
            f"a preset has no {key!r}: {instead(key, settable)}; "
            "names in capitals, as in MATRIX_LR=0.03, are constants of the trainer, and tune.MATRIX_LR is one's range"
        )
    given = value(text)
    if given == "none" and FIELDS[key].default is None:
        values.pop(key, None)
    else:
        # A bare word may be TOML of another type, as in --set device=0: the value of a text field stays text.
        values[key] = text.strip("\"'") if FIELDS[key].type == "str" else given
