"""Learns from a campaign's full trials when a trial can hardly end well enough to be kept any more. Pure functions.

At each progress, the final score is regressed on how far the training loss lies above the champion's: a Bayesian line
whose predictions are Student's t. The prior knows little, so that the first trials of a campaign are stopped only where
they are hopeless; what the champion's loss has yet to fall is the scale of all that can still happen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.campaign.statistics import quantile
from core.store.program import STOP_CHANCE
from core.trial.stop_rule import (
    LEAST_PROGRESS,
    NEVER,
    WINDOW,
    Array,
    LossCurve,
    SmoothCurve,
    StopRule,
    recent_mean,
)

LEAST_POINTS = 5  # of a curve that is compared or learned from
AUDITED = 20  # one in so many of the trials that would be stopped runs on in secret
LAST_PROGRESS, _PLACES = 0.95, 17  # where the rule looks last, and at how many places it is learned
# The prior, from the curves of benchmarks/data: bits per byte at the end for one of difference before, the deviation of
# the rest as a share of what the champion's loss has yet to fall (three times what was found), and its freedom.
_SLOPE, _SLOPE_DEVIATION = 0.5, 0.1
_BEND = 0.06  # deviation of the rest where differences are large, as a share of them
_CATCH_UP, _FREEDOM = 0.12, 4
_ROUNDS = 4
_FARTHEST, _LOOKS = 2.0, 800  # bits per byte: differences that margins are looked for among


@dataclass(frozen=True, kw_only=True)
class FullTrial:
    """A trial that ran to its end."""

    curve: LossCurve
    val_bpb: float


def runs_on(commit: str) -> bool:
    """Whether the trial of this commit runs on in secret where it would be stopped: one in AUDITED, by its hash."""
    return int(commit, 16) % AUDITED == 0


def rule(
    champion: FullTrial,
    others: Sequence[FullTrial],
    *,
    bar: float,
    noise: float,
    chance: float = STOP_CHANCE,
    secret: bool = False,
) -> StopRule:
    """The rule for trials that are compared with this trial of the champion.

    `others` are full trials of the campaign with the same seed, its own left out. `bar` is the val_bpb that a trial
    must stay below to have any chance of a keep, `noise` the deviation of a trial's val_bpb.
    """
    smooth = SmoothCurve(champion.curve)
    per_nat = champion.val_bpb / float(smooth.at(1.0))  # bits per byte for a nat a token
    places = np.linspace(LEAST_PROGRESS, LAST_PROGRESS, _PLACES)
    seen = [one for one in others if one.curve.points and smooth.same_loss(*one.curve.array[0, [0, 2]])]
    runs = [
        _Run(
            progress=one.curve.array[:, 1],
            above=per_nat * smooth.differences(one.curve.array, one.curve.batches),
            equal=one.curve.batches == smooth.batches,
            worse=one.val_bpb - champion.val_bpb,
        )
        for one in seen
    ]
    lines = [_Line.fitted(smooth, per_nat, runs, at, noise) for at in places]
    below = bar - champion.val_bpb
    equal, other = (
        tuple(min(NEVER, line.margin(below, chance, paired) / per_nat) for line in lines) for paired in (True, False)
    )
    return StopRule(
        champion=champion.curve, progress=tuple(places.tolist()), equal=equal, other=other, chance=chance, secret=secret
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A full trial beside the champion's, in bits per byte."""

    progress: Array
    above: Array  # difference of the losses at each of these
    equal: bool  # whether the batches are
    worse: float  # difference of the final scores


@dataclass(frozen=True, kw_only=True)
class _Line:
    """What is known at one progress: final minus champion's val_bpb for a difference in bits per byte until then."""

    scale: float  # of the prior: bits per byte
    batch_noise: float  # deviation of a difference of unequal batches, bits per byte
    mean: Array  # intercept and slope, [2]
    covariance: Array  # of these, [2, 2]
    variance: float  # of a score around the line, where the difference is small and the batches are equal
    freedom: int

    @classmethod
    def fitted(cls, smooth: SmoothCurve, per_nat: float, runs: Sequence[_Run], at: float, noise: float) -> _Line:
        yet_to_fall = max(0.0, float(smooth.at(at) - smooth.at(1.0))) * per_nat
        scale = math.hypot(_CATCH_UP * yet_to_fall, noise, 1e-4)
        later = smooth.residuals[smooth.progress >= LEAST_PROGRESS]
        window = max(1.0, float(np.sum((smooth.progress > at - WINDOW) & (smooth.progress <= at))))
        batch_noise = per_nat * (float(later.std()) if len(later) else 0.0) * math.sqrt(2 / window)
        begun = [(run, int(np.searchsorted(run.progress, at, side="right"))) for run in runs if run.progress[0] <= at]
        x = np.array([recent_mean(run.progress[:count], run.above[:count]) for run, count in begun])
        y, paired = np.array([run.worse for run, _ in begun]), np.array([run.equal for run, _ in begun], dtype=bool)
        line = cls(
            scale=scale, batch_noise=batch_noise, mean=np.array([0.0, _SLOPE]),
            covariance=np.diag([scale**2, _SLOPE_DEVIATION**2]), variance=scale**2, freedom=_FREEDOM,
        )  # fmt: skip
        return line.updated(x, y, paired)

    def around(self, x: Array, paired: Array | bool) -> Array:
        """The variance of a score around the line at these differences."""
        unequal = ~np.asarray(paired, dtype=bool) * (_SLOPE * self.batch_noise) ** 2
        return np.asarray(self.variance + (_BEND * x) ** 2 + unequal, dtype=np.float64)

    def updated(self, x: Array, y: Array, paired: Array) -> _Line:
        """After these trials. The line follows from the variance and the variance from the line, in turn."""
        design, prior = np.stack([np.ones_like(x), x], axis=1), np.linalg.inv(self.covariance)
        line = replace(self, freedom=self.freedom + len(x))
        for _ in range(_ROUNDS):
            variances = line.around(x, paired)
            covariance = np.linalg.inv(prior + design.T @ (design / variances[:, None]))
            mean = covariance @ (prior @ self.mean + design.T @ (y / variances))
            rest = np.sum(line.variance / variances * (y - design @ mean) ** 2)
            variance = (self.freedom * self.variance + float(rest)) / line.freedom
            line = replace(line, mean=mean, covariance=np.asarray(covariance, dtype=np.float64), variance=variance)
        return line

    def margin(self, bar: float, chance: float, paired: bool) -> float:
        """The difference above which no trial has that chance to end below the bar; infinite if there is none."""
        x = np.linspace(0.0, _FARTHEST, _LOOKS)
        design = np.stack([np.ones_like(x), x], axis=1)
        deviation = np.sqrt(self.around(x, paired) + np.einsum("ni,ij,nj->n", design, self.covariance, design))
        hopeless = design @ self.mean - bar > quantile(1 - chance, self.freedom) * deviation
        if not hopeless[-1]:
            return math.inf
        last = np.flatnonzero(~hopeless)
        return float(x[last[-1] + 1]) if len(last) else 0.0
