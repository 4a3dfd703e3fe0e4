"""A campaign's experiments as observations for the search: constants, structure, score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.agents.base import History
from core.agents.search import moves
from core.records import Constant, Experiment
from core.trainer.constants import Tunable

RECENT, BEST = 90, 60  # experiments that are looked at in a long campaign
FAILED = 0.5  # badness above the worst score
CONSTANTS_ONLY = "search"  # the agent whose experiments change nothing but constants

Values = dict[str, Constant]
Spaces = Mapping[str, Tunable]


@dataclass(frozen=True)
class Observation:
    """One experiment."""

    values: Values
    val_bpb: float | None  # None: it failed; of a stopped one, that of the usual bad one
    structure: int  # the same number for trainers that are known to differ in constants only


@dataclass(frozen=True)
class Observations:
    """What a history holds about the champion's constants."""

    tried: list[Observation]  # oldest first
    champion: Observation
    misses: list[Values]  # what discarded experiments changed, the smallest loss against their champion first


def observe(history: History, spaces: Spaces) -> Observations:
    """What was tried. A constant that an experiment lacks, or whose value fits no range, has the champion's value."""
    here = history.champion
    found = {e.number: e for e in (*history.best(BEST), *history.recent(RECENT), here)}
    experiments = [found[number] for number in sorted(found)]
    constants = {e.commit: history.constants(e.number) for e in experiments}
    structures: dict[str, int] = {}  # by commit
    for e in experiments:  # a parent comes before its children
        inherits = e.agent == CONSTANTS_ONLY
        structures[e.commit] = structures.setdefault(e.parent, len(structures)) if inherits else len(structures)
    own = {name: tunable.value for name, tunable in spaces.items()}
    points = []
    bad = [e.val_bpb for e in experiments if e.val_bpb is not None and e.val_bpb > (here.val_bpb or 0.0)]
    usual = float(np.median(bad)) if bad else None
    for e in experiments:
        values = fitted(constants[e.commit], spaces)
        # A failure with the champion's own constants came from an edit elsewhere, and says nothing about them.
        score = usual if e.verdict == "stopped" else e.val_bpb
        if score is not None or values != own:
            points.append(Observation(values, score, structures[e.commit]))
    champion = Observation(own, here.val_bpb, structures[here.commit])
    return Observations(points, champion, _misses(experiments, constants, spaces))


def badness(scores: Sequence[float | None] | np.ndarray, usual: Sequence[float] = ()) -> np.ndarray:
    """How bad each is, float64 [scores]: 0 for the lowest score, then log1p of the distance from it; failures worst.

    The logarithm keeps scores that are far too bad to matter from drowning differences between good ones. Distances are
    measured in their median; `usual` are distances from elsewhere, for the median of few.
    """
    found = np.array([np.nan if score is None else score for score in scores])
    if np.isnan(found).all():
        return np.zeros(len(scores))
    above = found - np.nanmin(found)
    median = np.median([*above[above > 0], *usual]) if (above > 0).any() or len(usual) else 1.0
    bad: np.ndarray = np.log1p(above / float(median))
    return np.where(np.isnan(bad), np.nanmax(bad) + FAILED, bad)


def distance(scores: Sequence[float | None]) -> float:
    """The median of the distances from the lowest score; 1 if there is none."""
    found = np.array([score for score in scores if score is not None])
    above = found - found.min()
    return float(np.median(above[above > 0])) if (above > 0).any() else 1.0


def encoded(points: Sequence[Observation], spaces: Spaces) -> np.ndarray:
    """A row for each point, a column for each constant and one for the structure: float64 [points, constants + 1]."""
    rows = [
        [*(moves.place(tunable, point.values[name]) for name, tunable in spaces.items()), point.structure]
        for point in points
    ]
    return np.array(rows, dtype=np.float64)


def moved(row: np.ndarray, changes: Sequence[Values], spaces: Spaces) -> np.ndarray:
    """The encoded point `row` with each of the changes, float64 [changes, constants + 1]."""
    rows = np.tile(row, (len(changes), 1))
    column = {name: number for number, name in enumerate(spaces)}
    for number, changed in enumerate(changes):
        for name, value in changed.items():
            rows[number, column[name]] = moves.place(spaces[name], value)
    return rows


def categories(spaces: Spaces) -> np.ndarray:
    """Which of these columns are categories without an order, bool [constants + 1]."""
    return np.array([*(not moves.ordered(tunable) for tunable in spaces.values()), True])


def fitted(constants: Mapping[str, Constant], spaces: Spaces) -> Values:
    """The values of these constants; the champion's for one that is missing or fits no range."""
    return {name: _fitting(tunable, constants.get(name)) for name, tunable in spaces.items()}


def _fitting(tunable: Tunable, value: Constant | None) -> Constant:
    return tunable.value if value is None or moves.place(tunable, value) is None else value


def _misses(experiments: Sequence[Experiment], constants: Mapping[str, Values], spaces: Spaces) -> list[Values]:
    close = [e for e in experiments if e.verdict == "discard" and e.gain is not None and e.parent in constants]
    misses = []
    for e in sorted(close, key=lambda e: (-(e.gain or 0), e.number)):
        old, new = constants[e.parent], constants[e.commit]
        changed = {name: new[name] for name in spaces if name in old and name in new and new[name] != old[name]}
        if changed and all(moves.allowed(spaces[name], value) for name, value in changed.items()):
            misses.append(changed)
    return misses
