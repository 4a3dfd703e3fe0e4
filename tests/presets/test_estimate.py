"""Whether a finished trial's own numbers give reason for a warning."""

from __future__ import annotations

import pytest
from campaigns import a_trial

from core.records import Trial
from presets import estimate

SOUND = {
    "steps": 500,
    "tokens": 4_000_000,
    "parameters": 1_800_000,
    "budget_seconds": 300.0,
    "train_seconds": 300.0,
    "wall_seconds": 310.0,
    "peak_memory_mb": 600.0,
}


def record(**changes: object) -> Trial:
    return a_trial(val_bpb=1.5, **{**SOUND, **changes})


def test_a_sound_trial_has_no_warnings() -> None:
    found = estimate.of_trial(record(), memory_gb=8.0)
    assert found is not None and found.measured
    assert found.warnings() == []
    assert found.tokens_per_parameter == pytest.approx(2.222, abs=0.001)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 299}, "299 steps, fewer than 300"),
        ({"tokens": 3_000_000}, "1.7 tokens a parameter, under 2"),
        ({"tokens": 90_000_000}, "50.0 tokens a parameter, over 40"),
        ({"peak_memory_mb": 7_000.0}, "85% of the memory, not under 85%"),
        ({"wall_seconds": 340.0}, "12% of the wall time"),
    ],
)
def test_each_rule_that_a_trial_breaks_is_told(changes: dict[str, object], said: str) -> None:
    found = estimate.of_trial(record(**changes), memory_gb=8.0)
    assert found is not None
    assert [said in warning for warning in found.warnings()] == [True]


SHORT = {"budget_seconds": 10.0, "train_seconds": 10.0, "wall_seconds": 17.0, "steps": 30, "tokens": 250_000}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"steps": 9}, "9 steps, fewer than 10 for 10 s: lower total_batch_size or depth"),
        ({"tokens": 90_000}, "0.05 tokens a parameter, under 0.067 for 10 s: lower depth or vocabulary"),
        ({"wall_seconds": 20.0}, "50% of the wall time, not under 49% for 10 s: lower score_bytes"),
        ({"budget_seconds": 60.0, "train_seconds": 60.0, "wall_seconds": 66.0, "steps": 59, "tokens": 800_000},
         "59 steps, fewer than 60 for 60 s"),
        ({"budget_seconds": 600.0, "train_seconds": 600.0, "wall_seconds": 610.0, "tokens": 4_000_000, "steps": 299},
         "299 steps, fewer than 300: "),
    ],
)  # fmt: skip
def test_a_short_trial_is_held_against_its_share(changes: dict[str, object], said: str) -> None:
    found = estimate.of_trial(record(**{**SHORT, **changes}), memory_gb=8.0)
    assert found is not None
    assert len(found.warnings()) == bool(said) and said in "".join(found.warnings())


def test_nothing_is_said_of_a_trial_that_failed_or_had_steps_for_a_budget() -> None:
    assert estimate.of_trial(a_trial(val_bpb=None, verdict="crash", reason="x"), memory_gb=8.0) is None
    assert estimate.of_trial(record(budget_seconds=None, budget_steps=5), memory_gb=8.0) is None
