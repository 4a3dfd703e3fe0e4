"""The presets: reads presets/*.toml and `--set KEY=VALUE`, checks every value, and writes a frozen copy.

A file states what differs from the preset named by its `base`. Nothing here looks at the machine.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.records import Constant, Preset, UserError

FOLDER = Path(__file__).resolve().parent
FIELDS = {field.name: field for field in dataclasses.fields(Preset)}
REQUIRED = {
    name
    for name, field in FIELDS.items()
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
}
# A trainer's constants that are fields of a preset: both names set the same number.
ALIASES = {
    "DEPTH": "depth",
    "SEQUENCE_LENGTH": "sequence_length",
    "TOTAL_BATCH_SIZE": "total_batch_size",
    "DEVICE_BATCH_SIZE": "device_batch_size",
}
POSITIVE = (
    "vocabulary",
    "depth",
    "sequence_length",
    "total_batch_size",
    "device_batch_size",
    "budget_seconds",
    "startup_seconds",
    "silence_seconds",
    "score_bytes",
    "peak_tflops",
)


def names() -> list[str]:
    """The presets that come with autoresearch, in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, settings: Mapping[str, str] | None = None) -> Preset:
    """The preset `name`, or of the file `name` if it ends in .toml, with `--set` values put over it.

    A key in lower case is a field of Preset, one in upper case a constant of the trainer; values are TOML, where a
    bare word stands for itself. UserError: unknown name or key, a value of the wrong type or out of range.
    """
    return _with(_values(name, ()), settings or {}, f"preset {name}")


def override(preset: Preset, settings: Mapping[str, str]) -> Preset:
    """A preset with `--set` values put over it, as `load` does."""
    return _with(tomllib.loads(dump(preset)), settings, f"preset {preset.name}")


def parse(text: str) -> Preset:
    """The preset that `dump` wrote."""
    return _build(_toml(text, "the frozen preset"), "the frozen preset")


def dump(preset: Preset) -> str:
    """A preset as TOML that holds all of it, with no base."""
    lines = []
    for name in FIELDS:
        value = getattr(preset, name)
        if value is not None and name != "constants":
            lines.append(f"{name} = {_literal(value)}")
    if preset.constants:
        lines += ["", "[constants]"]
        lines += [f"{_key(name)} = {_literal(value)}" for name, value in preset.constants.items()]
    return "\n".join(lines) + "\n"


def program() -> str:
    """The default program.md: beside this package's files when installed, at the root of a source tree."""
    installed, source = FOLDER / "program.md", FOLDER.parent / "program.md"
    return (installed if installed.exists() else source).read_text(encoding="utf-8")


def settings_from(pairs: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` arguments as a mapping; the last of two with one key counts."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes KEY=VALUE, not {pair!r}: for example --set depth=6 --set MATRIX_LR=0.03")
        found[key.strip()] = value.strip()
    return found


def _with(values: dict[str, Any], settings: Mapping[str, str], where: str) -> Preset:
    values.setdefault("constants", {})
    for key, text in settings.items():
        _put(values, ALIASES.get(key, key), text)
    preset = _build(values, where)
    if preset.corpus.startswith("folder:"):
        # A campaign may be gone on with from another folder, so its corpus is named from the root.
        folder = Path(preset.corpus.removeprefix("folder:")).expanduser().resolve()
        preset = dataclasses.replace(preset, corpus=f"folder:{folder}")
    return preset


def _values(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UserError(f"preset {seen[0]}: its bases form a ring: {' -> '.join((*seen, name))}")
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if name not in names() and not (name.endswith(".toml") and path.is_file()):
        close = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UserError(
            f"there is no preset {name!r}: {hint}there are {', '.join(names())}, or name a .toml file of your own "
            "(see `autoresearch presets`)"
        )
    values = _toml(path.read_text(encoding="utf-8"), str(path))
    base = values.pop("base", None)
    inherited = _values(base, (*seen, name)) if base is not None else {}
    constants = {**inherited.get("constants", {}), **values.get("constants", {})}
    return {**inherited, **values, "name": path.stem, "constants": constants}


def _put(values: dict[str, Any], key: str, text: str) -> None:
    if key.isupper():
        values["constants"] = {**values["constants"], key: _value(text)}
        return
    settable = [name for name in FIELDS if name not in ("name", "constants")]
    if key not in settable:
        close = difflib.get_close_matches(key, settable, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UserError(
            f"a preset has no {key!r}: {hint}it has {', '.join(settable)}; "
            "names in capitals, as in MATRIX_LR=0.03, are constants of the trainer"
        )
    value = _value(text)
    if value == "none" and FIELDS[key].default is None:
        values.pop(key, None)
    else:
        # A bare word may read as TOML of another type, as in --set device=0: what is text stays text.
        values[key] = text.strip("\"'") if FIELDS[key].type == "str" else value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word, as a shell leaves it of WINDOW_PATTERN="L"


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not TOML: {error}") from error


def _build(values: Mapping[str, Any], where: str) -> Preset:
    if unknown := sorted(set(values) - set(FIELDS)):
        raise UserError(f"{where}: unknown field {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    if missing := sorted(REQUIRED - set(values)):
        raise UserError(f"{where}: no value for {', '.join(missing)}")
    preset = Preset(**{name: _typed(name, value) for name, value in values.items()})
    _check(preset)
    return preset


def _typed(name: str, value: Any) -> Any:
    """The value as its field's type; whole numbers serve where fractions may stand, and nothing else is converted."""
    wanted = str(FIELDS[name].type)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if wanted == "str" and isinstance(value, str):
        return value
    if wanted == "int" and whole:
        return value
    if wanted.startswith("float") and (whole or isinstance(value, float)):
        return float(value)
    if wanted.startswith("tuple") and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if wanted.startswith("Mapping") and isinstance(value, dict):
        return {key: _constant(key, item) for key, item in value.items()}
    expected = {"str": "text", "int": "a whole number", "tuple[int, ...]": "whole numbers, as in [1, 2]"}
    raise UserError(f"{name} is {expected.get(wanted, 'a number')}, not {value!r}")


def _constant(name: str, value: Any) -> Constant:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list) and all(type(item) in (int, float) for item in value):
        return tuple(value)
    raise UserError(f"{name} is a number, true or false, a text or a list of numbers, not {value!r}")


def _check(preset: Preset) -> None:
    for name in POSITIVE:
        value = getattr(preset, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} is a finite number above 0, not {value}")
    if preset.vocabulary != 256 and preset.vocabulary < 258:
        raise UserError(
            f"vocabulary is 256 (plain bytes) or more than 257 (256 bytes, a document's start and merges), "
            f"not {preset.vocabulary}"
        )
    if preset.total_batch_size < preset.sequence_length:
        raise UserError(
            f"total_batch_size counts tokens of a step and is at least one row: {preset.total_batch_size} is less "
            f"than sequence_length {preset.sequence_length}"
        )
    if not preset.seeds or len(set(preset.seeds)) != len(preset.seeds) or min(preset.seeds) < 0:
        raise UserError(f"seeds are different whole numbers, none below 0, at least one: not {list(preset.seeds)}")


def _literal(value: Constant | tuple[int, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return repr(value)


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)
