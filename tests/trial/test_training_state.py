"""What the supervisor makes of a training run's steps."""

from __future__ import annotations

import pytest

from core.trial.training_state import TrainingState


@pytest.mark.parametrize(
    ("seconds", "stalled"),
    [
        ([0.1] * 100, 0.0),
        ([0.1] * 50 + [2.1] + [0.1] * 50, 2.0),  # a compile within the clock
        ([0.9] + [0.1] * 99, 0.8),  # the first step, long forgotten by the last 32
        ([0.1, 0.25] * 50, 0.0),  # steps of two kinds
        ([0.1] * 4, None),
    ],
)
def test_stalls_are_what_long_steps_took_beyond_the_median(seconds: list[float], stalled: float | None) -> None:
    state = TrainingState()
    for one in seconds:
        state.end_step(one)
    assert state.stalled_seconds == (stalled if stalled is None else pytest.approx(stalled))
    assert len(state.durations) == min(32, len(seconds))
