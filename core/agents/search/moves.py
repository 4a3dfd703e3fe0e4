"""Values of one tunable constant: whether one is allowed, where it lies in the range, a step away, a new draw.

Which constants to change together is decided in `agent.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.records import Constant
from core.trainer.constants import Tunable
from core.trainer.literals import is_number, same

STEP_WIDTHS = (0.05, 0.5)  # of a constant's range (its logarithm's if `log`); log-uniform, so small steps are common
DIGITS = 3  # of a proposed float
OUTSIDE = 1.0  # ranges beyond an end: values farther out are placed there


def allowed(tunable: Tunable, value: Constant) -> bool:
    """Whether the value is of the constant's kind and within its range or among its choices."""
    if tunable.choices is not None:
        return any(same(choice, value) for choice in tunable.choices)
    low, high = ends(tunable)
    return is_number(value) and not (tunable.integer and isinstance(value, float)) and low <= value <= high


def ordered(tunable: Tunable) -> bool:
    """Whether its values are numbers, so that some lie nearer to each other than others."""
    return tunable.choices is None or all(map(is_number, (*tunable.choices, tunable.value)))


def place(tunable: Tunable, value: Constant) -> float | None:
    """Where a value lies: 0 at the low end, 1 at the high end, less or more outside of the range.

    For choices that are no numbers: the choice's index, -1 for any other value. None for a value that is no number.
    """
    if tunable.choices is not None and not ordered(tunable):
        return next((float(at) for at, choice in enumerate(tunable.choices) if same(choice, value)), -1.0)
    if not is_number(value):
        return None
    if tunable.choices is not None:
        steps = sorted(filter(is_number, tunable.choices))
        return float(np.interp(min(max(value, steps[0]), steps[-1]), steps, np.linspace(0, 1, len(steps))))
    low, high = ends(tunable)
    if not tunable.log:
        reach = OUTSIDE * (high - low)
        return (min(max(value, low - reach), high + reach) - low) / (high - low)
    reach = (high / low) ** OUTSIDE
    return math.log(min(max(value, low / reach), high * reach) / low) / math.log(high / low)


def draw(rng: np.random.Generator, tunable: Tunable) -> Constant:
    """A random value, uniform in the constant's own scale or among its choices."""
    if tunable.choices is not None:
        return tunable.choices[int(rng.integers(len(tunable.choices)))]
    low, high = ends(tunable)
    if tunable.integer and not tunable.log:
        return int(rng.integers(round(low), round(high) + 1))
    return _rounded(
        tunable, math.exp(rng.uniform(math.log(low), math.log(high))) if tunable.log else rng.uniform(low, high)
    )


def step(rng: np.random.Generator, tunable: Tunable) -> Constant:
    """A step from the champion's value: Laplace in the constant's own scale, its width log-uniform over STEP_WIDTHS."""
    if tunable.choices is not None:
        return _neighbour(rng, tunable.choices, tunable.value)
    assert is_number(tunable.value)
    scale = math.log if tunable.log else float
    low, high = map(scale, ends(tunable))
    here = scale(min(max(tunable.value, ends(tunable)[0]), ends(tunable)[1]))  # a preset may start outside the range
    narrow, wide = STEP_WIDTHS
    width = math.exp(rng.uniform(math.log(narrow), math.log(wide))) * (high - low)
    there = here + rng.laplace(0, width)
    # Reflected, not clipped: clipping would pile the proposals up at the ends.
    span = high - low
    offset = (there - low) % (2 * span)
    there = low + (offset if offset <= span else 2 * span - offset)
    value = _rounded(tunable, math.exp(there) if tunable.log else there)
    if tunable.integer and value == tunable.value:
        value = _rounded(tunable, tunable.value + (1 if there > here else -1))
    return value


def ends(tunable: Tunable) -> tuple[float, float]:
    """The low and the high end of a range."""
    assert tunable.low is not None and tunable.high is not None
    return tunable.low, tunable.high


def _neighbour(rng: np.random.Generator, choices: Sequence[Constant], value: Constant) -> Constant:
    """Another choice: for numbers mostly the next one up or down, else any."""
    others = [choice for choice in choices if not same(choice, value)]
    numbers = sorted(filter(is_number, choices))
    if len(numbers) == len(choices) and is_number(value) and rng.random() < 0.75:
        others = [*[n for n in numbers if n < value][-1:], *[n for n in numbers if n > value][:1]]
    return others[int(rng.integers(len(others)))]


def _rounded(tunable: Tunable, value: float) -> Constant:
    """The value rounded, to a whole number for an int range, and clipped to the range."""
    low, high = ends(tunable)
    if tunable.integer:
        return int(min(max(round(value), round(low)), round(high)))
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
