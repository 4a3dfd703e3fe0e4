"""What a verdict of beliefs reports: the believed gain, whole losses, and the part that decided."""

from __future__ import annotations

from typing import Any

import pytest
from campaigns import a_trial
from view_records import an_experiment

from core.campaign.judge.base import Decision, Evidence, Noise, Reign
from core.campaign.judge.belief import Belief
from core.records import Trial
from core.store.program import Limits

SEEDS, NOISE = (1, 2, 3), 0.003
SHIFTS = (0.0, 0.004, -0.002)  # of the three seeds, for every trainer alike


def trials(score: float, count: int, **values: Any) -> tuple[Trial, ...]:
    return tuple(
        a_trial(seed=seed, val_bpb=score + shift, **values)
        for seed, shift in list(zip(SEEDS, SHIFTS, strict=True))[:count]
    )


def verdict(score: float, *, count: int = 3, lines: float = 0, limits: Limits | None = None, **values: Any) -> Decision:
    """Of a candidate with so many lines more than a champion at 1.5, both with `count` trials."""
    champion = trials(1.5, 3, peak_memory_mb=30.0)
    base = an_experiment(0, "keep", val_bpb=1.5, spread=0.006, trials=champion)
    answer = Belief().decide(
        Evidence(
            seeds=SEEDS, trials=trials(score, count, **values), champion=base, baseline=base,
            lineage=(Reign(experiment=base),), limits=limits or Limits(), nodes=round(4000 + 9.5 * lines),
            champion_nodes=4000, exhausted=True,
            noise=Noise(seeds=NOISE**2, seeds_freedom=20, pairs=2 * 0.002**2, pairs_freedom=20),
        )
    )  # fmt: skip
    assert isinstance(answer, Decision), answer
    return answer


def gain_of(decision: Decision) -> float:
    assert decision.val_bpb is not None and decision.champion_bpb is not None
    return decision.champion_bpb - decision.val_bpb


@pytest.mark.parametrize("score", [1.495, 1.4995, 1.5, 1.503, 1.52])
@pytest.mark.parametrize("count", [1, 3])
def test_the_difference_of_both_beliefs_is_the_believed_gain(score: float, count: int) -> None:
    found = verdict(score, count=count)
    assert f"gain {gain_of(found):+.4f} +-" in found.reason


@pytest.mark.parametrize("score", [2.4, 9.0, 1.2])
def test_a_large_difference_is_believed_as_it_was_measured_and_moves_no_champion(score: float) -> None:
    found = verdict(score, count=1)
    assert gain_of(found) == pytest.approx(1.5 - score, abs=0.01)
    assert found.champion_bpb == pytest.approx(1.5, abs=0.01) and found.val_bpb == pytest.approx(score, abs=0.01)
    assert found.probability == (score < 1.5)


def test_equal_and_simpler_is_kept_and_says_so() -> None:
    found = verdict(1.5, lines=-20)
    assert found.verdict == "keep"
    assert found.reason.startswith("equal within the noise, and simpler: gain ")
    assert found.reason.endswith("; 20 lines less, worth 0.0010")
    assert verdict(1.5).verdict == verdict(1.5, lines=20).verdict == "discard"


def test_a_large_change_for_a_tiny_gain_is_not_kept() -> None:
    kept, large = verdict(1.494), verdict(1.494, lines=200)
    assert (kept.verdict, large.verdict) == ("keep", "discard")
    assert large.reason.startswith("the gain does not pay for its lines: gain ")
    assert verdict(1.494, lines=200, limits=Limits(bpb_per_line=0.0)).verdict == "keep"


def test_limits_and_speed_decide_with_their_reason() -> None:
    broken = verdict(1.3, limits=Limits(memory_mb=40.0), peak_memory_mb=50.0)
    assert (broken.verdict, broken.reason) == ("discard", "uses 50 MB, program.md allows 40")
    faster = verdict(1.503, limits=Limits(bpb_per_doubled_speed=0.05), tokens_per_second=2.1 * 20480.0, parameters=900)
    assert faster.verdict == "keep" and "2.10x the champion's tokens/s, worth 0.05" in faster.reason
