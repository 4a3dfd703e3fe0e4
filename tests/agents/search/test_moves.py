"""Values of one constant: what is allowed, where it lies, a step, a draw."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.agents.search import moves
from core.records import Constant
from core.trainer.constants import Tunable, read_tunables


def one(line: str) -> Tunable:
    return read_tunables(line + "\n")["A"]


LINES = (
    "A = 0.1  # tune: log 0.001 .. 10",
    "A = 0.5  # tune: linear 0 .. 1",
    "A = 3  # tune: int 2 .. 8",
    "A = 512  # tune: log int 64 .. 4096",
    "A = 64  # tune: one of 32, 64, 128",
    'A = "L"  # tune: one of "L", "SL", "SSSL"',
    "A = (0.8, 0.95)  # tune: one of (0.8, 0.95), (0.9, 0.95)",
    "A = True  # tune: one of True, False",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("move", [moves.step, moves.draw])
def test_a_move_stays_among_what_is_allowed_and_reaches_all_of_it(line: str, move) -> None:  # type: ignore[no-untyped-def]
    tunable, rng = one(line), np.random.default_rng(1)
    values: list[Constant] = [move(rng, tunable) for _ in range(600)]
    assert all(moves.allowed(tunable, value) and type(value) is type(tunable.value) for value in values)
    if tunable.choices is not None:
        wanted = set(tunable.choices) - ({tunable.value} if move is moves.step else set())
        assert set(values) == wanted
    else:
        places = [moves.place(tunable, value) or 0.0 for value in values]
        assert min(places) < 0.1 and max(places) > 0.9


def test_small_steps_are_more_common_than_large_ones() -> None:
    rng = np.random.default_rng(0)
    tunable = one(LINES[0])
    steps = [abs(math.log(float(str(moves.step(rng, tunable))) / 0.1)) / math.log(10_000) for _ in range(2000)]
    near, far = (sum(low <= step < low + 0.1 for step in steps) for low in (0, 0.4))
    assert near > 4 * far > 0


def test_a_step_of_a_whole_number_moves() -> None:
    rng = np.random.default_rng(0)
    assert 5 not in {moves.step(rng, one("A = 5  # tune: int 0 .. 100")) for _ in range(300)}


@pytest.mark.parametrize(
    ("line", "value", "wanted"),
    [
        (LINES[0], 0.1, 0.5),
        (LINES[0], 0, -1.0),  # no logarithm
        (LINES[3], 2**9000, 2.0),
        (LINES[2], -(2**9000), -1.0),
        (LINES[4], 2**9000, 1.0),
        (LINES[1], 9.0, 2.0),  # no farther away than a range's length
        (LINES[2], 5, 0.5),
        (LINES[4], 64, 0.5),
        (LINES[4], 48, 0.25),  # an earlier champion's, whose choices were others
        (LINES[5], "SL", 1.0),
        (LINES[5], "LLL", -1.0),
        (LINES[7], False, 1.0),
        (LINES[1], "half", None),
        (LINES[2], True, None),
    ],
)
def test_places(line: str, value: Constant, wanted: float | None) -> None:
    assert moves.place(one(line), value) == (None if wanted is None else pytest.approx(wanted))


def test_what_is_allowed() -> None:
    assert moves.allowed(one(LINES[1]), 1) and not moves.allowed(one(LINES[1]), 1.01)
    assert not moves.allowed(one(LINES[2]), 2.0)
    assert not moves.allowed(one(LINES[7]), 1)  # which equals True
    assert moves.allowed(one(LINES[6]), (0.9, 0.95))
