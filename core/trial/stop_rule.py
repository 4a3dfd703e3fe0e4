"""The rule that ends a trial which can hardly win any more: data that the judge makes, looked at where losses arrive.

Losses of two runs are compared at equal progress, since schedules follow it. Where batches are equal, the champion's
own deviation from its smooth curve on the same batch is taken out: what is hard in a batch is hard for both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

LEAST_PROGRESS = 0.15  # before it, losses say little about the end
NEVER = 1e9  # a margin, in nats a token, that no loss exceeds
WINDOW = 0.1  # progress over which a difference is averaged
_GRID = np.linspace(0.0, 1.0, 201)  # progress at which a curve is smoothed
_BANDWIDTH = 0.05  # progress: the deviation of the smoothing kernel, of 1.5 steps where steps are longer
# A first loss that is so far from the champion's, as a share, is another quantity: a sum, or an auxiliary term.
_OTHER_LOSS = 0.05

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The training losses of a run. Two runs with equal `batches` had the same ones, step by step."""

    points: tuple[tuple[int, float, float], ...]  # step, progress from 0 to 1, loss in nats a token
    batches: tuple[int, int, int]  # rows, length and seed

    @cached_property
    def array(self) -> Array:
        """The points, float64 [N, 3]."""
        return np.array(self.points, dtype=np.float64).reshape(-1, 3)


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """How far above the champion's loss, in nats a token, a candidate may be at which progress."""

    champion: LossCurve
    progress: tuple[float, ...]  # rising; the margins between two of these are interpolated, beyond the last none holds
    equal: tuple[float, ...]  # margins where the batches are the champion's; NEVER: not there
    other: tuple[float, ...]  # margins where they are not
    chance: float  # of a keep, below which a candidate is stopped
    secret: bool = False  # the trial runs on, and only its record says where it would have been stopped


class SmoothCurve:
    """A run's losses over progress, smoothed, with what is left of each step's batch."""

    def __init__(self, curve: LossCurve) -> None:
        """`curve` has at least two points."""
        self.batches = curve.batches
        step, progress, loss = curve.array.T
        self.steps, self.progress = step, progress
        self._first = (step[0], loss[0])
        self._smooth = _local_lines(progress, loss, _GRID)
        self.residuals = loss - self.at(progress)

    def at(self, progress: Array | float) -> Array:
        """The smoothed loss, nats a token."""
        return np.asarray(np.interp(progress, _GRID, self._smooth), dtype=np.float64)

    def same_loss(self, step: float, loss: float) -> bool:
        """Whether a run that begins with this loss reports the same quantity, as far as one can tell."""
        return bool(step != self._first[0] or abs(loss - self._first[1]) <= _OTHER_LOSS * self._first[1])

    def differences(self, points: npt.ArrayLike, batches: tuple[int, int, int]) -> Array:
        """How far another run's points [N, 3] lie above this curve at equal progress: nats a token, [N]."""
        step, progress, loss = np.asarray(points, dtype=np.float64).T
        above = loss - self.at(progress)
        if batches == self.batches:
            above -= np.interp(step, self.steps, self.residuals, right=0.0)
        return np.asarray(above, dtype=np.float64)


def recent_mean(progress: Array, values: Array) -> float:
    """The mean of the values over the last WINDOW of progress."""
    return float(values[progress > progress[-1] - WINDOW].mean())


class StopDetector:
    """Follows one trial by one rule."""

    def __init__(self, rule: StopRule, batches: tuple[int, int, int]) -> None:
        self.rule = rule
        self._batches = batches
        self._champion = SmoothCurve(rule.champion)
        self._margins = rule.equal if batches == rule.champion.batches else rule.other
        self._recent: deque[tuple[float, float]] = deque()  # progress and difference, over the last WINDOW
        self._sum = 0.0  # of these differences
        self._comparable = True
        self.above = 0.0  # the mean of these, nats a token
        self.reason = ""

    def add(self, step: int, progress: float, loss: float) -> bool:
        """Takes the next loss. Returns whether the trial can hardly win any more; `reason` says why."""
        self._comparable &= self._champion.same_loss(step, loss)
        (difference,) = self._champion.differences([(step, progress, loss)], self._batches).tolist()
        self._recent.append((progress, difference))
        self._sum += difference
        while self._recent[0][0] <= progress - WINDOW:
            self._sum -= self._recent.popleft()[1]
        self.above = self._sum / len(self._recent)
        if not self._comparable or not self.rule.progress[0] <= progress <= self.rule.progress[-1]:
            return False
        if not self.above > float(np.interp(progress, self.rule.progress, self._margins)):
            return False
        self.reason = (
            f"at {progress:.0%} of its time the loss was {self.above:.3f} above the champion's at that time: "
            f"the chance of a keep is below {self.rule.chance:.3g}"
        )
        return True


def _local_lines(x: Array, y: Array, places: Array) -> Array:
    """Lines fitted around each of the places, by weights that fall with the distance: y there."""
    width = max(_BANDWIDTH, 1.5 * float(np.median(np.diff(x))))
    found = np.empty_like(places)
    for number, place in enumerate(places):  # one by one: a matrix of all would be large for long curves
        distance = x - place
        weight = np.exp(-0.5 * (distance / width) ** 2) + 1e-12
        line = weight * (np.sum(weight * distance**2) - distance * np.sum(weight * distance))
        found[number] = float((line * y).sum() / line.sum())
    return found
