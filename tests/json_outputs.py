"""Holds what a command printed with --json against the schema that docs/json-schema.json publishes."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from jsonschema import Draft202012Validator
except ImportError:  # an environment from before it was one of the developers' packages: make setup
    Draft202012Validator = None  # type: ignore[assignment, misc]

from core.cli.json_types import OUTPUTS

SCHEMA = Path(__file__).parents[1] / "docs" / "json-schema.json"
OPEN = {"BenchRow"}  # with further keys that depend on the benchmark


def key_of(arguments: Sequence[str]) -> str:
    """The key in OUTPUTS of a command line."""
    command, *words = arguments
    if command == "bench" and "--list" in words:
        return "bench --list"
    if command == "presets" and words and not words[0].startswith("-"):
        return "presets FILE.toml" if words[0].endswith(".toml") or words[0] == "auto" else "presets NAME"
    return command


def check(arguments: Sequence[str], out: str) -> None:
    """Fails if the output is not what the schema says, or has a key that the schema lacks."""
    if Draft202012Validator is None or not out:
        return
    key = key_of(arguments)
    assert key in OUTPUTS, f"core/cli/json_types.py lacks {key!r}; add it and run python scripts/json_page.py"
    values = [json.loads(line) for line in out.splitlines()] if OUTPUTS[key].form == "lines" else [json.loads(out)]
    for value in values:
        errors = [f"{error.json_path}: {error.message[:300]}" for error in validator(key).iter_errors(value)]
        assert not errors, (
            f"the output of {key!r} is not what core/cli/json_types.py says (change it and run "
            f"python scripts/json_page.py): {errors[:3]}"
        )


@functools.cache
def validator(key: str) -> Any:
    """A validator that refuses keys that the schema lacks; users' own may come upon new ones."""
    document = copy.deepcopy(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for name, definition in document["$defs"].items():
        if name not in OPEN:
            definition["properties"]["schema_version"] = {"const": 1}  # required where it stands
            definition["additionalProperties"] = False
    return Draft202012Validator({"$defs": document["$defs"], **document["commands"][key]})
