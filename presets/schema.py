"""Presets as TOML: reads, checks the type and the range of every value, and writes."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from typing import Any

from core.records import FIXED, Constant, Preset, UserError, check_vocabulary, instead

FIELDS = {field.name: field for field in dataclasses.fields(Preset)}
REQUIRED = {name for name, field in FIELDS.items() if field.default is field.default_factory is dataclasses.MISSING}
TABLES = tuple(name for name, field in FIELDS.items() if str(field.type).startswith("Mapping"))
POSITIVE = [name for name, field in FIELDS.items() if str(field.type).startswith(("int", "float"))]


def build(values: Mapping[str, Any], where: str) -> Preset:
    """A checked preset. `where` names the source in errors. UserError: unknown or missing field, bad value."""
    if others := sorted(set(values) - set(FIELDS)):
        raise UserError(f"{where}: unknown field {', '.join(others)}: {instead(others[0], FIELDS)}")
    if missing := sorted(REQUIRED - set(values)):
        raise UserError(f"{where}: no value for {', '.join(missing)}")
    try:
        preset = Preset(**{name: _typed(name, value) for name, value in values.items()})
        _check(preset)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return preset


def dump(preset: Preset) -> str:
    """The whole preset as TOML, without a base."""
    values = {name: getattr(preset, name) for name in FIELDS if name not in TABLES}
    lines = [f"{name} = {_literal(value)}" for name, value in values.items() if value is not None]
    for table in TABLES:
        if entries := getattr(preset, table):
            lines += ["", f"[{table}]", *(f"{_key(name)} = {_literal(value)}" for name, value in entries.items())]
    return "\n".join(lines) + "\n"


def value(text: str) -> Any:
    """The TOML value `text`; a bare word, as a shell makes of WINDOW_PATTERN="L", is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text. UserError if it is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, a number of thousands of digits, or nested too deeply
        raise UserError(f"{where} is not TOML: {error}") from error


def checked_table(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The table of that name, empty if it is missing. UserError if it is no table."""
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise UserError(f"{where}: {name} is a table, as in [{name}], not {table!r}")
    return table


def _typed(name: str, value: Any) -> Any:
    """The value in its field's type. Whole numbers become floats where needed; nothing else is converted."""
    wanted = str(FIELDS[name].type)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63  # as TOML has it
    if wanted == "str" and isinstance(value, str):
        return value
    if wanted == "int" and whole:
        return value
    if wanted.startswith("float") and (whole or isinstance(value, float)):
        return float(value)
    if wanted.startswith("tuple") and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if name == "tune" and isinstance(value, dict):
        return {key: _range(key, words) for key, words in value.items()}
    if wanted.startswith("Mapping") and isinstance(value, dict):
        return {key: _constant(key, item) for key, item in value.items()}
    expected = {"str": "text", "int": "a whole number", "tuple[int, ...]": "whole numbers, as in [1, 2]"}
    raise UserError(f"{name} is {expected.get(wanted, 'a number')}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """The value for an error, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _constant(name: str, value: Any) -> Constant:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list) and all(type(item) in (int, float) for item in value):
        return tuple(value)
    raise UserError(f"{name} is a number, true or false, a text or a list of numbers, not {_shown(value)}")


def _range(key: str, words: Any) -> str:
    """A checked value of [tune]. The trainer's reader of `# tune:` checks whether it is a range."""
    if not (key.isidentifier() and key.isupper()):
        raise UserError(f"[tune] names constants of the trainer, in capitals as in DEPTH, not {key!r}")
    if not isinstance(words, str) or not words.strip() or not words.isprintable() or set("#;") & set(words):
        raise UserError(f'[tune] {key} is "{FIXED}" or a range as behind `# tune:`, as in "int 2 .. 6", not {words!r}')
    return words.strip()


def _check(preset: Preset) -> None:
    for name in POSITIVE:
        value = getattr(preset, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} is a finite number above 0, not {value}")
    check_vocabulary(preset.vocabulary)
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
