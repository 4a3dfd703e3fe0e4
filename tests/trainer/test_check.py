"""Refuses texts that need no trial to fail."""

from __future__ import annotations

import pytest

from core.trainer.check import Refusal, refusal

CHAMPION = "A = 1  # tune: int 1 .. 9\nB = 2\n\n\ndef main():\n    pass\n"


@pytest.mark.parametrize(
    ("old", "new", "fixed", "verdict", "reason"),
    [
        ("pass", "pass +", (), "crash", "train.py:6: syntax error"),
        ("pass", "return\n    nonlocal A", (), "crash", "train.py:7: syntax error"),  # parses, and does not compile
        ("int 1", "whole 1", (), "crash", "train.py:1: A: expected"),
        ("B = 2", "B = 3", ("A", "B"), "invalid", "changes B, which program.md fixes"),
        ("B = 2\n", "", ("B",), "invalid", "changes B, which program.md fixes"),
        ("pass", "pass +", ("A",), "crash", "train.py:6: syntax error"),
    ],
)
def test_a_text_is_refused_with_its_verdict(
    old: str, new: str, fixed: tuple[str, ...], verdict: str, reason: str
) -> None:
    refused = refusal(CHAMPION.replace(old, new), CHAMPION, fixed)
    assert isinstance(refused, Refusal) and refused.verdict == verdict and reason in refused.reason


def test_any_other_text_may_be_tried() -> None:
    assert refusal(CHAMPION, CHAMPION, ("A", "B", "not there")) is None
    assert refusal(CHAMPION.replace("B = 2", "B = 3"), CHAMPION, ("A",)) is None
    assert refusal(CHAMPION.replace("pass", "1 / 0"), "no Python, and nothing is fixed", ()) is None
