"""Checks a tool's input, as a model wrote it, against the tool's schema. The model is shown what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.agents.llm.base import Tool

_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "list", dict: "object"}


class ToolError(Exception):
    """What the model gets instead of a result: what was expected and what came. `quoted` follows in a data block."""

    def __init__(self, message: str, quoted: str = "") -> None:
        super().__init__(message)
        self.quoted = quoted


def validated(tool: Tool, given: object) -> dict[str, Any]:
    """The input's fields. Supports what the tools use of JSON Schema: type, enum, minimum, required."""
    fields: Mapping[str, Mapping[str, Any]] = tool.schema.get("properties", {})
    takes = ", ".join(fields) or "no fields"
    if not isinstance(given, Mapping):
        came = f"{_type(given)} {str(given)[:80]!r}" if given is not None else "nothing"
        raise ToolError(f"{tool.name}: expected a JSON object with {takes}; {came} came")
    if unknown := [str(name) for name in given if name not in fields]:
        raise ToolError(f"{tool.name} has no field {', '.join(unknown)[:200]}; it takes {takes}")
    if missing := [name for name in tool.schema.get("required", ()) if given.get(name) is None]:
        raise ToolError(f"{tool.name} needs {', '.join(missing)}; it takes {takes}")
    return {name: _field(tool.name, name, fields[name], value) for name, value in given.items() if value is not None}


def _field(tool: str, name: str, schema: Mapping[str, Any], value: Any) -> Any:
    expected = schema["type"]
    if isinstance(value, float) and value.is_integer() and expected == "integer":
        value = int(value)
    if _type(value) != expected:
        raise ToolError(f"{tool}: {name}: expected {_article(expected)}; {_type(value)} {str(value)[:80]!r} came")
    if "enum" in schema and value not in schema["enum"]:
        raise ToolError(f"{tool}: {name}: expected one of {', '.join(schema['enum'])}; {value[:80]!r} came")
    if "minimum" in schema and value < schema["minimum"]:
        raise ToolError(f"{tool}: {name}: expected {schema['minimum']} or more; {value} came")
    return value


def _type(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
