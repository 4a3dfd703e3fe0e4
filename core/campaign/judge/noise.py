"""How much scores differ by luck, pooled over the trials of a campaign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.campaign.judge.base import Noise, failure
from core.records import Trial

Scores = Mapping[int, float]  # bits per byte by seed


def scores(trials: Iterable[Trial]) -> dict[int, float]:
    """The newest score with each seed. Trials that failed or were disturbed have none."""
    return {
        trial.seed: trial.val_bpb
        for trial in trials
        if failure(trial) is None and trial.val_bpb is not None and not trial.disturbed
    }


class NoisePool:
    """Sums of squares and their degrees of freedom."""

    def __init__(self) -> None:
        self._seeds, self._pairs = (0.0, 0), (0.0, 0)

    def add_seeds(self, one: Scores) -> None:
        """One trainer's scores."""
        self._seeds = _added(self._seeds, one.values())

    def add_pairs(self, one: Scores, other: Scores) -> None:
        """Two trainers' scores: what differs on the seeds that both have."""
        self._pairs = _added(self._pairs, [one[seed] - other[seed] for seed in one.keys() & other.keys()])

    def noise(self) -> Noise:
        (seeds, seeds_freedom), (pairs, pairs_freedom) = self._seeds, self._pairs
        return Noise(
            seeds=seeds / seeds_freedom if seeds_freedom else 0.0,
            seeds_freedom=seeds_freedom,
            pairs=pairs / pairs_freedom if pairs_freedom else 0.0,
            pairs_freedom=pairs_freedom,
        )

    def copy(self) -> NoisePool:
        other = NoisePool()
        other._seeds, other._pairs = self._seeds, self._pairs
        return other


def _added(pool: tuple[float, int], values: Iterable[float]) -> tuple[float, int]:
    known = list(values)
    if len(known) < 2:
        return pool
    mean = sum(known) / len(known)
    return pool[0] + sum((value - mean) ** 2 for value in known), pool[1] + len(known) - 1
