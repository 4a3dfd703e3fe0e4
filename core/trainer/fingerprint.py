"""Whether two trainers, or parts of them, are the same but for layout and comments, and how large one is."""

from __future__ import annotations

import ast
import hashlib
from collections import deque
from functools import lru_cache

from core.records import UserError
from core.trainer.constants import assignments, parse, python_errors_as_user_error, tune_comments
from core.trainer.literals import MOST_BITS

NODES_PER_LINE = 9.5  # of code in the reference trainers for torch, jax and mlx: 9.4 to 9.5
_CHARACTERS_PER_NODE = 3  # of terse code; the reference trainers have 5.7


@lru_cache(maxsize=4)
def fingerprint(text: str) -> str:
    """A hash of the syntax tree and the `# tune:` comments: layout and other comments don't count.

    The same on every Python version that parses the text to the same tree. For a text that can't be parsed it is a
    hash of its bytes.
    """
    try:
        tree = parse(text)
        words = [canonical(tree)]
        names = {assignment.last_line: assignment.name for assignment in assignments(tree)}
        words += [f"tune {names.get(line, '')}: {' '.join(body.split())}" for line, body in tune_comments(text)]
    except UserError:
        return "text-" + _hash(text)
    return _hash("\0".join(words))


@lru_cache(maxsize=8)
def nodes(text: str) -> int | None:
    """How large a trainer is: nodes of its syntax tree; None for a text that can't be parsed.

    Docstrings, comments, layout and the length of names don't count. A string or a large number counts as the code that
    it could hold, so that packing code into one makes nothing smaller.
    """
    try:
        tree = parse(text)
    except UserError:
        return None
    count, left = 0, deque[ast.AST]([tree])
    while left:
        node = left.pop()
        count += 1
        if isinstance(node, ast.Constant):
            count += _held(node.value)
        left += (
            part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr_context) and not _is_note(part)
        )
    return count


def _is_note(node: ast.AST) -> bool:
    """Whether it is a string that stands alone: a docstring, or a comment in its place."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _held(value: object) -> int:
    """The nodes that a constant's value could hold beyond its own."""
    if isinstance(value, (str, bytes)):
        return len(value) // _CHARACTERS_PER_NODE
    return value.bit_length() // (8 * _CHARACTERS_PER_NODE) if isinstance(value, int) else 0


def canonical(node: ast.AST) -> str:
    """A part of a trainer's syntax tree as text, equal for equal parts on every Python version.

    Raises UserError if it is nested too deeply.
    """
    words: list[str] = []
    with python_errors_as_user_error():
        _add_words(node, words)
    return "\0".join(words)


def _add_words(node: object, into: list[str]) -> None:
    """Appends words that don't depend on the Python version: absent and empty fields are left out."""
    if isinstance(node, ast.AST):
        into.append("(" + type(node).__name__)
        is_constant = isinstance(node, ast.Constant)
        for field, value in ast.iter_fields(node):
            if field in {"kind", "type_comment"} or value == [] or (value is None and not is_constant):
                continue
            into.append("." + field)
            _add_words(value, into)
        into.append(")")
    elif isinstance(node, list):
        into.append("[")
        for item in node:
            _add_words(item, into)
        into.append("]")
    elif isinstance(node, int) and node.bit_length() > MOST_BITS:
        into.append(f"int:{node:#x}")
    else:
        into.append(f"{type(node).__name__}:{node!r}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
