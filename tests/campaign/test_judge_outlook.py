"""What a run can show, said before it begins."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.campaign.judge.outlook import experiments_in, outlook, smallest_gain


@pytest.mark.parametrize(("experiments", "pairs"), [(12, 4), (100, 4), (30, 1)])
def test_the_luckiest_change_that_does_nothing_shows_that_gain(experiments: int, pairs: int) -> None:
    """By drawing: as many null changes as the run has experiments, each measured over as many pairs."""
    draw = random.Random(experiments)

    def luckiest() -> float:
        return max(
            statistics.fmean(draw.gauss(0, 0.01) - draw.gauss(0, 0.01) for _ in range(pairs))
            for _ in range(experiments)
        )

    found = statistics.fmean(luckiest() for _ in range(300))
    assert found == pytest.approx(smallest_gain(0.01, experiments, pairs), rel=0.06)


@settings(deadline=None)
@given(st.floats(1e-5, 0.1), st.integers(1, 1000), st.integers(1, 8))
def test_more_experiments_need_a_larger_gain_and_more_pairs_a_smaller_one(noise: float, count: int, pairs: int) -> None:
    gain = smallest_gain(noise, count, pairs)
    assert smallest_gain(noise, count + 1, pairs) >= gain > smallest_gain(noise, count, pairs + 1) > 0
    assert smallest_gain(2 * noise, count, pairs) == pytest.approx(2 * gain)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            dict(noise=0.0089, spread=0.015, experiments=12.0),
            "12 experiments at a spread of 0.015: gains under 0.010 will not be told from luck",
        ),
        (
            dict(noise=0.00042, spread=None, experiments=1.0),
            "1 experiment at a deviation of 0.00042: gains under 0.00030 will not be told from luck",
        ),
        (
            dict(noise=0.01, spread=0.017, experiments=math.inf),
            "100 experiments (there is no limit) at a spread of 0.017: gains under 0.018 will not be told from luck",
        ),
        (dict(noise=0.0, spread=0.0, experiments=5.0), "the baseline's seeds do not differ: every gain shows"),
        (dict(noise=None, spread=None, experiments=5.0), "the noise is unknown, as the baseline ran with one seed"),
        (dict(noise=0.01, spread=0.02, experiments=0.0), ""),
    ],
)
def test_the_line(values: dict[str, float | None], said: str) -> None:
    line = outlook(**values)  # type: ignore[arg-type]
    assert line.startswith(said) and bool(line) == bool(said)


def test_hours_have_room_for_so_many_experiments() -> None:
    assert experiments_in(3600.0, math.inf, 300.0) == 12
    assert experiments_in(3600.0, 5, 300.0) == 5
    assert experiments_in(math.inf, 7, 300.0) == 7
    assert experiments_in(math.inf, math.inf, 300.0) == math.inf
    assert experiments_in(-5.0, 7, 300.0) == 0
