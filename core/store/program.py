"""Reads `program.md`: the person's prose, and optional limits in its YAML front matter.

The prose is for agents and never parsed. The default program's text is not here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.records import UserError

LIMITS = {
    "experiments": "a whole number above 0: what one run adds at most",
    "hours": "a number above 0: after which a run starts nothing new",
    "max_cost": "a number above 0: US dollars that one run may spend on a model",
    "max_tokens": "a whole number above 0: tokens of a model that one run may use",
    "fixed": "a list of the trainer's constants that nobody may change",
}


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
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Program()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: expected UTF-8 text; byte {error.start} is not ({error.reason})") from None
    return parse(text, path.name)


def parse(text: str, name: str = "program.md") -> Program:
    """The program in `text`. The front matter stands between a first line `---` and the next such line."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return Program(prose=text)
    import yaml  # most programs have no front matter, and `status` starts faster without it

    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise UserError(f"{name}: its first line opens front matter; expected a closing line `---`, and none came")
    try:
        limits = yaml.safe_load("".join(lines[1:end]))
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        where = f"{name}:{at.line + 2}" if at is not None else name
        raise UserError(f"{where}: the front matter is no YAML: {getattr(error, 'problem', error)}") from None
    if limits is None:
        limits = {}
    if not isinstance(limits, dict):
        raise UserError(f"{name}: expected `key: value` lines in the front matter, not a {type(limits).__name__}")
    if unknown := sorted(str(key) for key in limits if key not in LIMITS):
        known = "; ".join(f"{key} ({meaning})" for key, meaning in LIMITS.items())
        raise UserError(f"{name}: unknown limit {', '.join(unknown)}; known are {known}")
    fixed = limits.get("fixed") or []
    if not isinstance(fixed, list) or not all(isinstance(item, str) and item.isidentifier() for item in fixed):
        raise _wrong(name, "fixed", fixed)
    return Program(
        prose="".join(lines[end + 1 :]),
        experiments=_limit(name, limits, "experiments", int),
        hours=_limit(name, limits, "hours", int, float),
        max_cost=_limit(name, limits, "max_cost", int, float),
        max_tokens=_limit(name, limits, "max_tokens", int),
        fixed=tuple(fixed),
    )


def _limit(name: str, limits: dict[Any, Any], key: str, *types: type) -> Any:
    """A finite number above 0 of one of these types; None where the limit is not given."""
    value = limits.get(key)
    if value is not None and not (type(value) in types and 0 < value < math.inf):
        raise _wrong(name, key, value)
    return value


def _wrong(name: str, key: str, value: Any) -> UserError:
    return UserError(f"{name}: {key}: expected {LIMITS[key]}, not {value!r}")
