"""What the search knows before a campaign's own trials: those that come with the package, and another campaign's.

From elsewhere come constants and which were better, not scores: each source's scores are compared with one another only
(`points.badness`). How much a source says of a campaign falls with the distance between their scales.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.agents.base import History
from core.agents.search import points, recorded
from core.agents.search.gaussian_process import Tasks
from core.agents.search.points import Observation, Spaces
from core.records import Constant, Experiment

RHO = 0.8  # correlation of what the constants do in two campaigns of one scale
SCALES = math.log(8)  # distance in a scale's logarithms over which that falls by exp(-1/2)
FAR = 0.25  # likeness below which a source is left out: draws are better than a guess from so far
MANY = 50  # steps of a recorded trial that says what pays once a model learns, not how to make it learn at all
WEIGHT = 8  # of a source's median distance, in distances of the campaign's own
ALIKE = 0.5  # of a source's tuned constants, those that the trainer must have: else it is another trainer


@dataclass(frozen=True)
class Scale:
    """Of a campaign: what its baseline's trial came to."""

    steps: float
    tokens_per_parameter: float

    def likeness(self, other: Scale) -> float:
        """RHO for an equal scale, towards 0 with the distance."""
        apart = (
            math.log(self.steps / other.steps),
            math.log(self.tokens_per_parameter / other.tokens_per_parameter),
        )
        return RHO * math.exp(-0.5 * sum((one / SCALES) ** 2 for one in apart))


@dataclass(frozen=True)
class PriorTrial:
    """One trial from elsewhere."""

    constants: Mapping[str, Constant]
    val_bpb: float | None  # None: it failed


@dataclass(frozen=True)
class Source:
    """Trials from elsewhere, with one yardstick, and the constants that they tuned."""

    name: str  # "recorded trials", or a campaign's folder
    trials: Sequence[PriorTrial]
    tuned: frozenset[str]
    scale: Scale

    def knows(self, constants: Mapping[str, Constant]) -> bool:
        """Whether it is about a trainer with these constants."""
        return len(self.tuned & constants.keys()) >= ALIKE * len(self.tuned)


@dataclass(frozen=True)
class Elsewhere:
    """What the sources hold about a campaign's constants, beside its own trials."""

    observations: Sequence[Observation]
    sources: np.ndarray  # whose each is, int from 1
    likeness: np.ndarray  # of the effects in the campaign and in each source
    usual: Sequence[float]  # distances from a best score, for a campaign that has few of its own
    described: str  # for people

    @property
    def scored(self) -> Elsewhere:
        """Without what failed."""
        there = np.array([one.val_bpb is not None for one in self.observations])
        observations = [one for one in self.observations if one.val_bpb is not None]
        return replace(self, observations=observations, sources=self.sources[there])

    def badness(self) -> np.ndarray:
        """`points.badness` within each source, float64 [observations]."""
        scores = np.array([one.val_bpb for one in self.observations])
        return np.concatenate([points.badness(scores[self.sources == one]) for one in np.unique(self.sources)])

    def tasks(self, own: int) -> Tasks:
        """For a model of the campaign's `own` points, followed by these."""
        return Tasks(np.concatenate([np.zeros(own, dtype=int), self.sources]), self.likeness)


def elsewhere(history: History, spaces: Spaces, sources: Sequence[Source]) -> Elsewhere | None:
    """What the sources say of the champion's constants; None if none is about such a trainer, or none is near."""
    scale = scale_of(history.experiment(0))
    constants = history.constants(history.champion.number)
    near = [] if scale is None else [one for one in sources if one.knows(constants) and one.scale.likeness(scale) > FAR]
    if scale is None or not near:
        return None
    scales = [scale, *(one.scale for one in near)]
    likeness = np.array([[one.likeness(other) for other in scales] for one in scales])
    np.fill_diagonal(likeness, 1.0)
    observations = [
        Observation(points.fitted(trial.constants, spaces), trial.val_bpb, 0) for one in near for trial in one.trials
    ]
    usual = [points.distance([trial.val_bpb for trial in one.trials]) for one in near for _ in range(WEIGHT)]
    whose = np.repeat(np.arange(1, len(scales)), [len(one.trials) for one in near])
    described = [
        f"{len(one.trials)} of {one.name}, taken to correlate with this campaign by {one.scale.likeness(scale):.2f}"
        for one in near
    ]
    return Elsewhere(observations, whose, likeness, usual, " and ".join(described))


@functools.cache
def shipped() -> tuple[Source, ...]:
    """The recorded trials that come with the package."""
    return of_table(recorded.read())


def of_table(rows: Sequence[recorded.Row]) -> tuple[Source, ...]:
    """Recorded trials, the first the baseline's, as sources of two scales: all of them, and those of MANY steps."""
    rows = [row for row in rows if row.seed == rows[0].seed]
    quick = [row for row in rows if row.steps >= MANY and row.val_bpb is not None]
    return _source(rows, rows[:1]), _source(quick, quick)


def nearest(sources: Sequence[Source], history: History) -> list[Source]:
    """Of sources that share trials, the one whose scale is the nearest to the campaign's."""
    scale = scale_of(history.experiment(0))
    return [] if scale is None or not sources else [max(sources, key=lambda one: one.scale.likeness(scale))]


def _source(rows: Sequence[recorded.Row], typical: Sequence[recorded.Row]) -> Source:
    """Of the scale that the rows `typical` have in the median."""
    tokens = [
        row.steps * float(str(row.constants["TOTAL_BATCH_SIZE"])) / row.parameters for row in typical if row.parameters
    ]
    return Source(
        name="the recorded trials",
        trials=[PriorTrial(row.constants, row.val_bpb) for row in rows],
        tuned=frozenset(rows[0].constants),
        scale=Scale(statistics.median(row.steps for row in typical), statistics.median(tokens)),
    )


def scale_of(experiment: Experiment) -> Scale | None:
    """None for a baseline whose trial doesn't say."""
    trial = experiment.trials[0] if experiment.trials else None
    if trial is None or not trial.parameters or not trial.steps or not trial.tokens:
        return None
    return Scale(trial.steps, trial.tokens / trial.parameters)
