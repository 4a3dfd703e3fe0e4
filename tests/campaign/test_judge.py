"""The policy as a function of records."""

from __future__ import annotations

import math
from typing import Any

import pytest
from campaigns import a_trial
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.judge.base import AnotherTrial, Decision, Evidence
from core.campaign.judge.greedy import LowerWins
from core.records import Experiment, Trial, UserError

JUDGE = LowerWins()


def experiment(*scores: float, spread: float | None = 0.003, **trial: Any) -> Experiment:
    trials = tuple(a_trial(val_bpb=score, seed=seed, **trial) for seed, score in enumerate(scores, 1))
    return Experiment(
        number=0, commit="c", parent="c", hypothesis="", agent="", verdict="keep", reason="", val_bpb=scores[0],
        champion_bpb=None, spread=spread, fingerprint="f", wall_seconds=1.0, train_seconds=1.0, ended="", trials=trials,
    )  # fmt: skip


def ruling(trial: Trial, *, champion: float = 1.5, spread: float | None = 0.003) -> Decision:
    base = experiment(champion, spread=spread)
    answer = JUDGE.decide(Evidence(seeds=(1, 2), trials=(trial,), champion=base, baseline=base))
    assert isinstance(answer, Decision)
    return answer


def test_the_baseline_runs_with_every_seed() -> None:
    trials: tuple[Trial, ...] = ()
    for seed, score in ((5, 1.5), (6, 1.53), (7, 1.49)):
        asked = JUDGE.decide(Evidence(seeds=(5, 6, 7), trials=trials, champion=None, baseline=None))
        assert asked == AnotherTrial(seed)
        trials += (a_trial(seed=seed, val_bpb=score),)
    answer = JUDGE.decide(Evidence(seeds=(5, 6, 7), trials=trials, champion=None, baseline=None))
    assert isinstance(answer, Decision)
    assert (answer.verdict, answer.val_bpb, answer.champion_bpb) == ("keep", 1.5, None)
    assert answer.spread == pytest.approx(0.04)
    assert answer.reason == "the baseline: 1.5000, spread of 3 seeds 0.0400"


def test_one_seed_has_no_spread() -> None:
    answer = JUDGE.decide(Evidence(seeds=(1,), trials=(a_trial(),), champion=None, baseline=None))
    assert isinstance(answer, Decision)
    assert answer.spread is None
    assert "unknown" in answer.reason


def test_a_candidate_runs_with_the_first_seed() -> None:
    base = experiment(1.5, 1.6)
    assert JUDGE.decide(Evidence(seeds=(1, 2), trials=(), champion=base, baseline=base)) == AnotherTrial(1)


def test_a_gain_stands_beside_the_spread_of_the_baseline() -> None:
    answer = ruling(a_trial(val_bpb=1.4877))
    assert answer.verdict == "keep"
    assert answer.reason == "gain 0.0123 (1.5000 -> 1.4877), 4.1x the spread of the baseline's seeds (0.0030)"
    assert ruling(a_trial(val_bpb=1.503)).reason.startswith("0.0030 worse (1.5000 -> 1.5030), 1.0x the spread")
    assert ruling(a_trial(val_bpb=1.4), spread=None).reason.endswith("the spread of seeds is unknown")
    assert ruling(a_trial(val_bpb=1.4), spread=0.0).reason.endswith("the baseline's seeds do not differ")


def test_only_strictly_lower_wins() -> None:
    assert ruling(a_trial(val_bpb=1.5)).verdict == "discard"
    assert ruling(a_trial(val_bpb=1.5)).reason == "equal to the champion's 1.5000"
    assert ruling(a_trial(val_bpb=math.nextafter(1.5, 0))).verdict == "keep"


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_never_wins(score: float | None) -> None:
    answer = ruling(a_trial(val_bpb=score))
    assert (answer.verdict, answer.val_bpb) == ("crash", None)


@pytest.mark.parametrize("verdict", ["crash", "invalid"])
def test_a_failure_has_its_own_verdict_and_no_score(verdict: str) -> None:
    answer = ruling(a_trial(verdict=verdict, val_bpb=None, reason="out of memory"))
    assert (answer.verdict, answer.reason, answer.val_bpb) == (verdict, "out of memory", None)
    # not even where a record carries a score that it must not have
    assert ruling(a_trial(verdict=verdict, val_bpb=0.5)).verdict == verdict


def test_unequal_yardsticks_are_an_error() -> None:
    base = experiment(1.5)
    other = a_trial(val_bpb=1.0, yardstick="f" * 64)
    with pytest.raises(UserError, match="different yardsticks"):
        JUDGE.decide(Evidence(seeds=(1,), trials=(other,), champion=base, baseline=base))


def test_a_champion_without_the_seed_is_an_error() -> None:
    base = experiment(1.5)
    with pytest.raises(UserError, match="no score with seed 9"):
        JUDGE.decide(Evidence(seeds=(9,), trials=(a_trial(seed=9),), champion=base, baseline=base))


@given(
    st.floats(0.01, 10),
    st.one_of(st.none(), st.floats()),
    st.sampled_from(["scored", "crash", "invalid"]),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_a_keep_is_always_lower_and_finite(
    champion: float, score: float | None, verdict: str, spread: float | None
) -> None:
    answer = ruling(a_trial(val_bpb=score, verdict=verdict), champion=champion, spread=spread)
    should_win = verdict == "scored" and score is not None and math.isfinite(score) and score < champion
    assert (answer.verdict == "keep") == should_win
    assert (answer.val_bpb is None) == (answer.verdict in {"crash", "invalid"})
    assert answer.champion_bpb == champion
