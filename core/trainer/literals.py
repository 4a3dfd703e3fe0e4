"""The value of a literal in a trainer's syntax tree, and the literal of a value."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from core.records import Constant, UserError

_LARGEST_EXPONENT = 1024  # of a constant written as a power; keeps `9 ** 9 ** 9` from taking the night
# Of an integer: Python writes one of more digits than `sys.set_int_max_str_digits` allows, 640 at least, only in hex.
MOST_BITS = 2048
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow,
}  # fmt: skip


def literal(value: Constant) -> str:
    """The Python literal of a constant, strings in double quotes. Raises UserError for what has no literal."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UserError(f"a constant has at most {MOST_BITS} bits, not {value.bit_length()}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"a constant is a finite number, not {value}")
    if isinstance(value, tuple):
        return "(" + ", ".join(literal(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, str):
        plain = repr(value)
        return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain and "\\'" not in plain else plain
    return repr(value)


def same(one: Constant, other: Constant) -> bool:
    """Whether a search takes two constants for one: 1 and 1.0 are, True and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def changed_values(before: Mapping[str, Constant], after: Mapping[str, Constant]) -> str:
    """`NAME old -> new` for each constant of both that differs; empty for none."""
    changed = [name for name in after if name in before and not same(before[name], after[name])]
    return ", ".join(f"{name} {literal(before[name])} -> {literal(after[name])}" for name in changed)


def is_number(value: Constant) -> TypeGuard[int | float]:
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def evaluate(node: ast.expr) -> Constant:
    """The value of a literal, or of arithmetic on numbers; ValueError says what the expression is instead."""
    try:
        return _literal_value(node)
    except RecursionError:
        raise ValueError("not nested so deeply") from None


def _literal_value(node: ast.expr) -> Constant:
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value if isinstance(node.value, (bool, str)) else _bounded(node.value, node)
    if isinstance(node, (ast.Tuple, ast.List)):
        items = [_literal_value(item) for item in node.elts]
        numbers = [item for item in items if is_number(item)]
        if isinstance(node, ast.List) or len(numbers) < len(items):
            raise ValueError("not a list or a mixed tuple")
        return tuple(numbers)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand = plain_number(node.operand)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        return _arithmetic(node)
    raise ValueError(f"not {ast.unparse(node) if isinstance(node, ast.Constant) else type(node).__name__}")


def _arithmetic(node: ast.BinOp) -> int | float:
    left, right = plain_number(node.left), plain_number(node.right)
    operate = _OPERATORS.get(type(node.op))
    is_power = isinstance(node.op, ast.Pow)
    if operate is None or (is_power and (abs(right) > _LARGEST_EXPONENT or abs(left) > 2**64)):
        raise ValueError(f"not {ast.unparse(node)}")
    try:
        result = operate(left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"not {ast.unparse(node)} ({error})") from None
    if isinstance(result, complex):
        raise ValueError("not a complex number")
    return _bounded(result, node)


def _bounded(value: float, node: ast.expr) -> int | float:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ValueError(f"not an integer of more than {MOST_BITS} bits")
    if not math.isfinite(value):
        raise ValueError(f"not {ast.unparse(node)}")
    return value


def plain_number(node: ast.expr) -> int | float:
    """The value of a number or of arithmetic on numbers; ValueError for anything else."""
    value = _literal_value(node)
    if not is_number(value):
        raise ValueError(f"not arithmetic on {type(value).__name__}")
    return value
