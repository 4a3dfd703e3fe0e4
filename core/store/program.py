"""Reads `program.md`: the person's prose, and optional limits in its YAML front matter.

The prose is for agents and never parsed. The default program's text is not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.records import PROGRAM, UserError
from core.system.files import decode, os_errors_as_user_errors

if TYPE_CHECKING:
    from yaml import Node

BPB_PER_LINE = 0.00005
"""What a line less is worth unless program.md says otherwise.

Upstream's program.md: "A 0.001 val_bpb improvement that adds 20 lines of hacky code? Probably not worth it." This is
the lowest price at which it is not.
"""
STOP_CHANCE = 0.01  # of a keep, below which a trial is stopped early
LIMITS = {
    "experiments": "a whole number above 0: what one run adds at most",
    "hours": "a number above 0, or 1:30 for an hour and a half: after which a run starts nothing new",
    "max_cost": "a number above 0: US dollars that one run may spend on a model",
    "max_tokens": "a whole number above 0: tokens of a model that one run may use",
    "fixed": "a list of the trainer's constants that nobody may change, as in [DEPTH]",
    "max_memory": "an amount with its unit, as in 12 GB or 800 MB: what a trial may hold at its peak",
    "max_parameters": "a whole number above 0, as in 50M or 2,000,000: of the model",
    "min_tokens_per_second": "a number above 0, as in 40K or 40,000: the speed of training that a trainer must reach",
    "max_startup": "seconds, as in 90 s or 2 min: from a trial's start to its first batch",
    "max_val_bpb": "a number above 0: bits per byte that a trainer must stay below, for a weight on speed beside it",
    "stop_chance": "a share below 50 %, as in 1 % or 0.01: a trial with a smaller chance to be kept is stopped early; "
    "0 stops none (default 1 %)",
    "bpb_per_line": f"a number from 0 up: bits per byte that a line of code less is worth (default {BPB_PER_LINE:.5f})",
    "bpb_per_doubled_speed": "a number from 0 up: bits per byte that twice the tokens/s are worth (default 0)",
}
# Behind a number, in lower case. A GB is 1024 MB, as tools for GPUs count it.
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_UNITS = {
    "max_memory": {"mb": 1.0, "mib": 1.0, "gb": 1024.0, "gib": 1024.0, "tb": 1024.0**2, "tib": 1024.0**2},
    "max_parameters": _COUNTS,
    "min_tokens_per_second": {f"{unit}{name}": size for unit, size in _COUNTS.items() for name in ("", "tokens/s")},
    "max_startup": {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0, "minutes": 60.0},
    "max_val_bpb": {"": 1.0, "bpb": 1.0},
    "stop_chance": {"": 1.0, "%": 0.01},
    "bpb_per_line": {"": 1.0, "bpb": 1.0},
    "bpb_per_doubled_speed": {"": 1.0, "bpb": 1.0},
}
# As people write them. YAML 1.1 would read 010 as 8, 1:30 as 90 and [N] as false, so every value is read as text.
_NUMBER = re.compile(r"\+?(?:[0-9][0-9_]*(?:\.[0-9]*)?|[0-9]{1,3}(?:,[0-9]{3})+|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NOTHING: tuple[object, ...] = ("", "~", "null")
_UNIT = re.compile(r"[a-z/% ]*$")
_CLOCK = re.compile(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a verdict holds a trainer to beside its score, and what simplicity and speed are worth in bits per byte.

    A limit that is None does not hold.
    """

    memory_mb: float | None = None  # at a trial's peak; 1024 to a GB
    parameters: int | None = None
    tokens_per_second: float | None = None  # that training reaches at least
    startup_seconds: float | None = None  # from a trial's start to its first batch
    val_bpb: float | None = None
    bpb_per_line: float = BPB_PER_LINE  # of code, that a trainer has less
    bpb_per_doubled_speed: float = 0.0  # of twice the champion's tokens/s

    def to_record(self) -> dict[str, float]:
        """What holds, by name: the `limits` of an Experiment. The two prices are always there."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def described(self) -> list[str]:
        """What holds, a phrase each."""
        forms = {
            "memory_mb": "at most {:,.0f} MB of memory", "parameters": "at most {:,} parameters",
            "tokens_per_second": "at least {:,.0f} tokens/s", "startup_seconds": "at most {:g} s to start",
            "val_bpb": "at most {} bpb", "bpb_per_line": "a line of code less is worth {} bpb",
            "bpb_per_doubled_speed": "twice the tokens/s are worth {} bpb",
        }  # fmt: skip
        found = {name: value for name in forms if (value := getattr(self, name))}
        shown = {name: _plain(value) if "bpb" in name else value for name, value in found.items()}
        return [forms[name].format(value) for name, value in shown.items()]

    @classmethod
    def from_record(cls, record: Mapping[str, float]) -> Limits:
        """The limits that an experiment was judged with. One that recorded none had no limits and no prices."""
        known = {one.name for one in fields(cls)}
        if unknown := sorted(record.keys() - known):
            raise UserError(f"unknown limit {', '.join(unknown)} in a record; known are {', '.join(sorted(known))}")
        values: dict[str, Any] = {"bpb_per_line": 0.0, **record}
        if "parameters" in values:
            values["parameters"] = int(values["parameters"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Program:
    """`program.md` as it was read. A limit that is None does not hold."""

    prose: str = ""
    experiments: int | None = None
    hours: float | None = None
    max_cost: float | None = None  # US dollars
    max_tokens: int | None = None
    fixed: tuple[str, ...] = ()
    stop_chance: float = STOP_CHANCE
    limits: Limits = Limits()


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
    front = _FrontMatter(name, "".join(lines[begin + 1 : end]), begin + 1)
    per_line, per_doubling = front.price("bpb_per_line"), front.price("bpb_per_doubled_speed")
    return Program(
        prose="".join(lines[end + 1 :]),
        experiments=front.whole("experiments"),
        hours=front.number("hours"),
        max_cost=front.number("max_cost"),
        max_tokens=front.whole("max_tokens"),
        fixed=front.names("fixed"),
        stop_chance=front.share("stop_chance", STOP_CHANCE),
        limits=Limits(
            memory_mb=front.number("max_memory"),
            parameters=front.whole("max_parameters"),
            tokens_per_second=front.number("min_tokens_per_second"),
            startup_seconds=front.number("max_startup"),
            val_bpb=front.number("max_val_bpb"),
            bpb_per_line=BPB_PER_LINE if per_line is None else per_line,
            bpb_per_doubled_speed=per_doubling or 0.0,
        ),
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


def _plain(value: float) -> str:
    """The number without an exponent: 0.00005."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _with_unit(text: str, units: Mapping[str, float]) -> float:
    """A number and one of `units` behind it, with or without a space. ValueError for anything else."""
    unit = _UNIT.search(text := text.strip().lower())
    assert unit is not None, "it matches nothing, too"
    if (size := units.get(unit[0].replace(" ", ""))) is None:
        raise ValueError(text)
    return _number(text[: unit.start()]) * size


class _FrontMatter:
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
                raise self._unknown(key)
            if key.value in self._nodes:
                first = self._at(self._nodes[key.value])
                raise UserError(f"{self._at(key)}: {key.value} stands here and at {first}; leave one out")
            self._nodes[key.value] = value

    def number(self, key: str) -> float | None:
        """A finite number above 0, in the unit of `Program` or `Limits`; None where the limit is not given."""
        value = self.price(key)
        if value == 0:
            raise self._wrong(key)
        return value

    def price(self, key: str) -> float | None:
        """A finite number from 0 up; None where it is not given."""
        if (text := self._text(key)) is None:
            return None
        try:
            if key == "hours":
                value = hours_of(text)
            else:
                value = (
                    _with_unit(text.removeprefix("$"), _UNITS[key])
                    if key in _UNITS
                    else _number(text.removeprefix("$"))
                )
        except ValueError:
            raise self._wrong(key) from None
        if not value < math.inf:
            raise self._wrong(key)
        return value

    def share(self, key: str, default: float) -> float:
        """A share from 0 up and below a half."""
        value = self.price(key)
        if value is not None and value >= 0.5:
            raise self._wrong(key)
        return default if value is None else value

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

    def _unknown(self, key: Node) -> UserError:
        """With the meaning of the names that may be meant, else of all."""
        import difflib

        words = [part for part in str(key.value).split("_") if len(part) > 4]
        close = difflib.get_close_matches(str(key.value), LIMITS, n=2)
        close = close or [name for name in LIMITS if any(word in name for word in words)] or list(LIMITS)
        meant = "; ".join(f"{name} ({LIMITS[name]})" for name in close)
        known = f"; known are {', '.join(LIMITS)}" if len(close) < len(LIMITS) else ""
        lead = "did you mean" if known else "known are"
        return UserError(f"{self._at(key)}: unknown limit {_shown(key)}; {lead} {meant}{known}")

    def _wrong(self, key: str, item: Node | None = None) -> UserError:
        node = item or self._nodes[key]
        return UserError(f"{self._at(node)}: {key}: expected {LIMITS[key]}, not {_shown(node)}")


def _shown(node: Node) -> str:
    return repr(node.value) if isinstance(node.value, str) else "a list or a mapping"
