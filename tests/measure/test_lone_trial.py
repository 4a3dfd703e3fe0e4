"""What a finished trial is warned of."""

from __future__ import annotations

import pytest
from campaigns import a_trial

from core.measure.lone_trial import trial_warnings

FEW = {"budget_seconds": 300.0, "steps": 50, "tokens": 10_000, "parameters": 1000, "wall_seconds": 310.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["50 steps, fewer than 300: lower total_batch_size or depth"]),
        (
            {"conditions": {"other_load": 0.5}},
            ["other processes took 50% of the device: on a quiet machine it makes more steps"],
        ),
        ({"conditions": {"other_load": 0.5}, "steps": 500}, []),
        ({"preset": "smoke"}, []),
    ],
)
def test_other_work_is_not_held_against_the_preset(changes: dict[str, object], said: list[str]) -> None:
    assert trial_warnings(a_trial(**{**FEW, "train_seconds": 300.0, **changes})) == said
