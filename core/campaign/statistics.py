"""Student's t: the quantile for a whole number of degrees of freedom, and the interval of a mean that rests on it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of paired differences, and how far to both sides of it the true one lies with 95 % confidence."""

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        """`0.0123 +- 0.0040`."""
        return f"{self.mean:.4f} +- {self.half_width:.4f}"

    @property
    def above_zero(self) -> bool:
        """Whether all of it is above zero."""
        return self.mean - self.half_width > 0


def interval(differences: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean (paired Student's t); None for fewer than two."""
    if len(differences) < 2:
        return None
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half_width = quantile((1 + CONFIDENCE) / 2, len(differences) - 1) * error
    return Interval(mean=statistics.fmean(differences), half_width=half_width, count=len(differences))


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The deviation within groups that share it, and its degrees of freedom; (0.0, 0) if no group has two values."""
    freedom = sum(max(0, len(group) - 1) for group in groups)
    squares = sum(sum((value - statistics.fmean(group)) ** 2 for value in group) for group in groups if group)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def share_of(part: Interval, whole: Interval) -> tuple[float, float] | None:
    """The 95 % interval of part / whole (Fieller 1954), two independent means; None where `whole` may be zero.

    A `whole` without a width is taken as known. Intervals of unlike counts differ in their t, which their widths hold.
    """
    a, b, da, db = part.mean, whole.mean, part.half_width, whole.half_width
    below = b * b - db * db
    if b <= 0 or below <= 0:
        return None
    root = math.sqrt(max(0.0, (a * b) ** 2 - below * (a * a - da * da)))
    return (a * b - root) / below, (a * b + root) / below


def quantile(probability: float, freedom: int) -> float:
    """The t that a share of `probability`, from 0.5 up and below 1, lies under, with `freedom` >= 1 degrees.

    By halving on the finite series for the share within -t .. t: Abramowitz and Stegun, Handbook of Mathematical
    Functions, 26.7.3 and 26.7.4, in the angle whose tangent is t over the root of the degrees of freedom.
    """
    assert 0.5 <= probability < 1 and freedom >= 1
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _within(middle, freedom) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(high if probability > 0.5 else 0.0)


def _within(angle: float, freedom: int) -> float:
    """The share of the distribution within -t .. t."""
    sine, cosine = math.sin(angle), math.cos(angle)
    # The series' terms: odd powers of the cosine for odd degrees of freedom, even ones for even.
    total, term = 0.0, cosine ** (freedom % 2)
    for power in range(freedom % 2, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    if freedom % 2:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
