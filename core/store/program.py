"""Reads `program.md`: the person's prose, and optional limits in its YAML front matter.

The prose is for agents and never parsed. The default program's text is not here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.records import PROGRAM, UserError
from core.system.files import decode, os_errors_as_user_errors

if TYPE_CHECKING:
    from yaml import Node

LIMITS = {
    "experiments": "a whole number above 0: what one run adds at most",
    "hours": "a number above 0, or 1:30 for an hour and a half: after which a run starts nothing new",
    "max_cost": "a number above 0: US dollars that one run may spend on a model",
    "max_tokens": "a whole number above 0: tokens of a model that one run may use",
    "fixed": "a list of the trainer's constants that nobody may change, as in [DEPTH]",
}
# As people write them. YAML 1.1 would read 010 as 8, 1:30 as 90 and [N] as false, so every value is read as text.
_NUMBER = re.compile(r"\+?(?:[0-9][0-9_]*(?:\.[0-9]*)?|[0-9]{1,3}(?:,[0-9]{3})+|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NOTHING: tuple[object, ...] = ("", "~", "null")
_CLOCK = re.compile(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?")


@dataclass(frozen=True, kw_only=True)
class Program:
    """`program.md` as it was read. A limit that is None does not hold."""

    prose: str = ""
    experiments: int | None = None
    hours: float | None = None
    max_cost: float | None = None  # US dollars
    max_tokens: int | None = None
    fixed: tuple[str, ...] = ()


def read(path: Path) -> Program:
    """The program in `path`; an empty one where no file is. Raises UserError for front matter that can't be read."""
    with os_errors_as_user_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Program()
    return parse(decode(data, path.name), path.name)


def parse(text: str, name: str = PROGRAM) -> Program:
    """The program in `text`. The front matter stands between a first line `---` and the next such line.

    Empty lines before it don't count.
    """
    text = text.removeprefix("\ufeff")
    lines = text.splitlines(keepends=True)
    begin = next((i for i, line in enumerate(lines) if line.strip()), None)
    if begin is None or lines[begin].strip() != "---":
        return Program(prose=text)
    end = next((i for i, line in enumerate(lines[begin + 1 :], begin + 1) if line.strip() == "---"), None)
    if end is None:
        raise UserError(
            f"{name}:{begin + 1}: this line opens front matter; expected a closing line `---`, and none came"
        )
    limits = _Limits(name, "".join(lines[begin + 1 : end]), begin + 1)
    return Program(
        prose="".join(lines[end + 1 :]),
        experiments=limits.whole("experiments"),
        hours=limits.number("hours"),
        max_cost=limits.number("max_cost"),
        max_tokens=limits.whole("max_tokens"),
        fixed=limits.names("fixed"),
    )


def hours_of(text: str) -> float:
    """Hours as a person writes them: `8`, `0.5`, or `1:30` for an hour and a half. ValueError for anything else."""
    if (clock := _CLOCK.fullmatch(text.strip())) is not None:
        hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return hours + minutes / 60 + seconds / 3600
    return _number(text)


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text.strip()) is None:
        raise ValueError(text)
    return float(text.strip().replace(",", ""))


class _Limits:
    """The `key: value` lines of a front matter. Every error names the line."""

    def __init__(self, name: str, text: str, above: int) -> None:
        """`above`: how many lines of the file stand above the text."""
        import yaml  # most programs have no front matter, and `status` starts faster without it

        self._name = name
        self._above = above
        self._nodes: dict[str, Node] = {}
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            at = getattr(error, "problem_mark", None)
            where = f"{name}:{above + 1 + at.line}" if at is not None else name
            raise UserError(f"{where}: the front matter is no YAML: {getattr(error, 'problem', error)}") from None
        except RecursionError:
            raise UserError(f"{name}: the front matter is nested too deeply") from None
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise UserError(f"{self._at(root)}: expected `key: value` lines in the front matter, not {_shown(root)}")
        for key, value in root.value:
            if not isinstance(key.value, str) or key.value not in LIMITS:
                known = "; ".join(f"{key} ({meaning})" for key, meaning in LIMITS.items())
                raise UserError(f"{self._at(key)}: unknown limit {_shown(key)}; known are {known}")
            if key.value in self._nodes:
                first = self._at(self._nodes[key.value])
                raise UserError(f"{self._at(key)}: {key.value} stands here and at {first}; leave one out")
            self._nodes[key.value] = value

    def number(self, key: str) -> float | None:
        """A finite number above 0; None where the limit is not given."""
        if (text := self._text(key)) is None:
            return None
        try:
            value = hours_of(text) if key == "hours" else _number(text.removeprefix("$"))
        except ValueError:
            raise self._wrong(key) from None
        if not 0 < value < math.inf:
            raise self._wrong(key)
        return value

    def whole(self, key: str) -> int | None:
        """A whole number above 0; None where the limit is not given."""
        value = self.number(key)
        if value is not None and not value.is_integer():
            raise self._wrong(key)
        return None if value is None else int(value)

    def names(self, key: str) -> tuple[str, ...]:
        """A list of names."""
        import yaml

        node = self._nodes.get(key)
        if node is None or node.value in _NOTHING:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(key)
        for item in node.value:
            if not (isinstance(item, yaml.ScalarNode) and item.value.isidentifier()):
                raise self._wrong(key, item)
        return tuple(item.value for item in node.value)

    def _text(self, key: str) -> str | None:
        """The value as it is written; None for no value."""
        node = self._nodes.get(key)
        if node is None or node.value in _NOTHING:
            return None
        if not isinstance(node.value, str):
            raise self._wrong(key)
        return node.value

    def _at(self, node: Node) -> str:
        return f"{self._name}:{self._above + 1 + node.start_mark.line}"

    def _wrong(self, key: str, item: Node | None = None) -> UserError:
        node = item or self._nodes[key]
        return UserError(f"{self._at(node)}: {key}: expected {LIMITS[key]}, not {_shown(node)}")


def _shown(node: Node) -> str:
    return repr(node.value) if isinstance(node.value, str) else "a list or a mapping"
