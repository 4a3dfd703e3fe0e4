"""The built-in search: changes a few `# tune:` constants of the champion at a time, where a model of the history
hopes most.

Rebuilt from the history at every proposal, so that a campaign can go on in another process with the same proposals.
It never edits anything but constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from core.agents.base import Agent, History
from core.agents.search import moves, points
from core.agents.search.gaussian_process import Gaussian, expected_improvement
from core.agents.search.points import Observations, Spaces, Values
from core.records import Proposal, UserError
from core.trainer.constants import read_tunables, write_constants
from core.trainer.literals import literal, same

MOST = 3  # constants that a move changes: one alone tells most about itself, but takes many trials to get far
DRAW_SHARE = 0.3  # of their new values come from the whole range, the rest are steps from the champion's
MOVES = 400  # that are weighed for one proposal
ROUNDS = 5  # of them, before nothing new is believed to be left
WARM = 3  # experiments before anything is weighed
LEAST_CHANCE = 0.01  # of not failing, whatever failed before
CAUTION = 3  # power of that chance: a failure costs a trial, and tells little about scores
NEAR_MISSES = 8  # of the discarded changes: weighed on today's champion, alone and two at a time


class SearchAgent(Agent):
    """Champion-centred search, deterministic by `seed` and the number of the experiment."""

    name = points.CONSTANTS_ONLY

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def propose(self, history: History) -> Proposal | None:
        """One to three constants changed, or two near misses at once; None once nothing new is found in the ranges.

        Raises UserError if the champion has no constant to tune.
        """
        spaces = {
            name: tunable
            for name, tunable in read_tunables(history.champion_text).items()
            if name not in history.program.fixed
        }
        if not spaces:
            raise UserError(
                "the search has nothing to change: the champion's train.py has no constant with a `# tune:` comment "
                "that program.md leaves free; add one, such as `MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2`"
            )
        rng = np.random.default_rng([self._seed, len(history)])
        observed = points.observe(history, spaces)
        refused: set[str] = set()
        for _ in range(ROUNDS):
            changes = list(_new(spaces, (*_near_misses(observed), *_moves(rng, spaces)), refused))
            for changed in _most_hopeful_first(changes, observed, spaces):
                text = write_constants(history.champion_text, changed)
                if not history.tried(text):
                    return Proposal(text=text, hypothesis=_hypothesis(changed, spaces), agent=self.name)
        return None


def _moves(rng: np.random.Generator, spaces: Spaces) -> Iterator[Values]:
    """One to three constants of the champion, each a step away or drawn anew."""
    names = sorted(spaces)
    for _ in range(MOVES):
        size = 1 + int(rng.integers(min(MOST, len(names))))
        chosen = set(rng.choice(names, size=size, replace=False).tolist())
        yield {
            name: moves.draw(rng, spaces[name]) if rng.random() < DRAW_SHARE else moves.step(rng, spaces[name])
            for name in spaces
            if name in chosen
        }


def _near_misses(observed: Observations) -> Iterator[Values]:
    """Discarded changes that came close, each alone and every two together."""
    closest = [changed for changed in observed.misses if len(changed) <= MOST][:NEAR_MISSES]
    yield from closest
    for one, other in combinations(closest, 2):
        yield {**other, **one}


def _new(spaces: Spaces, changes: Iterable[Values], seen: set[str]) -> Iterator[Values]:
    """Each change once, in the text's order and without what the champion has anyway. Adds them to `seen`."""
    for change in changes:
        changed = {
            name: change[name]
            for name, tunable in spaces.items()
            if name in change and not same(change[name], tunable.value)
        }
        key = repr(changed)
        if changed and key not in seen:
            seen.add(key)
            yield changed


def _most_hopeful_first(changes: Sequence[Values], observed: Observations, spaces: Spaces) -> Iterable[Values]:
    """By the improvement on the champion that is to be expected; as they come while too little was tried."""
    scored = [point for point in observed.points if point.val_bpb is not None]
    badness = points.badness(scored)
    if len(scored) < WARM or not np.ptp(badness) > 0 or not changes:
        return changes
    columns = points.categories(spaces)
    ahead = points.moved(points.encoded([observed.champion], spaces)[0], ({}, *changes), spaces)
    mean, deviation = Gaussian(points.encoded(scored, spaces), badness, columns).predict(ahead)
    # Held against what is believed of the champion: its score is the luckiest of many.
    hope = expected_improvement(mean[1:], deviation[1:], float(mean[0]))
    if len(scored) < len(observed.points):
        failed = np.array([float(point.val_bpb is None) for point in observed.points])
        risk, _ = Gaussian(points.encoded(observed.points, spaces), failed, columns, edges=True).predict(ahead)
        hope = hope * np.clip(1 - risk[1:], LEAST_CHANCE, 1) ** CAUTION
    return [changes[int(place)] for place in np.argsort(-hope, kind="stable")]


def _hypothesis(changed: Values, spaces: Spaces) -> str:
    return ", ".join(f"{name} {literal(spaces[name].value)} -> {literal(value)}" for name, value in changed.items())
