"""What a run can show: the smallest gain that its experiments tell from luck. Pure functions."""

from __future__ import annotations

import math
from statistics import NormalDist

PAIRS = 4  # trials of champion and candidate each, which a small gain gets before it is kept
_UNLIMITED = 100  # experiments that the line speaks of where nothing limits the run


def smallest_gain(noise: float, experiments: int, pairs: int = PAIRS) -> float:
    """The gain in bits per byte below which luck does as well, where one trial's score has the deviation `noise`.

    The mean difference over `pairs` trials of each trainer has a deviation of noise * sqrt(2 / pairs). Of `experiments`
    changes that do nothing, the luckiest is expected to show as many deviations as the largest of so many normal
    numbers (Blom 1958: the quantile of (n - 3/8) / (n + 1/4)), and never less than one is asked of a single change.
    """
    luckiest = NormalDist().inv_cdf((experiments - 0.375) / (experiments + 0.25)) if experiments > 1 else 0.0
    return max(1.0, luckiest) * noise * math.sqrt(2 / pairs)


def experiments_in(seconds: float, most: float, seconds_each: float) -> float:
    """How many experiments a run has room for: the lower of its limits. Infinite without any."""
    if not math.isfinite(seconds):
        return most
    return min(most, max(0.0, seconds) // seconds_each if seconds_each > 0 else most)


def outlook(*, noise: float | None, spread: float | None, experiments: float, pairs: int = PAIRS) -> str:
    """The line at a run's start, such as `12 experiments at a spread of 0.015: gains under 0.010 will not be told ...`.

    `noise` is the deviation of one trial's score, `spread` that of the baseline's seeds, largest minus smallest. Empty
    where no experiment is to come.
    """
    if experiments < 1:
        return ""
    if noise is None:
        return "the noise is unknown, as the baseline ran with one seed: no gain can be told from luck"
    if noise == 0:
        return "the baseline's seeds do not differ: every gain shows"
    count = int(experiments) if math.isfinite(experiments) else _UNLIMITED
    shown = f"{count} experiment{'s' if count > 1 else ''}" + (
        "" if math.isfinite(experiments) else " (there is no limit)"
    )
    beside = f"a spread of {_two(spread)}" if spread else f"a deviation of {_two(noise)}"
    return f"{shown} at {beside}: gains under {_two(smallest_gain(noise, count, pairs))} will not be told from luck"


def _two(value: float) -> str:
    """Two significant digits, and no exponent: 0.015, 0.00042."""
    exponent = int(f"{value:.1e}".partition("e")[2])
    return f"{value:.{max(0, 1 - exponent)}f}"
