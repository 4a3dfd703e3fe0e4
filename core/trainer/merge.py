"""Carries edits of a trainer from one text to another: constants by their values, the rest by a merge of lines.

Nothing here knows what a constant means, but that a size or a logarithmic one is carried in proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.records import CONSTANT_FIELDS, Constant, UserError
from core.trainer.check import check
from core.trainer.constants import read_constants, read_tunables, write_constants
from core.trainer.literals import is_number, same

MergeLines = Callable[[str, str, str], str | None]  # (base, ours, theirs): the merged text; None where edits overlap


@dataclass(frozen=True)
class Merged:
    """The merged text, None where both sides changed the same lines; and the constants of which `ours` stands."""

    text: str | None
    ours: tuple[str, ...] = ()


def merge(base: str, ours: str, theirs: str, merge_lines: MergeLines) -> Merged:
    """`ours` with what `theirs` changed in `base`.

    A constant merges by its value, whatever happened on the lines beside it; where both changed it, `ours` stands.
    Raises UserError for a text that can't be parsed, also for a merged one.
    """
    texts = [base, ours, theirs]
    before, own, other = (read_constants(text) for text in texts)
    both, values = [], dict[str, Constant]()
    for name in before.keys() & own.keys() & other.keys():
        if same(before[name], other[name]) or same(own[name], other[name]):
            values[name] = own[name]
        elif same(before[name], own[name]):
            values[name] = other[name]
        else:
            values[name] = own[name]
            both.append(name)
    for name, value in values.items():
        try:
            texts = [write_constants(text, {name: value}) for text in texts]
        except UserError:  # assigned twice in one of them: its lines are merged like any others
            continue
    text = merge_lines(*texts)
    if text is not None:
        check(text)
    return Merged(text, tuple(sorted(both)))


def followed(name: str, before: Constant, after: Constant, now: Constant, text: str) -> Constant:
    """An edit `before` -> `after` of a constant, carried to where its unedited value is `now`.

    Sizes and what `text` marks as logarithmic are carried in proportion, all else as it is.
    """
    if same(before, after):
        return now
    if same(before, now):
        return after
    tunable = read_tunables(text).get(name)
    in_proportion = name in CONSTANT_FIELDS or (tunable is not None and tunable.log)
    if not (in_proportion and all(is_number(one) and one > 0 for one in (before, after, now))):
        return after
    assert is_number(before) and is_number(after) and is_number(now)
    value = now * after / before
    return max(1, round(value)) if isinstance(now, int) else value


def changed_constants(before: str, after: str) -> dict[str, tuple[Constant, Constant]]:
    """The constants of both texts whose values differ, each with both values."""
    old, new = read_constants(before), read_constants(after)
    return {name: (old[name], new[name]) for name in new if name in old and not same(old[name], new[name])}


def with_constants(text: str, values: Mapping[str, Constant]) -> str:
    """The text with those of the values set whose names it has as constants."""
    has = read_constants(text)
    return write_constants(text, {name: value for name, value in values.items() if name in has})
