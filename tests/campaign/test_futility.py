"""How the stop rule is learned: broad at first, from full trials alone, never rash."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.campaign.judge import futility
from core.campaign.judge.futility import FullTrial
from core.trial.stop_rule import LEAST_PROGRESS, LossCurve, StopDetector, StopRule

NOISE, PER_NAT = 0.005, 0.4


def trial(rng: np.random.Generator, worse: float, *, rows: int = 32, steps: int = 60) -> FullTrial:
    """Ends `worse` bits per byte above a champion of 1.6; before that its loss lies above by twice as much."""
    progress = (np.arange(steps) + 1) / steps
    difficulty = np.random.default_rng(rows).normal(0, 0.1, steps)
    wander = rng.normal(0, 0.02) * (1 - progress)
    loss = 4 + 3 * np.exp(-4 * progress) + difficulty + (worse * (2 - progress) + wander) / PER_NAT
    loss[0] = 7.6
    points = tuple((n + 1, float(p), float(y)) for n, (p, y) in enumerate(zip(progress, loss, strict=True)))
    return FullTrial(curve=LossCurve(points=points, batches=(rows, 256, 1)), val_bpb=1.6 + worse + rng.normal(0, NOISE))


def learned(count: int, *, seed: int = 0, bar: float = 1.6, chance: float = 0.01) -> StopRule:
    rng = np.random.default_rng(seed)
    others = [trial(rng, abs(float(worse))) for worse in rng.normal(0, 0.05, count)]
    return futility.rule(trial(rng, 0.0), others, bar=bar, noise=NOISE, chance=chance)


def stopped_at(rule: StopRule, one: FullTrial) -> float | None:
    detector = StopDetector(rule, one.curve.batches)
    return next((point[1] for point in one.curve.points if detector.add(*point)), None)


def test_the_rule_begins_at_15_percent_and_needs_less_the_later_it_is() -> None:
    rule = learned(20)
    assert rule.progress[0] == LEAST_PROGRESS
    assert rule.equal[0] > rule.equal[8] > rule.equal[-1] > 0
    assert all(other >= equal for equal, other in zip(rule.equal, rule.other, strict=True))


def test_a_campaign_that_has_just_begun_stops_only_what_is_hopeless() -> None:
    first, later = learned(0), learned(30)
    assert first.equal[0] > 4.0, "nats: a trainer that has learned nothing"
    assert all(early > late for early, late in zip(first.equal, later.equal, strict=True))
    rng = np.random.default_rng(5)
    assert stopped_at(first, trial(rng, 0.1)) is None
    hopeless = stopped_at(first, trial(rng, 1.0))
    assert hopeless is not None and hopeless < 0.6
    assert (stopped_at(later, trial(rng, 0.1)) or math.inf) < 0.3


def test_other_batches_are_noisier_so_their_margin_is_wider() -> None:
    rule = learned(20)
    wider = np.array(rule.other) - rule.equal
    assert (wider[1:] > 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_could_still_have_won_is_not_stopped(seed: int) -> None:
    """Of trials that the model is right about, fewer than the chance are stopped and below the bar."""
    rng = np.random.default_rng(seed)
    rule = learned(15, seed=seed)
    tried = [trial(rng, float(worse)) for worse in rng.normal(0.01, 0.03, 200)]
    stopped = [one for one in tried if stopped_at(rule, one) is not None]
    assert len(stopped) > 20
    assert sum(one.val_bpb < 1.6 for one in stopped) <= 0.01 * len(stopped) + 1


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0001, 0.4), st.floats(1.01, 2.0), st.floats(-0.02, 0.05), st.integers(0, 12))
def test_a_higher_chance_stops_more_and_a_lower_bar_too(chance: float, more: float, bar: float, count: int) -> None:
    usual = learned(count, chance=chance, bar=1.6)
    higher = learned(count, chance=min(0.49, chance * more), bar=1.6)
    reachable = learned(count, chance=chance, bar=1.6 + abs(bar))
    for one, sooner, later in zip(usual.equal, higher.equal, reachable.equal, strict=True):
        assert sooner <= one <= later


def test_a_trial_that_reports_another_quantity_teaches_nothing() -> None:
    rng = np.random.default_rng(0)
    champion, others = trial(rng, 0.0), [trial(rng, 0.02) for _ in range(5)]
    points = tuple((step, progress, 2 * loss) for step, progress, loss in others[0].curve.points)
    summed = FullTrial(curve=LossCurve(points=points, batches=(32, 256, 1)), val_bpb=1.5)
    assert futility.rule(champion, [*others, summed], bar=1.6, noise=NOISE) == futility.rule(
        champion, others, bar=1.6, noise=NOISE
    )


def test_one_in_twenty_runs_on_in_secret_by_the_commit_alone() -> None:
    def commits() -> Iterable[str]:
        rng = np.random.default_rng(0)
        return (rng.bytes(20).hex() for _ in range(4000))

    chosen = [futility.runs_on(commit) for commit in commits()]
    assert chosen == [futility.runs_on(commit) for commit in commits()]
    assert 140 < sum(chosen) < 260
