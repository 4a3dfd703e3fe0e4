"""When a trial is stopped: losses against the champion's at equal progress, batch by batch where batches are equal."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.trial.stop_rule import (
    LEAST_PROGRESS,
    NEVER,
    LossCurve,
    SmoothCurve,
    StopDetector,
    StopRule,
    recent_mean,
)

BATCHES = (32, 256, 1)


def run(
    steps: int,
    *,
    above: float = 0.0,
    first: float = 0.0,
    noise: float = 0.1,
    batches: tuple[int, int, int] = BATCHES,
) -> LossCurve:
    """A run of so many steps in its time, whose loss falls with progress; each batch has its own difficulty."""
    difficulty = np.random.default_rng(batches).normal(0, noise, 4096)
    progress = (np.arange(steps) + 1) / steps
    loss = 4 + 3 * np.exp(-4 * progress) + difficulty[:steps] + above
    loss[0] = 7.0 + first
    return LossCurve(
        points=tuple((step + 1, float(p), float(y)) for step, (p, y) in enumerate(zip(progress, loss, strict=True))),
        batches=batches,
    )


def rule(champion: LossCurve, margin: float = 0.2, other: float = 0.4) -> StopRule:
    places = (LEAST_PROGRESS, 0.5, 0.95)
    return StopRule(champion=champion, progress=places, equal=(margin,) * 3, other=(other,) * 3, chance=0.01)


def stopped_at(rule: StopRule, curve: LossCurve) -> float | None:
    detector = StopDetector(rule, curve.batches)
    return next((point[1] for point in curve.points if detector.add(*point)), None)


@pytest.mark.parametrize("steps", [8, 30, 1000])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_where_batches_are_equal_their_difficulty_cancels(steps: int, noise: float) -> None:
    champion, worse = run(steps, noise=noise), run(steps, noise=noise, above=0.25)
    np.testing.assert_allclose(SmoothCurve(champion).differences(worse.points, BATCHES)[1:], 0.25)
    found = stopped_at(rule(champion), worse)
    assert found is not None and LEAST_PROGRESS <= found <= max(0.25, LEAST_PROGRESS + 1 / steps)
    assert stopped_at(rule(champion), run(steps, noise=noise, above=0.19)) is None


@pytest.mark.parametrize("steps", [60, 120, 240])
def test_a_trainer_of_another_speed_is_compared_at_equal_progress(steps: int) -> None:
    champion, other = run(120), run(steps)
    above = SmoothCurve(champion).differences(other.points, BATCHES)
    late = np.array([point[1] for point in other.points]) > LEAST_PROGRESS
    assert abs(above[late].mean()) < 0.05
    assert stopped_at(rule(champion), other) is None


def test_other_batches_have_their_own_margin() -> None:
    champion = run(200)
    for other in ((16, 512, 1), (32, 256, 2)):
        assert stopped_at(rule(champion), run(200, above=0.3, batches=other)) is None
        assert stopped_at(rule(champion), run(200, above=0.5, batches=other)) is not None


def test_nothing_is_stopped_before_the_rule_begins_or_after_it_ends_or_where_there_is_no_margin() -> None:
    champion, worse = run(100), run(100, above=0.3)
    late = replace(rule(champion), progress=(0.6, 0.7, 0.8))
    assert stopped_at(late, worse) == 0.6
    assert stopped_at(replace(late, equal=(NEVER, NEVER, 0.1)), worse) == 0.8
    assert stopped_at(replace(late, equal=(NEVER,) * 3), worse) is None
    short = StopDetector(late, BATCHES)
    assert not any(short.add(*point) for point in worse.points if not 0.6 <= point[1] <= 0.8)


def test_a_run_that_reports_another_quantity_is_let_alone() -> None:
    champion = run(100, noise=0.0)
    assert stopped_at(rule(champion), run(100, above=2.0, first=2.0, noise=0.0)) is None, "begins with another loss"
    assert stopped_at(rule(champion), run(100, above=2.0, first=0.3, noise=0.0)) == LEAST_PROGRESS


def test_the_reason_says_where_and_by_how_much() -> None:
    detector = StopDetector(rule(run(20)), BATCHES)
    assert any(detector.add(*point) for point in run(20, above=0.25).points)
    assert detector.reason == (
        "at 20% of its time the loss was 0.250 above the champion's at that time: the chance of a keep is below 0.01"
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 80), st.integers(2, 80), st.floats(0, 0.3), st.integers(0, 2))
def test_what_is_followed_is_what_the_judge_learns_from(steps: int, champions: int, noise: float, seed: int) -> None:
    smooth = SmoothCurve(run(champions, noise=noise))
    curve = run(steps, noise=noise, batches=(32, 256, seed), above=0.01)
    detector = StopDetector(rule(run(champions, noise=noise)), curve.batches)
    points = np.array(curve.points)
    above = smooth.differences(points, curve.batches)
    for count, point in enumerate(curve.points, 1):
        detector.add(*point)
        assert detector.above == pytest.approx(recent_mean(points[:count, 1], above[:count]))
