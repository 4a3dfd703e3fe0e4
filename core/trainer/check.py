"""Whether a trainer's text may be tried. Nothing here runs it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from core.trainer.constants import read_constants, read_tunables, unreadable


def check(text: str, name: str = "train.py") -> None:
    """Raises UserError with the line for a text that Python can't compile or whose `# tune:` comments are wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trainer's SyntaxWarning is its author's
            compile(text, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise unreadable(error, name) from None
    read_tunables(text, name)


def fixed_and_changed(fixed: Sequence[str], champion_text: str, text: str) -> list[str]:
    """The fixed constants that differ between two trainers. Raises UserError for a text that can't be parsed."""
    if not fixed:
        return []
    before, after = read_constants(champion_text), read_constants(text)
    return [name for name in fixed if before.get(name) != after.get(name)]
