"""The state of a training run as the supervisor sees it."""

from __future__ import annotations

import statistics
import time
from array import array
from collections import deque
from dataclasses import dataclass, field

from core.records import Choice

STALL, LEAST_TO_COMPARE = 3.0, 5  # medians; steps


@dataclass
class TrainingState:
    """A training run so far: what the supervisor measured, and in the last group what the trainer claims."""

    started: float | None = None  # monotonic seconds; None: before the first real batch
    stopped: float | None = None
    step: int = 0  # batches handed out
    rows: int | None = None
    length: int | None = None
    device_rows: int | None = None  # granted: rows that the device takes at once
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    steps_seconds: array[float] = field(default_factory=lambda: array("d"))  # of each step that another one followed
    curve: list[dict[str, float]] = field(default_factory=list)
    stop_progress: float | None = None  # where the stop rule ended it, or would have

    loss: float | None = None
    flops_per_token: float | None = None
    choices: dict[str, Choice] = field(default_factory=dict)
    device_peak_mb: float | None = None

    def end_step(self, seconds: float) -> None:
        """Counts a step that took so long."""
        self.durations.append(seconds)
        self.steps_seconds.append(seconds)

    @property
    def stalled_seconds(self) -> float | None:
        """What steps of over three medians took beyond one: a compile or a stall. None with too few steps to say."""
        if len(self.steps_seconds) < LEAST_TO_COMPARE:
            return None
        median = statistics.median(self.steps_seconds)
        return sum(one - median for one in self.steps_seconds if one > STALL * median)

    @property
    def tokens(self) -> int:
        """Tokens that were predicted in training: rows x length x steps."""
        return self.step * (self.rows or 0) * (self.length or 0)

    @property
    def seconds(self) -> float:
        """On the trial's clock: from the first batch to the arrival of the weights, or to now."""
        if self.started is None:
            return 0.0
        return (time.monotonic() if self.stopped is None else self.stopped) - self.started
