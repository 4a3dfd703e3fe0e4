"""The policy of beliefs: its arithmetic against direct formulas, and what it does with noise."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from campaigns import a_trial
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.campaign.evidence import EvidenceBuilder
from core.campaign.judge import effects
from core.campaign.judge.base import AnotherTrial, Decision, Effect
from core.campaign.judge.belief import Belief, score_model
from core.campaign.judge.effects import EVIDENT, GainPrior
from core.campaign.judge.noise import NoisePool
from core.campaign.judge.state import ChampionState, ScoreModel
from core.records import COMPARE, Experiment, Measurement, Trial

SEEDS = (1, 2, 3)
MODEL = ScoreModel(seed=0.002, trial=0.003)
UNIT = 0.003

scores = st.dictionaries(st.sampled_from(SEEDS), st.floats(0.9, 1.1), min_size=1)


def conditioned(values: dict[int, float]) -> tuple[float, float]:
    """Mean and deviation of the champion's score, by the formula for a normal distribution's conditional."""
    wide = 1e3 * MODEL.total
    prior = np.diag([wide**2] + [MODEL.seed**2] * len(SEEDS))
    rows = np.array([[1.0, *(float(seed == one) for one in SEEDS)] for seed in values])
    spread = rows @ prior @ rows.T + MODEL.trial**2 * np.eye(len(values))
    towards = prior @ rows.T @ np.linalg.inv(spread)
    mean = np.array([1.0, 0, 0, 0]) + towards @ (np.array(list(values.values())) - 1.0)
    return float(mean[0]), float((prior - towards @ rows @ prior)[0, 0] ** 0.5)


@given(scores)
def test_the_champions_score_is_the_conditional_of_a_normal_distribution(values: dict[int, float]) -> None:
    state = ChampionState(MODEL, SEEDS, 1.0).with_trials(values)
    mean, deviation = conditioned(values)
    assert state.score == pytest.approx(mean, abs=1e-9)
    assert state.deviation == pytest.approx(deviation, rel=1e-5)


@given(scores, scores)
def test_trials_one_by_one_or_all_at_once_are_the_same(values: dict[int, float], other: dict[int, float]) -> None:
    both = values | {seed: one for seed, one in other.items() if seed not in values}
    step = ChampionState(MODEL, SEEDS, 1.0).with_trials(values)
    step = step.with_trials({seed: one for seed, one in both.items() if seed not in values})
    whole = ChampionState(MODEL, SEEDS, 1.0).with_trials(both)
    assert step.mean == pytest.approx(whole.mean, abs=1e-5)
    assert step.covariance == pytest.approx(whole.covariance, abs=1e-8)


def test_a_gain_over_a_well_known_champion_is_the_mean_difference() -> None:
    alone = ScoreModel(seed=0.0, trial=0.003)
    state = ChampionState(alone, SEEDS, 1.0)
    for _ in range(2000):
        state = state.with_trials({1: 1.0})
    measured = state.measure({1: 0.990, 2: 0.994})
    assert measured.gain == pytest.approx(0.008, abs=1e-6)
    assert measured.error == pytest.approx(0.003 / 2**0.5, rel=1e-3)


def test_shared_seeds_cancel() -> None:
    """All of the noise is the seed's: one pair tells the gain, and a seed that the champion lacks tells little."""
    state = ChampionState(ScoreModel(seed=0.01, trial=1e-5), SEEDS, 1.0).with_trials({1: 1.01})
    assert state.measure({1: 1.005}).gain == pytest.approx(0.005, abs=1e-4)
    assert state.error_with([1]) < 1e-4 < 0.01 < state.error_with([2])


@settings(deadline=None)
@given(st.floats(-0.02, 0.02), st.floats(0.0005, 0.01))
def test_a_higher_measured_gain_is_a_higher_belief(gain: float, error: float) -> None:
    prior = GainPrior([], UNIT)
    lower, higher = prior.belief(gain, error), prior.belief(gain + 0.001, error)
    assert lower.mean <= higher.mean + 1e-9
    assert lower.better <= higher.better + 1e-9
    assert abs(lower.mean) <= abs(gain) + 2 * error


@settings(deadline=None)
@given(st.floats(-0.01, 0.015), st.floats(0.002, 0.01), st.floats(0.3, 0.95))
def test_further_trials_never_lose_value(gain: float, error: float, share: float) -> None:
    assume(abs(gain) < EVIDENT * error)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "SURE", 0.0)  # its step makes a decision worth less where a trial may end just below it
        prior = GainPrior([], UNIT)
        now = max(0.0, prior.belief(gain, error).worth)
        assert prior.value_after(gain, error, share * error, 0.0) >= now - 0.03 * UNIT


def test_a_campaign_of_nothing_makes_gains_unlikely_and_one_of_effects_likely() -> None:
    rng = np.random.default_rng(0)
    nothing = [Effect(gain=float(x), error=UNIT) for x in UNIT * rng.standard_normal(40)]
    harmful = [*nothing[:20], *(Effect(gain=-0.03 * (1 + n / 20), error=UNIT) for n in range(20))]
    good = {name: GainPrior(seen, UNIT).belief(0.004, UNIT) for name, seen in (("no", nothing), ("yes", harmful))}
    assert good["no"].better < 0.2 < 0.4 < good["yes"].better
    assert good["no"].worth < 0 < good["yes"].mean


def test_noise_needs_pairs_and_knows_what_seeds_share() -> None:
    pool = NoisePool()
    rng = np.random.default_rng(1)
    for _ in range(200):
        seeds = {seed: 0.004 * float(rng.standard_normal()) for seed in SEEDS}
        one, other = ({s: x + 0.001 * float(rng.standard_normal()) for s, x in seeds.items()} for _ in range(2))
        pool.add_seeds(one)
        pool.add_pairs(one, other)
    model = score_model(pool.noise())
    assert model.trial == pytest.approx(0.001, rel=0.1)
    assert model.seed == pytest.approx(0.004, rel=0.1)


def an_experiment(number: int, trials: tuple[Trial, ...], decision: Decision) -> Experiment:
    return Experiment(
        number=number, commit=str(number), parent="0", hypothesis="", agent="", verdict=decision.verdict, reason="",
        fingerprint="", wall_seconds=1, train_seconds=1, ended="", trials=trials, **decision.numbers(),
    )  # fmt: skip


def play(truths: list[float], noise: float, seed: int) -> list[Experiment]:
    """A campaign whose n-th trainer truly scores `truths[n]`, if it were the champion's child or not."""
    rng, policy, builder = np.random.default_rng(seed), Belief(), EvidenceBuilder(SEEDS)
    found: list[Experiment] = []
    champion = 0
    for number, true in enumerate(truths):
        trials: list[Trial] = []
        measured: list[Measurement] = []
        while isinstance(answer := policy.decide(builder.evidence(trials, measured)), AnotherTrial):
            of = true if answer.of == "candidate" else truths[champion]
            trial = a_trial(seed=answer.seed, val_bpb=of + noise * float(rng.standard_normal()))
            if answer.of == "candidate":
                trials.append(trial)
            else:
                measured.append(a_measurement(number, champion, trial))
        found.append(an_experiment(number, tuple(trials), answer))
        builder.add(found[-1], measured)
        champion = number if answer.verdict == "keep" else champion
    return found


def a_measurement(series: int, experiment: int, trial: Trial) -> Measurement:
    return Measurement(
        purpose=COMPARE, series=series, role="champion", experiment=experiment, commit=str(experiment), trial=trial
    )


def test_large_gains_are_kept_at_once_and_losses_discarded_at_once() -> None:
    found = play([1.0, 0.9, 1.0, 0.8], noise=0.002, seed=0)
    assert [one.verdict for one in found] == ["keep", "keep", "discard", "keep"]
    assert [len(one.trials) for one in found] == [3, 1, 1, 1]
    assert found[1].val_bpb == pytest.approx(0.9, abs=0.01)


def test_what_looks_better_by_little_is_tried_again() -> None:
    """Effects are known to be frequent here, so a small gain is worth a look."""
    harmful = [1.0 + 0.01 * (1 + n % 5) for n in range(12)]
    trials = [len(play([1.0, *harmful, 0.998], noise=0.002, seed=seed)[-1].trials) for seed in range(6)]
    assert max(trials) > 1


def test_changes_that_do_nothing_are_rarely_kept() -> None:
    """A policy that keeps any lower score keeps four of forty."""
    kept = [sum(one.verdict == "keep" for one in play([1.0] * 41, noise=0.003, seed=seed)) - 1 for seed in range(8)]
    assert sum(kept) <= 8


def test_equal_evidence_gets_an_equal_answer_and_is_left_alone() -> None:
    builder = EvidenceBuilder(SEEDS)
    baseline = tuple(a_trial(seed=seed, val_bpb=1 + 0.001 * seed) for seed in SEEDS)
    decided = Belief().decide(builder.evidence(baseline, []))
    assert isinstance(decided, Decision)
    builder.add(an_experiment(0, baseline, decided), [])
    evidence = builder.evidence([a_trial(seed=1, val_bpb=0.999)], [])
    before = copy.deepcopy(evidence)
    first = Belief().decide(evidence)
    assert first == Belief().decide(dataclasses.replace(before))
    assert evidence == before


def test_trials_that_repeat_exactly_tell_the_smallest_gain() -> None:
    assert [one.verdict for one in play([1.0, 0.9999, 0.9999], noise=0.0, seed=0)][:2] == ["keep", "keep"]
