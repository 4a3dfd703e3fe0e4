"""The arithmetic of an audit: where to look, in which order, and how large a difference may be.

Pure functions over arrays; `audit.py` asks the process. N counts predictions of the flattened scored rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.data.scored import Rows

Losses = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]  # row * T + time
Random = np.random.Generator

# Nats by which one loss may differ when the same weights see the same past in another batch: what other orders of
# summation come to after the layers of a model, several times over. An unknown dtype counts as the coarsest.
TOLERANCES = {"float32": 0.02, "float16": 0.1, "bfloat16": 0.25}
MISSED = 0.01  # chance that a gain as large as `hidden_nats` was not seen
# Nats that a place can profit by although its claim is no lower than the reference's: a distribution that gives up a
# share s of its mass gains -ln(1 - s) where it keeps, and has to lie at a share s of all places, so less than 1 each.
TRADED = 1.0
_Z_MISSED = 2.33  # of a normal distribution, one-sided
_Z_BIASED = 4.0  # standard errors beyond which a mean difference is no accident


@dataclass(frozen=True)
class Drawn:
    """Places to look at: some drawn uniformly, some weighted by their gain, so that rare gains are found."""

    uniform: Places
    weighted: Places
    weighted_draws: int
    gain: float  # as `gain_on` has it

    @property
    def places(self) -> Places:
        """All of them once, ascending."""
        return np.union1d(self.uniform, self.weighted)


def tolerance(dtype: str) -> float:
    """Nats by which a single loss of a model of that dtype may differ."""
    return TOLERANCES.get(dtype, max(TOLERANCES.values()))


def unigram_losses(rows: Rows) -> Losses:
    """Nats of each target for a model of token frequencies in the counted targets; flat, float32 [N]."""
    targets, counted = rows.targets_BT.ravel(), rows.bytes_BT.ravel() > 0
    times = np.bincount(targets[counted], minlength=int(targets.max(initial=0)) + 1)
    found: Losses = -np.log(np.maximum(times[targets], 1) / max(1, counted.sum())).astype(np.float32)
    return found


def gains_on(claimed: Losses, reference: Losses) -> npt.NDArray[np.float64]:
    """Nats by which each claim is better than the reference, 0 where it is worse."""
    return np.maximum(reference.astype(np.float64) - claimed, 0.0)


def draw(
    claimed: Losses, reference: Losses, counted: npt.NDArray[np.bool_], uniform: int, weighted: int, random: Random
) -> Drawn:
    """`uniform` places with equal chances, `weighted` ones by the claim's gain on the reference; flat arrays [N]."""
    places = np.flatnonzero(counted)
    some = random.choice(places, min(len(places), uniform), replace=False)
    gains = gains_on(claimed[places], reference[places])
    total = float(gains.sum())
    others = random.choice(places, weighted, p=gains / total if total > 0 else None)
    return Drawn(np.sort(some), np.unique(others), weighted, total / len(places))


def draws_needed(gain: float, noise: float) -> int:
    """Draws after which a hidden gain of `noise` nats, out of the `gain` that they follow, was met (see `MISSED`)."""
    share = min(1.0, noise / gain) if gain > 0 else 1.0
    return 1 if share >= 1.0 else math.ceil(math.log(MISSED) / math.log1p(-share))


def hidden_nats(drawn: Drawn, mean: float, standard_error: float) -> float:
    """The gain, in nats a token, that these draws could have missed with a chance of `MISSED`."""
    by_gain = _unseen(drawn.weighted_draws) * drawn.gain
    return max(by_gain, _unseen(len(drawn.uniform)) * TRADED) + scatter(mean, standard_error)


def _unseen(draws: int) -> float:
    """The share of what draws follow that they miss with a chance of `MISSED`."""
    return 1.0 - math.exp(math.log(MISSED) / draws)


def scatter(mean: float, standard_error: float) -> float:
    """The part of a hidden gain that differences within the tolerance leave room for, in nats a token."""
    return abs(mean) + _Z_MISSED * standard_error


def biased(mean: float, standard_error: float, count: int, allowed: float) -> bool:
    """Whether the mean of `count` differences is too far from zero to be rounding."""
    # Few values estimate their own scatter badly: Student's t, roughly.
    return abs(mean) > _Z_BIASED * (1 + 8 / count) * standard_error + allowed / 100


def losses_from(logits_NV: npt.NDArray[np.float32], targets_N: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Nats of each target under whole logits; the log-softmax is float64."""
    wide_NV = logits_NV.astype(np.float64)
    top_N1 = wide_NV.max(axis=-1, keepdims=True)
    total_N = np.log(np.exp(wide_NV - top_N1).sum(axis=-1)) + top_N1[:, 0]
    chosen: npt.NDArray[np.float64] = total_N - np.take_along_axis(wide_NV, targets_N[:, None], axis=-1)[:, 0]
    return chosen


def batches(places: Places, length: int, at_once: int) -> Iterator[Places]:
    """The places in batches of at most `at_once` rows, each row once a batch.

    In this order a process answers about a place before it sees the token after it: a row's places come in order, and
    its last one comes before the next row, which begins with that token.
    """
    left = np.sort(places)
    while len(left):
        batch: list[int] = []
        later: list[int] = []
        rows: set[int] = set()  # that this batch must not hold any more
        for place in left.tolist():
            row, time = divmod(place, length)
            fits = row not in rows and len(batch) < at_once
            (batch if fits else later).append(place)
            rows.add(row)
            if time == length - 1:
                rows.add(row + 1)  # which begins with the token that this place is asked about
        yield np.array(batch, np.int64)
        left = np.array(later, np.int64)


def replaced(rows: Rows, places: Places, vocabulary: int, random: Random) -> npt.NDArray[np.int32]:
    """The input rows of the places, int32 [B, T], with random ids for all that comes after each place."""
    length = rows.inputs_BT.shape[1]
    row_B, time_B = np.divmod(places, length)
    other_BT = random.integers(0, vocabulary, (len(places), length), dtype=np.int32)
    return np.where(np.arange(length) <= time_B[:, None], rows.inputs_BT[row_B], other_BT).astype(np.int32)
