"""Which trials it takes to measure baseline and champion again, and in which order. Runs none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.records import Experiment, Measurement, Role


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to run: an experiment's trainer with a seed."""

    role: Role
    experiment: Experiment
    seed: int
    text: str | None = None  # a trainer made from the experiment's, which runs instead


def interleaved(baseline: Experiment, champion: Experiment, seeds: Sequence[int]) -> list[PlannedTrial]:
    """Baseline and champion with each seed, the order alternating, so that a drift falls on both alike (ABBA).

    A champion that is the baseline runs once.
    """
    planned: list[PlannedTrial] = []
    for place, seed in enumerate(seeds):
        pair = [PlannedTrial("baseline", baseline, seed)]
        if champion.number != baseline.number:
            pair.append(PlannedTrial("champion", champion, seed))
        planned += pair if place % 2 == 0 else pair[::-1]
    return planned


def fresh_seeds(count: int, recorded: Sequence[Measurement], used: Collection[int]) -> list[int]:
    """Those that the recorded trials began with, then others that no trial ever had, up to `count`."""
    begun = list(dict.fromkeys(one.trial.seed for one in recorded))
    fresh = 1 + max(used, default=0)
    return begun + list(range(fresh, fresh + max(0, count - len(begun))))


def remaining(planned: Sequence[PlannedTrial], recorded: Sequence[Measurement], attempts: int) -> list[PlannedTrial]:
    """The planned trials that still have to run. One that failed is not repeated, one that was disturbed is.

    After `attempts` disturbed trials the planned one is given up.
    """
    done = {(one.role, one.trial.seed) for one in recorded if not one.trial.disturbed}
    tries = Counter((one.role, one.trial.seed) for one in recorded)
    return [one for one in planned if (one.role, one.seed) not in done and tries[one.role, one.seed] < attempts]
