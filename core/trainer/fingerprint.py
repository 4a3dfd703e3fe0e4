"""Whether two trainers, or parts of them, are the same but for layout and comments."""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache

from core.records import UserError
from core.trainer.constants import assignments, parse, python_errors_as_user_error, tune_comments
from core.trainer.literals import MOST_BITS


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
