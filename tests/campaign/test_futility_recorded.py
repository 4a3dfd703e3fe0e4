"""The futility stop on recorded curves: real trials of 20 s, as a campaign that learns as it goes."""

from __future__ import annotations

import pytest

from benchmarks import futility
from benchmarks.futility import Replayed
from benchmarks.record_curves import CURVES

pytestmark = pytest.mark.skipif(not CURVES.exists(), reason="benchmarks/record_curves.py has recorded nothing yet")


@pytest.fixture(scope="module")
def played() -> list[Replayed]:
    proposals, noise = futility.recorded("proposal"), futility.noise_of(futility.recorded("repeat"))
    return list(futility.replay(futility.first_champion(), proposals, noise))


def test_it_stops_none_that_would_have_been_kept(played: list[Replayed]) -> None:
    stopped = [one for one in played if one.stopped is not None]
    assert len(stopped) >= len(played) // 4
    assert [one.number for one in stopped if one.worse < 0] == []
    assert min(one.stopped or 1.0 for one in stopped) >= 0.15


def test_it_saves_half_of_the_time_of_those_far_behind(played: list[Replayed]) -> None:
    found = futility.figures(played, 0.0)
    assert found["worse"] >= 5
    assert found["saved_of_worse"] >= 0.5


def test_a_rule_knows_only_what_ran_before(played: list[Replayed]) -> None:
    proposals, noise = futility.recorded("proposal"), futility.noise_of(futility.recorded("repeat"))
    half = len(proposals) // 2
    first = futility.first_champion()
    assert list(futility.replay(first, proposals[:half], noise)) == played[:half]


def test_the_worse_a_candidate_the_more_is_saved() -> None:
    shares = [futility.saved_share(worse, 0.01) for worse in (-0.01, 0.0, 0.02, 0.1, 0.3, 1.0)]
    assert shares == sorted(shares) and shares[:2] == [0.0, 0.0] and 0.5 < shares[-1] <= 0.85
    assert futility.saved_share(0.3, 1.0) < futility.saved_share(0.3, 0.01)
