"""Writes docs/json.md and docs/json-schema.json, the documentation of --json, from core/cli/json_types.py.

python scripts/json_page.py            writes both
python scripts/json_page.py --check    status 1 if they are not what would be written
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))

from core.agents.llm.archive import Costs  # noqa: E402
from core.campaign.confirm import Confirmation  # noqa: E402
from core.cli import json_types  # noqa: E402
from core.cli.json_types import OUTPUTS, JsonOutput  # noqa: E402
from core.cli.render.terminal import SCHEMA_VERSION  # noqa: E402
from core.records import SCHEMA_KEY, Audit  # noqa: E402

PAGE, SCHEMA = ROOT / "docs" / "json.md", ROOT / "docs" / "json-schema.json"
# What modules name for type checkers alone.
LATE = {"Confirmation": Confirmation, "Costs": Costs}
SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
HEAD = f"""# What --json prints

Every command that has a result takes `--json`. The result goes to standard output, all else to standard error, and the
exit status is the same as without it: 0; 1 where a trial or a check failed; 2 for a mistake, with one sentence and no
JSON; 75 while somebody else is at work; 128 and the signal's number when interrupted.

Each object begins with `"{SCHEMA_KEY}": {SCHEMA_VERSION}`: the object itself, each one of an array, each line. The
number is raised when a key disappears or changes its type or its meaning. New keys may come without a new number, so
ignore those that you don't know. Scores are bits per byte, times are seconds, dates are UTC in ISO 8601. A number that
JSON has no sign for (NaN, infinite) is null.

[json-schema.json](json-schema.json) has the same as JSON Schema: `commands` holds a schema for each command below. Both
files are made from `core/cli/json_types.py`, and tests hold them against the real output of every command.

    autoresearch status night --json | python -c "import json, sys; print(json.load(sys.stdin)['champion_bpb'])"

| command | what it prints |
|---|---|
"""
FORMS = {
    "object": "an object: {}",
    "array": "an array of {}",
    "lines": "lines of JSON, each {}",
    "plain object": "an object without a version: {}",
}


class Types:
    """The types that OUTPUTS are made of, as JSON Schema under $defs."""

    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        self.commands = {command: self._output(one) for command, one in OUTPUTS.items()}

    def document(self) -> dict[str, Any]:
        """The whole JSON Schema."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "autoresearch --json",
            SCHEMA_KEY: SCHEMA_VERSION,
            "commands": self.commands,
            "$defs": dict(sorted(self.definitions.items())),
        }

    def _output(self, one: JsonOutput) -> dict[str, Any]:
        schema = self._schema(one.of)
        if one.form == "plain object":
            return schema
        version = {"properties": {SCHEMA_KEY: {"const": SCHEMA_VERSION}}, "required": [SCHEMA_KEY]}
        whole = {"allOf": [schema, version]}
        return {"type": "array", "items": whole} if one.form == "array" else whole

    def _schema(self, hint: Any) -> dict[str, Any]:
        """The schema of a type; a dataclass becomes a definition."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return {}
        if hint in SCALARS:
            return {"type": SCALARS[hint]}
        if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
            return self._reference(hint)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (typing.Union, types.UnionType):
            return self._any_of([self._schema(part) for part in arguments])
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self._schema(arguments[1])}
        if inspect.isclass(origin) and issubclass(origin, Sequence):
            return {"type": "array", "items": self._schema(arguments[0])}
        raise TypeError(f"no JSON is known for {hint!r}")

    def _any_of(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        simple = [part["type"] for part in parts if list(part) == ["type"]]
        others = [part for part in parts if list(part) != ["type"]]
        return {"anyOf": [*others, *({"type": one} for one in simple)]} if others else {"type": simple}

    def _reference(self, kind: type[Any]) -> dict[str, Any]:
        name = kind.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # a type may name itself
            hints = typing.get_type_hints(kind, localns={**vars(json_types), **LATE})
            told = comments(kind)
            properties: dict[str, Any] = {}
            for one in dataclasses.fields(kind):
                schema = self._schema(hints[one.name])
                if kind is Audit and schema == {"type": "number"}:
                    schema = {"type": ["number", "null"]}  # a difference may be infinite
                properties[one.name] = {**schema, **({"description": told[one.name]} if told.get(one.name) else {})}
            # A record is printed whole, whatever its defaults; only the types of that module can say otherwise.
            own = inspect.get_annotations(kind) if kind.__module__ == json_types.__name__ else ()
            fields = dataclasses.fields(kind)
            needed = [f.name for f in fields if f.name not in own or f.default is dataclasses.MISSING]
            self.definitions[name] = {
                "description": " ".join((inspect.getdoc(kind) or "").split()),
                "type": "object",
                "properties": properties,
                "required": needed,
            }
        return {"$ref": f"#/$defs/{name}"}


def comments(kind: type) -> dict[str, str]:
    """The comments behind the fields of a dataclass and of those that it derives from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        text = textwrap.dedent(inspect.getsource(one))
        lines = text.splitlines()
        (definition,) = ast.parse(text).body
        assert isinstance(definition, ast.ClassDef)
        for node in definition.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                _, _, comment = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].partition("# ")
                found[node.target.id] = comment.strip()
    return found


def page(types_: Types) -> str:
    """docs/json.md."""
    parts = [HEAD]
    for command, one in OUTPUTS.items():
        name = f"[{one.of.__name__}](#{one.of.__name__.lower()})" if inspect.isclass(one.of) else "name: text"
        note = f" {one.note}" if one.note else ""
        parts.append(f"| `{command} --json` | {FORMS[one.form].format(name)}.{note} |\n")
    for name, definition in sorted(types_.definitions.items()):
        parts.append(f"\n## {name}\n\n{definition['description']}\n\n| key | type | meaning |\n|---|---|---|\n")
        for key, schema in definition["properties"].items():
            optional = "" if key in definition["required"] else " (may be missing)"
            parts.append(f"| `{key}` | {in_words(schema)}{optional} | {escaped(schema.get('description', ''))} |\n")
    return "".join(parts)


def in_words(schema: Mapping[str, Any]) -> str:
    """A schema as a person reads it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(in_words(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {in_words(schema['items'])}"
    if schema.get("type") == "object":
        return f"object of {in_words(schema['additionalProperties'])}"
    kind = schema.get("type", "anything")
    return kind if isinstance(kind, str) else " or ".join(kind)


def lines_of(document: Mapping[str, Any]) -> str:
    """JSON with a line for each command and each definition."""
    parts = []
    for key, value in document.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict):
            inner = (f"  {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in value.items())
            text = "{\n" + ",\n".join(inner) + "\n }"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def escaped(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")


def main(arguments: Sequence[str]) -> int:
    types_ = Types()
    texts = {PAGE: page(types_), SCHEMA: lines_of(types_.document())}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the types say: python scripts/json_page.py writes it anew")
        return int(bool(stale))
    for path in stale:
        path.write_text(texts[path], encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
