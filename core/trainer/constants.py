"""The trainer's constants as data: reads `# tune:` comments, changes literals in place, and fingerprints a text.

Nothing here runs a trainer's code or knows what its constants mean.
"""

from __future__ import annotations

import ast
import hashlib
import io
import math
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from core.records import Constant, UserError

_TUNE = re.compile(r"#\s*tune\s*:\s*(?P<body>[^;]*)")
_RANGE = re.compile(r"(?P<kind>log|linear)?\s*(?P<integer>int)?\s*(?P<low>\S+)\s*\.\.\s*(?P<high>\S+)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_FORMS = "`log 0.005 .. 0.2`, `linear 0 .. 0.9`, `int 2 .. 12`, `log int 1024 .. 65536` or `one of 64, 128`"
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
_LARGEST_EXPONENT = 1024  # of a constant written as a power; keeps `9 ** 9 ** 9` from taking the night
# Of an integer: Python writes one of more digits than `sys.set_int_max_str_digits` allows, 640 at least, only in hex.
_MOST_BITS = 2048
_LARGEST_INT = 2.0**45  # of an int range: a search moves in float64, whose whole numbers end at 2**53


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


@dataclass(frozen=True)
class _Assignment:
    name: str
    node: ast.expr
    first_line: int
    last_line: int


def check(text: str, name: str = "train.py") -> None:
    """Raises UserError with the line for a text that Python can't compile or whose `# tune:` comments are wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trainer's SyntaxWarning is its author's
            compile(text, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _syntax(error, name) from None
    read(text, name)


def read(text: str, name: str = "train.py") -> dict[str, Tunable]:
    """The tunable constants in the order of the text.

    Raises UserError with the line for a syntax error, a `# tune:` comment of an unknown form, and one that stands
    behind anything but a module-level `NAME = literal`.
    """
    tree = _parse(text, name)
    by_line = {assignment.last_line: assignment for assignment in _assignments(tree)}
    found: dict[str, Tunable] = {}
    for line, body in _tune_comments(text, name):
        assignment = by_line.get(line)
        where = f"{name}:{line}"
        if assignment is None:
            raise UserError(
                f"{where}: a `# tune:` comment stands behind a module-level `NAME = value`, and none is here"
            )
        if assignment.name in found:
            raise UserError(f"{where}: {assignment.name} is assigned twice; a tunable constant is assigned once")
        try:
            value = _value(assignment.node)
        except ValueError as error:
            raise UserError(f"{where}: {assignment.name}: a tunable constant is a literal, {error}") from None
        found[assignment.name] = _tunable(assignment.name, value, body, where)
    return found


def constants(text: str, name: str = "train.py") -> dict[str, Constant]:
    """Every module-level constant whose name is in capitals and whose value is a literal or arithmetic on literals."""
    values: dict[str, Constant] = {}
    for assignment in _assignments(_parse(text, name)):
        if assignment.name.isupper():
            try:
                values[assignment.name] = _value(assignment.node)
            except ValueError:
                values.pop(assignment.name, None)
    return values


def write(text: str, values: Mapping[str, Constant], name: str = "train.py") -> str:
    """The text with these module-level constants set: only their literals change, comments and layout stay.

    Raises UserError for a name that is no module-level `NAME = literal`, or that is assigned more than once.
    """
    places: dict[str, list[_Assignment]] = {}
    for assignment in _assignments(_parse(text, name)):
        places.setdefault(assignment.name, []).append(assignment)
    raw = text.encode()
    starts = [0, *(match.end() for match in _LINE_END.finditer(raw))]
    cuts: list[tuple[int, int, bytes]] = []
    for key, value in values.items():
        here = places.get(key, [])
        if not here:
            known = ", ".join(sorted(place for place in places if place.isupper())) or "none"
            raise UserError(f"{name} has no module-level constant {key}; it has {known}")
        if len(here) > 1:
            lines = ", ".join(str(place.first_line) for place in here)
            raise UserError(f"{name}: {key} is assigned on lines {lines}; a constant to set is assigned once")
        node = here[0].node
        try:
            old = _value(node)
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


@lru_cache(maxsize=4)
def fingerprint(text: str, name: str = "train.py") -> str:
    """A hash of the syntax tree and the `# tune:` comments: layout and other comments don't count.

    The same on every Python version that parses the text to the same tree. Raises UserError for a syntax error.
    """
    tree = _parse(text, name)
    words = [canonical(tree, name)]
    names = {assignment.last_line: assignment.name for assignment in _assignments(tree)}
    words += [f"tune {names.get(line, '')}: {' '.join(body.split())}" for line, body in _tune_comments(text, name)]
    return hashlib.sha256("\0".join(words).encode("utf-8", "backslashreplace")).hexdigest()


def fixed_and_changed(fixed: Sequence[str], champion_text: str, text: str) -> list[str]:
    """The fixed constants that differ between two trainers. Raises UserError for a text that can't be parsed."""
    if not fixed:
        return []
    before, after = constants(champion_text), constants(text)
    return [name for name in fixed if before.get(name) != after.get(name)]


def same(one: Constant, other: Constant) -> bool:
    """Whether a search takes two constants for one: 1 and 1.0 are, True and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def canonical(node: ast.AST, name: str = "train.py") -> str:
    """A part of a trainer's syntax tree as text, the same on every Python version. UserError if it is nested too deep.

    Equal texts are equal parts.
    """
    words: list[str] = []
    try:
        _canonical(node, words)
    except RecursionError as error:
        raise _syntax(error, name) from None
    return "\0".join(words)


def literal(value: Constant) -> str:
    """The Python literal of a constant, strings in double quotes. Raises UserError for what has no literal."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise UserError(f"a constant has at most {_MOST_BITS} bits, not {value.bit_length()}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"a constant is a finite number, not {value}")
    if isinstance(value, tuple):
        return "(" + ", ".join(literal(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, str):
        plain = repr(value)
        return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain and "\\'" not in plain else plain
    return repr(value)


# A proposal's text is looked at several times before its trial (repeat? fixed constants? tunable?), and parsed once.
@lru_cache(maxsize=4)
def _parse(text: str, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _syntax(error, name) from None


def _syntax(error: BaseException, name: str) -> UserError:
    if isinstance(error, SyntaxError):
        return UserError(f"{name}:{error.lineno or 1}: syntax error: {error.msg}")
    if isinstance(error, ValueError):
        return UserError(f"{name}: no Python source: {error}")
    return UserError(f"{name}: nested too deeply for Python to parse")


def _assignments(tree: ast.Module) -> Iterator[_Assignment]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target: ast.expr = statement.targets[0]
            value: ast.expr | None = statement.value
        elif isinstance(statement, ast.AnnAssign):
            target, value = statement.target, statement.value
        else:
            continue
        if isinstance(target, ast.Name) and value is not None:
            yield _Assignment(target.id, value, statement.lineno, statement.end_lineno or statement.lineno)


@lru_cache(maxsize=4)
def _tune_comments(text: str, name: str) -> tuple[tuple[int, str], ...]:
    """(line, what stands between `tune:` and the next `;`) of every comment that trails code."""
    found: list[tuple[int, str]] = []
    try:
        code_ends = 0  # the last line that a token of code reaches
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            if token.type == tokenize.COMMENT:
                if token.start[0] == code_ends and (match := _TUNE.match(token.string)):
                    found.append((token.start[0], match["body"].strip()))
            elif token.type not in _LAYOUT:
                code_ends = token.end[0]
    except (tokenize.TokenError, SyntaxError) as error:
        raise UserError(f"{name}: can't be read as Python: {error}") from None
    return tuple(found)


def _tunable(name: str, value: Constant, body: str, where: str) -> Tunable:
    if body.startswith("one of"):
        listed = body.removeprefix("one of").strip()
        try:
            choices = tuple(_value(node) for node in ast.parse(f"[{listed}]", mode="eval").body.elts)  # type: ignore[attr-defined]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UserError(f"{where}: {name}: expected literals behind `one of`, not {listed!r}") from None
        if len(choices) < 2 or any(same(*pair) for pair in combinations(choices, 2)):
            raise UserError(f"{where}: {name}: expected two or more different choices, not {listed!r}")
        return Tunable(name=name, value=value, choices=choices)
    match = _RANGE.fullmatch(body)
    if match is None or not (match["kind"] or match["integer"]):
        raise UserError(f"{where}: {name}: expected {_FORMS} behind `# tune:`, not {body!r}")
    integer, log = match["integer"] is not None, match["kind"] == "log"
    ends: list[float] = []
    for end in (match["low"], match["high"]):
        try:
            ends.append(_number(end))
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            raise UserError(f"{where}: {name}: {end!r} is no number") from None
    low, high = ends
    if not low < high:
        raise UserError(f"{where}: {name}: expected a range that rises, not {low:g} .. {high:g}")
    if log and low <= 0:
        raise UserError(f"{where}: {name}: a log range starts above 0, not at {low:g}")
    if integer and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{where}: {name}: an int range has whole ends, not {low:g} .. {high:g}")
    if integer and max(-low, high) > _LARGEST_INT:
        raise UserError(f"{where}: {name}: the ends of an int range lie within 2**45 of 0, not {low:g} .. {high:g}")
    if not log and not math.isfinite(2 * (high - low)):  # a step is reflected within twice the range
        raise UserError(f"{where}: {name}: expected a range of less than 8.9e307, not {low:g} .. {high:g}")
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
        raise UserError(
            f"{where}: {name}: a range needs {'a whole' if integer else 'a'} number before it, not {value!r}"
        )
    return Tunable(name=name, value=value, low=low, high=high, log=log, integer=integer)


def _number(text: str) -> float:
    value = _value(ast.parse(text, mode="eval").body)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(text)
    return float(value)


def _value(node: ast.expr) -> Constant:
    """The value of a literal, or of arithmetic on numbers; ValueError says what the expression is instead."""
    try:
        return _literal_value(node)
    except RecursionError:
        raise ValueError("not nested so deeply") from None


def _literal_value(node: ast.expr) -> Constant:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int) and node.value.bit_length() > _MOST_BITS:
            raise ValueError(f"not an integer of more than {_MOST_BITS} bits")
        if isinstance(node.value, (bool, int, str)):
            return node.value
        if isinstance(node.value, float) and math.isfinite(node.value):
            return node.value
        raise ValueError(f"not {ast.unparse(node)}")
    if isinstance(node, (ast.Tuple, ast.List)):
        items = [_literal_value(item) for item in node.elts]
        numbers = [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]
        if isinstance(node, ast.List) or len(numbers) < len(items):
            raise ValueError("not a list or a mixed tuple")
        return tuple(numbers)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand = _plain_number(node.operand)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        return _arithmetic(node)
    raise ValueError(f"not {type(node).__name__}")


def _arithmetic(node: ast.BinOp) -> int | float:
    left, right = _plain_number(node.left), _plain_number(node.right)
    result: int | float
    try:
        match node.op:
            case ast.Add():
                result = left + right
            case ast.Sub():
                result = left - right
            case ast.Mult():
                result = left * right
            case ast.Div():
                result = left / right
            case ast.FloorDiv():
                result = left // right
            case ast.Pow() if abs(right) <= _LARGEST_EXPONENT and abs(left) <= 2**64:
                power = left**right
                if isinstance(power, complex):
                    raise ValueError("not a complex number")
                result = power
            case _:
                raise ValueError(f"not {ast.unparse(node)}")
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"not {ast.unparse(node)} ({error})") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"not {ast.unparse(node)}")
    if isinstance(result, int) and result.bit_length() > _MOST_BITS:
        raise ValueError(f"not an integer of more than {_MOST_BITS} bits")
    return result


def _plain_number(node: ast.expr) -> int | float:
    value = _literal_value(node)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"not arithmetic on {type(value).__name__}")
    return value


def _canonical(node: object, into: list[str]) -> None:
    """A tree as words that don't depend on the Python version: what is absent or empty is left out."""
    if isinstance(node, ast.AST):
        into.append("(" + type(node).__name__)
        is_constant = isinstance(node, ast.Constant)
        for field, value in ast.iter_fields(node):
            if field in {"kind", "type_comment"} or value == [] or (value is None and not is_constant):
                continue
            into.append("." + field)
            _canonical(value, into)
        into.append(")")
    elif isinstance(node, list):
        into.append("[")
        for item in node:
            _canonical(item, into)
        into.append("]")
    elif isinstance(node, int) and node.bit_length() > _MOST_BITS:
        into.append(f"int:{node:#x}")
    else:
        into.append(f"{type(node).__name__}:{node!r}")
