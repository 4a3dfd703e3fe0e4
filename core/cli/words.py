"""The words [DIR] N [PART] of `show` and `transcript`: which is the folder, which the number, which the part."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from core.records import UserError, unknown

PARTS = ("diff", "hypothesis", "curve", "output", "train.py")  # of an experiment, as `show` prints them


def split_words(words: Sequence[str], parts: Sequence[str] = ()) -> tuple[Path | None, int | None, str]:
    """What `[DIR] [N] [PART]` means: the campaign's folder, the experiment's number, and one of `parts` or "".

    The last whole number is the experiment's; the word before it is a folder, also if it is a number, and the one
    behind it a part. UserError if a word is left over.
    """
    numbers = [place for place, word in enumerate(words) if word.isdecimal()]
    place = numbers[-1] if numbers else len(words)
    before, behind = words[:place], words[place + 1 :]
    if len(before) > 1 or len(behind) > bool(parts):
        expected = "[DIR] N [PART]" if parts else "[DIR] [N]"
        raise UserError(
            f"expected {expected}, as in `night 3{' ' + parts[0] if parts else ''}`, got {shlex.join(words)!r}"
        )
    if behind and behind[0] not in parts:
        raise unknown("part", behind[0], parts)
    return Path(before[0]) if before else None, int(words[place]) if numbers else None, behind[0] if behind else ""
