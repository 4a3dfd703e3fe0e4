"""Student's t against published tables, and the interval against what a 95 % interval is."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.statistics import interval, quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "t"),
    [  # Abramowitz and Stegun, table 26.10, and any textbook since
        (0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 3, 3.1824), (0.975, 4, 2.7764), (0.975, 5, 2.5706),
        (0.975, 9, 2.2622), (0.975, 30, 2.0423), (0.975, 120, 1.9799), (0.95, 2, 2.9200), (0.995, 2, 9.9248),
        (0.995, 9, 3.2498), (0.9995, 4, 8.6103), (0.75, 1, 1.0), (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(probability: float, freedom: int, t: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(t, abs=5e-5)


@given(st.floats(0.51, 0.999))
def test_closed_forms(probability: float) -> None:
    assert quantile(probability, 1) == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-9)
    alpha = 4 * probability * (1 - probability)
    assert quantile(probability, 2) == pytest.approx(2 * (probability - 0.5) * math.sqrt(2 / alpha), rel=1e-9)


@given(st.floats(0.6, 0.999), st.integers(1, 60))
def test_it_falls_towards_the_normal_with_more_freedom(probability: float, freedom: int) -> None:
    normal = NormalDist().inv_cdf(probability)
    assert quantile(probability, freedom) > quantile(probability, freedom + 1) > normal
    assert quantile(probability, 5000) == pytest.approx(normal, rel=2e-3)


def test_an_interval_of_three_differences() -> None:
    found = interval([0.010, 0.012, 0.014])
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0.012), 3)
    assert found.half_width == pytest.approx(4.3027 * 0.002 / math.sqrt(3), rel=1e-4)
    assert found.above_zero
    assert interval([0.012]) is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(-5, 5))
def test_an_interval_moves_with_its_differences(differences: list[float], by: float) -> None:
    found, moved = interval(differences), interval([one + by for one in differences])
    assert found is not None and moved is not None
    assert moved.mean == pytest.approx(found.mean + by, abs=1e-9)
    assert moved.half_width == pytest.approx(found.half_width, abs=1e-9)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    draw = random.Random(5)
    trials = 4000
    held = 0
    for _ in range(trials):
        found = interval([draw.gauss(0.3, 1.0) for _ in range(3)])
        assert found is not None
        held += abs(found.mean - 0.3) <= found.half_width
    assert held / trials == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / trials))
