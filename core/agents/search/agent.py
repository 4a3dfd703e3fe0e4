"""The built-in search: changes a few `# tune:` constants of the champion by expected improvement, and nothing else.

Its model is rebuilt from the history for every proposal, so that a campaign continues in another process with the same
proposals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from core.agents.base import Agent, AgentContext, History
from core.agents.search import moves, points, prior
from core.agents.search.gaussian_process import Gaussian, expected_improvement
from core.agents.search.points import Observations, Spaces, Values
from core.agents.search.prior import Elsewhere, Source
from core.agents.search.teacher import Teacher
from core.events import Notice, OnEvent
from core.records import Proposal, UserError
from core.trainer.constants import read_tunables, write_constants
from core.trainer.literals import changed_values, same

MOST = 3  # constants that one proposal changes: a single one is clearest, but takes many trials to get far
DRAW_SHARE = 0.3  # of their new values come from the whole range, the rest are steps from the champion's
MOVES = 400  # candidates for one proposal
ROUNDS = 5  # of candidates without a new one, after which the search ends
WARM = 3  # scored experiments before the model is used
CERTAIN = 0.3  # of the deviation, before that: the first proposals are what paid elsewhere, not what nobody tried
LEAST_CHANCE = 0.01  # of not failing, however many failed before
CAUTION = 3  # power of that chance: a failure costs a trial and says little about scores
NEAR_MISSES = 8  # discarded changes that are candidates again, alone and in pairs


class SearchAgent(Agent):
    """Search around the champion; its proposals depend on `seed` and the history alone."""

    name = points.CONSTANTS_ONLY

    def __init__(self, seed: int = 0, learn_from: Path | None = None) -> None:
        """`learn_from` is another campaign's folder. UserError if there is nothing to learn from it."""
        self._seed = seed
        self._teacher = None if learn_from is None else Teacher(learn_from)
        self.recorded: Sequence[Source] = prior.shipped()
        self.lessons: Path | None = None  # where the teacher's go; None: the campaign's own file
        self._tell: OnEvent = lambda event: None

    def begin(self, context: AgentContext) -> None:
        super().begin(context)
        self._tell = context.tell
        if self._teacher is not None:
            self._teacher.teach(context, self.lessons)

    def propose(self, history: History) -> Proposal | None:
        """The champion with one to three constants changed, or two near misses combined; None if nothing new is left.

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
        learned = [] if self._teacher is None else [self._teacher.source]
        elsewhere = prior.elsewhere(history, spaces, [*prior.nearest(self.recorded, history), *learned])
        if elsewhere is not None and len(history) == 1:
            self._tell(Notice(f"search: begins with {elsewhere.described}"))
        seen: set[str] = set()
        for _ in range(ROUNDS):
            changes = list(_new(spaces, (*_near_misses(observed), *_moves(rng, spaces)), seen))
            for changed in _by_expected_improvement(changes, observed, spaces, elsewhere):
                text = write_constants(history.champion_text, changed)
                if not history.tried(text):
                    hypothesis = changed_values(observed.champion.values, changed)
                    return Proposal(text=text, hypothesis=hypothesis, agent=self.name)
        return None


def _moves(rng: np.random.Generator, spaces: Spaces) -> Iterator[Values]:
    """Random changes of one to three constants: each a step from the champion's value or a new draw."""
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
    """Each change once, in the text's order and without values that the champion has already. Adds them to `seen`."""
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


def _by_expected_improvement(
    changes: Sequence[Values], observed: Observations, spaces: Spaces, elsewhere: Elsewhere | None
) -> Iterable[Values]:
    """Sorted by expected improvement on the champion; unsorted while too little is known."""
    scored = [point for point in observed.tried if point.val_bpb is not None]
    badness = points.badness([point.val_bpb for point in scored], elsewhere.usual if elsewhere else ())
    if not changes or (elsewhere is None and (len(scored) < WARM or not np.ptp(badness) > 0)):
        return changes
    own = len(scored)
    columns = points.categories(spaces)
    ahead = points.moved(points.encoded([observed.champion], spaces)[0], ({}, *changes), spaces)
    tried, tasks = observed.tried, None
    if elsewhere is not None:
        told = elsewhere.scored
        scored, tasks = [*scored, *told.observations], told.tasks(len(scored))
        badness = np.concatenate([badness, told.badness()])
        tried = [*tried, *elsewhere.observations]
    mean, deviation = Gaussian(points.encoded(scored, spaces), badness, columns, tasks=tasks).predict(ahead)
    # Compared with the model's mean at the champion, not with its score, which is the luckiest of many.
    hope = expected_improvement(mean[1:], deviation[1:] * (CERTAIN if own < WARM else 1), float(mean[0]))
    if len(scored) < len(tried):
        failed = np.array([float(point.val_bpb is None) for point in tried])
        tasks = elsewhere.tasks(len(observed.tried)) if elsewhere else None
        risk, _ = Gaussian(points.encoded(tried, spaces), failed, columns, edges=True, tasks=tasks).predict(ahead)
        hope = hope * np.clip(1 - risk[1:], LEAST_CHANCE, 1) ** CAUTION
    return [changes[int(place)] for place in np.argsort(-hope, kind="stable")]
