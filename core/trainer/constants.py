"""The constants of a trainer's text: reads `# tune:` comments and module-level constants, and changes them in place.

Nothing here runs a trainer's code or knows what its constants mean.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from core.records import TRAINER, Constant, UserError, instead
from core.trainer.literals import evaluate, literal, plain_number, same

_TUNE = re.compile(r"#\s*tune\s*:\s*(?P<body>[^;]*)")
_RANGE = re.compile(r"(?P<kind>log|linear)?\s*(?P<integer>int)?\s*(?P<low>\S+)\s*\.\.\s*(?P<high>\S+)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_FORMS = "`log 0.005 .. 0.2`, `linear 0 .. 0.9`, `int 2 .. 12`, `log int 1024 .. 65536` or `one of 64, 128`"
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
_LARGEST_INT = 2.0**45  # of an int range: the search computes in float64, whose whole numbers end at 2**53


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """One constant that a search may change: a range (low, high) or a set of choices."""

    name: str
    value: Constant
    low: float | None = None
    high: float | None = None
    choices: tuple[Constant, ...] | None = None
    log: bool = False
    integer: bool = False

    @property
    def range(self) -> str:
        """What stands behind `# tune:` for it."""
        if self.choices is not None:
            return f"one of {', '.join(map(literal, self.choices))}"
        assert self.low is not None and self.high is not None
        kinds = [kind for kind, holds in (("log", self.log), ("int", self.integer)) if holds] or ["linear"]
        low, high = (f"{round(end)}" if self.integer else f"{end:g}" for end in (self.low, self.high))
        return f"{' '.join(kinds)} {low} .. {high}"

    @property
    def holds_value(self) -> bool:
        """Whether its own value lies in the range or among the choices."""
        if self.choices is not None:
            return any(same(choice, self.value) for choice in self.choices)
        assert self.low is not None and self.high is not None and isinstance(self.value, (int, float))
        return self.low <= self.value <= self.high


@dataclass(frozen=True)
class Assignment:
    """A module-level `name = node`. Lines count from 1."""

    name: str
    node: ast.expr
    first_line: int
    last_line: int


def read_tunables(text: str, name: str = TRAINER) -> dict[str, Tunable]:
    """The tunable constants in the order of the text.

    Raises UserError with the line for a syntax error, a `# tune:` comment of an unknown form, and one that stands
    behind anything but a module-level `NAME = literal`.
    """
    tree = parse(text, name)
    by_line = {assignment.last_line: assignment for assignment in assignments(tree)}
    found: dict[str, Tunable] = {}
    for line, body in tune_comments(text):
        where = f"{name}:{line}"
        if (assignment := by_line.get(line)) is None:
            raise UserError(
                f"{where}: a `# tune:` comment stands behind a module-level `NAME = value`, and none is here"
            )
        key = assignment.name
        if key in found:
            raise UserError(f"{where}: {key} is assigned twice; a tunable constant is assigned once")
        try:
            value = evaluate(assignment.node)
        except ValueError as error:
            raise UserError(f"{where}: {key}: a tunable constant is a literal, {error}") from None
        found[key] = _tunable(key, value, body, f"{where}: {key}")
    return found


def read_constants(text: str) -> dict[str, Constant]:
    """Every module-level constant whose name is in capitals and whose value is a literal or arithmetic on literals."""
    values: dict[str, Constant] = {}
    for assignment in assignments(parse(text)):
        if assignment.name.isupper():
            try:
                values[assignment.name] = evaluate(assignment.node)
            except ValueError:
                values.pop(assignment.name, None)
    return values


def write_constants(text: str, values: Mapping[str, Constant], name: str = TRAINER) -> str:
    """The text with these module-level constants set: only their literals change, comments and layout stay.

    Raises UserError for a name that is no module-level `NAME = literal`, or that is assigned more than once.
    """
    places: dict[str, list[Assignment]] = {}
    for assignment in assignments(parse(text, name)):
        places.setdefault(assignment.name, []).append(assignment)
    raw = text.encode()
    starts = [0, *(match.end() for match in _LINE_END.finditer(raw))]
    cuts: list[tuple[int, int, bytes]] = []
    for key, value in values.items():
        here = places.get(key, [])
        if not here:
            raise _no_constant(name, key, places)
        if len(here) > 1:
            lines = ", ".join(str(place.first_line) for place in here)
            raise UserError(f"{name}: {key} is assigned on lines {lines}; a constant to set is assigned once")
        node = here[0].node
        try:
            old = evaluate(node)
        except ValueError as error:
            raise UserError(f"{name}:{node.lineno}: {key}: expected a literal to replace, {error}") from None
        new = float(value) if isinstance(old, float) and type(value) is int else value
        if type(new) is type(old) and new == old:
            continue
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        cuts.append((start, end, literal(new).encode()))
    for start, end, replacement in sorted(cuts, reverse=True):
        raw = raw[:start] + replacement + raw[end:]
    return raw.decode()


def write_ranges(text: str, ranges: Mapping[str, str | None]) -> str:
    """The text with these `# tune:` ranges behind module-level constants; None takes a range away.

    What stands behind the range's `;` stays, and so does a comment that was there alone. Raises UserError for a name
    that is no module-level constant.
    """
    last_lines = {assignment.name: assignment.last_line for assignment in assignments(parse(text))}
    if unknown := [name for name in ranges if name not in last_lines]:
        raise _no_constant(TRAINER, unknown[0], last_lines)
    comments = {token.start[0]: token for token in _comments(text)}
    lines = io.StringIO(text, newline="").readlines()
    for name, body in ranges.items():
        number = last_lines[name]
        line, comment = lines[number - 1], comments.get(number)
        code = line.rstrip("\r\n") if comment is None else line[: comment.start[1]]
        ending = line[len(line.rstrip("\r\n")) :]
        told = "" if comment is None else comment.string
        told = told[match.end() :].lstrip("; ") if (match := _TUNE.match(told)) else told.lstrip("# ")
        words = "; ".join(word for word in (f"tune: {body}" if body else "", told) if word)
        lines[number - 1] = code.rstrip() + (f"  # {words}" if words else "") + ending
    return "".join(lines)


def _no_constant(name: str, constant: str, places: Iterable[str]) -> UserError:
    capitals = sorted(place for place in places if place.isupper())
    return UserError(f"{name} has no module-level constant {constant}: {instead(constant, capitals)}")


# Before its trial a proposal's text is needed several times (repeat? fixed constants? tunable?): it is parsed once.
@lru_cache(maxsize=4)
def parse(text: str, name: str = TRAINER) -> ast.Module:
    """The syntax tree. Raises UserError with the line for a text that isn't Python."""
    with python_errors_as_user_error(name):
        return ast.parse(text, name)


@contextmanager
def python_errors_as_user_error(name: str = TRAINER) -> Iterator[None]:
    """Around Python's own parser and compiler. Their warnings are the trainer's author's, and are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SyntaxError as error:
        raise UserError(f"{name}:{error.lineno or 1}: syntax error: {error.msg}") from None
    except ValueError as error:
        raise UserError(f"{name}: no Python source: {error}") from None
    except (RecursionError, MemoryError):
        raise UserError(f"{name}: nested too deeply for Python to parse") from None


def assignments(tree: ast.Module) -> Iterator[Assignment]:
    """Module-level assignments to one name."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target: ast.expr = statement.targets[0]
            value: ast.expr | None = statement.value
        elif isinstance(statement, ast.AnnAssign):
            target, value = statement.target, statement.value
        else:
            continue
        if isinstance(target, ast.Name) and value is not None:
            yield Assignment(target.id, value, statement.lineno, statement.end_lineno or statement.lineno)


@lru_cache(maxsize=4)
def tune_comments(text: str) -> tuple[tuple[int, str], ...]:
    """(line, text between `tune:` and the next `;`) of every `# tune:` comment behind code."""
    matches = ((token.start[0], _TUNE.match(token.string)) for token in _comments(text))
    return tuple((line, match["body"].strip()) for line, match in matches if match)


def _comments(text: str) -> Iterator[tokenize.TokenInfo]:
    """The comments behind code."""
    try:
        code_ends = 0  # the last line that a token of code reaches
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            if token.type == tokenize.COMMENT:
                if token.start[0] == code_ends:
                    yield token
            elif token.type not in _LAYOUT:
                code_ends = token.end[0]
    except (tokenize.TokenError, SyntaxError) as error:
        raise UserError(f"{TRAINER}: can't be read as Python: {error}") from None


def _tunable(name: str, value: Constant, body: str, where: str) -> Tunable:
    if body.startswith("one of"):
        listed = body.removeprefix("one of").strip()
        try:
            choices = tuple(evaluate(node) for node in ast.parse(f"[{listed}]", mode="eval").body.elts)  # type: ignore[attr-defined]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UserError(f"{where}: expected literals behind `one of`, not {listed!r}") from None
        if len(choices) < 2 or any(same(*pair) for pair in combinations(choices, 2)):
            raise UserError(f"{where}: expected two or more different choices, not {listed!r}")
        return Tunable(name=name, value=value, choices=choices)
    match = _RANGE.fullmatch(body)
    if match is None or not (match["kind"] or match["integer"]):
        raise UserError(f"{where}: expected {_FORMS} behind `# tune:`, not {body!r}")
    integer, log = match["integer"] is not None, match["kind"] == "log"
    ends: list[float] = []
    for end in (match["low"], match["high"]):
        try:
            ends.append(float(plain_number(ast.parse(end, mode="eval").body)))
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            raise UserError(f"{where}: {end!r} is no number") from None
    low, high = ends
    given = f"{low:g} .. {high:g}"
    number, types = ("a whole number", (int,)) if integer else ("a number", (int, float))
    for is_wrong, reason in (
        (not low < high, f"expected a range that rises, not {given}"),
        (log and low <= 0, f"a log range starts above 0, not at {low:g}"),
        (integer and not (low.is_integer() and high.is_integer()), f"an int range has whole ends, not {given}"),
        (integer and max(-low, high) > _LARGEST_INT, f"the ends of an int range lie within 2**45 of 0, not {given}"),
        # A step is reflected within twice the range.
        (not log and not math.isfinite(2 * (high - low)), f"expected a range of less than 8.9e307, not {given}"),
        (type(value) not in types, f"a range needs {number} before it, not {value!r}"),
    ):
        if is_wrong:
            raise UserError(f"{where}: {reason}")
    return Tunable(name=name, value=value, low=low, high=high, log=log, integer=integer)
