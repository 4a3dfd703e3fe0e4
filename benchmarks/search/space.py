"""The constants that a search may change, as numbers between 0 and 1, and draws from them.

What `random search` means in these benchmarks stands here. No score and no trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from core.records import Constant
from core.trainer.constants import Tunable

Spaces = Mapping[str, Tunable]


def draw(rng: np.random.Generator, tunable: Tunable) -> Constant:
    """A value of the whole range, uniform in the constant's own scale."""
    if tunable.choices is not None:
        return tunable.choices[int(rng.integers(len(tunable.choices)))]
    low, high = _ends(tunable)
    if tunable.integer and not tunable.log:
        return int(rng.integers(round(low), round(high) + 1))
    there = rng.uniform(low, high)
    value = math.exp(there) if tunable.log else float(there)
    return round(value) if tunable.integer else float(f"{value:.3g}")


def draw_all(rng: np.random.Generator, spaces: Spaces) -> dict[str, Constant]:
    """Every constant anew."""
    return {name: draw(rng, tunable) for name, tunable in spaces.items()}


def draw_some(
    rng: np.random.Generator, spaces: Spaces, champion: Mapping[str, Constant], most: int = 3
) -> dict[str, Constant]:
    """One to `most` constants of the champion anew, each another value than it had if the range has one."""
    count = 1 + int(rng.integers(min(most, len(spaces))))
    values = {name: champion[name] for name in spaces}
    for name in rng.choice(sorted(spaces), size=count, replace=False).tolist():
        for _ in range(20):
            values[name] = draw(rng, spaces[name])
            if values[name] != champion[name]:
                break
    return values


def place(tunable: Tunable, value: Constant) -> float:
    """Where a number lies in its range: 0 at the low end, 1 at the high one, beyond them outside."""
    assert isinstance(value, (int, float))
    low, high = _ends(tunable)
    return ((math.log(value) if tunable.log else float(value)) - low) / (high - low)


def encode(spaces: Spaces, points: Sequence[Mapping[str, Constant]]) -> tuple[np.ndarray, np.ndarray]:
    """Points as float64 [points, columns], and the number of the constant of each column.

    A range is one column. Choices are one column each, 1 / sqrt(2) where taken, so that two of them lie 1 apart.
    """
    columns: list[list[float]] = []
    owners: list[int] = []
    for number, (name, tunable) in enumerate(spaces.items()):
        values = [point[name] for point in points]
        if tunable.choices is None:
            columns.append([place(tunable, value) for value in values])
            owners.append(number)
            continue
        for choice in tunable.choices:
            columns.append([math.sqrt(0.5) * (value == choice) for value in values])
            owners.append(number)
    return np.array(columns, dtype=np.float64).T.reshape(len(points), len(owners)), np.array(owners)


def _ends(tunable: Tunable) -> tuple[float, float]:
    assert tunable.low is not None and tunable.high is not None
    return (math.log(tunable.low), math.log(tunable.high)) if tunable.log else (tunable.low, tunable.high)
