"""Which trials it takes to measure baseline and champion again, and in which order. Runs none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.records import Experiment, Measurement

Role = Literal["baseline", "champion"]


@dataclass(frozen=True)
class Turn:
    """One trial to run: of an experiment's trainer with a seed."""

    role: Role
    experiment: Experiment
    seed: int


def turns(baseline: Experiment, champion: Experiment, seeds: Sequence[int]) -> list[Turn]:
    """Baseline and champion with each seed, the order alternating, so that a drift falls on both alike (ABBA).

    A champion that is the baseline takes no turn of its own.
    """
    found: list[Turn] = []
    for place, seed in enumerate(seeds):
        pair = [Turn("baseline", baseline, seed)]
        if champion.number != baseline.number:
            pair.append(Turn("champion", champion, seed))
        found += pair if place % 2 == 0 else pair[::-1]
    return found


def missing(planned: Sequence[Turn], recorded: Sequence[Measurement]) -> list[Turn]:
    """The turns that have no row yet. A trial that failed had its turn."""
    done = {(one.role, one.trial.seed) for one in recorded}
    return [turn for turn in planned if (turn.role, turn.seed) not in done]
