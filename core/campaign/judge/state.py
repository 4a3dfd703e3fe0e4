"""What is known of the champion's true score and of what each seed adds to it: a normal distribution, and its updates.

A score is the trainer's own mean, plus what its seed adds for every trainer alike, plus noise. Updates are those of a
Kalman filter (Kalman 1960); a candidate's true gain enters by its belief's mean and variance (moments matched).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.campaign.judge.effects import GainBelief

UNKNOWN = 1e3  # standard deviation of a mean before any trial, in units of the noise


@dataclass(frozen=True)
class ScoreModel:
    """How scores scatter, in bits per byte: `seed` is the deviation that a seed adds for all, `trial` the rest."""

    seed: float
    trial: float

    @property
    def total(self) -> float:
        return math.hypot(self.seed, self.trial)


@dataclass(frozen=True)
class MeasuredGain:
    """A candidate's gain by its trials alone, with its standard error, and what `ChampionState.after` needs."""

    gain: float
    error: float
    rows: np.ndarray  # [trials, 1 + seeds]
    kalman: np.ndarray  # [1 + seeds, trials]
    residuals: np.ndarray  # [trials]: scores minus what the champion would be expected to score


class ChampionState:
    """Means [1 + seeds] and covariances of the champion's true score and of what each of `seeds` adds."""

    def __init__(self, model: ScoreModel, seeds: Sequence[int], around: float) -> None:
        self.model, self.seeds = model, tuple(seeds)
        self.mean = np.zeros(1 + len(self.seeds))
        self.mean[0] = around
        self.covariance = np.diag([(UNKNOWN * model.total) ** 2] + [model.seed**2] * len(self.seeds))

    @property
    def score(self) -> float:
        """The champion's believed score: that of a seed that adds nothing."""
        return float(self.mean[0])

    @property
    def deviation(self) -> float:
        return math.sqrt(max(0.0, float(self.covariance[0, 0])))

    def with_trials(self, scores: Mapping[int, float]) -> ChampionState:
        """After trials of the champion itself."""
        if not scores:
            return self
        rows, values = self._rows(scores), np.array(list(scores.values()))
        kalman, _ = self._kalman(rows, self.covariance)
        return self._changed(
            self.mean + kalman @ (values - rows @ self.mean), self.covariance - kalman @ rows @ self.covariance
        )

    def measure(self, scores: Mapping[int, float]) -> MeasuredGain:
        """A candidate's gain over the champion, by generalized least squares over its trials."""
        rows, values = self._rows(scores), np.array(list(scores.values()))
        kalman, inverse = self._kalman(rows, self.covariance)
        residuals = values - rows @ self.mean
        gain = -float(inverse.sum(0) @ residuals / inverse.sum())
        return MeasuredGain(gain, float(inverse.sum() ** -0.5), rows, kalman, residuals)

    def error_with(self, seeds: Sequence[int], champion_seeds: Sequence[int] = ()) -> float:
        """A gain's standard error if a candidate ran with `seeds`, after further trials of the champion."""
        covariance = self.covariance
        if champion_seeds:
            rows = self._rows(champion_seeds)
            covariance = covariance - self._kalman(rows, covariance)[0] @ rows @ covariance
        return float(self._kalman(self._rows(seeds), covariance)[1].sum() ** -0.5)

    def after(self, measured: MeasuredGain, gain: GainBelief) -> ChampionState:
        """What would be known of the candidate if it became the champion."""
        slope = measured.kalman.sum(1)  # of the means, by the true gain
        mean = self.mean + measured.kalman @ measured.residuals + slope * gain.mean
        mean[0] -= gain.mean
        slope[0] -= 1
        covariance = self.covariance - measured.kalman @ measured.rows @ self.covariance
        return self._changed(mean, covariance + np.outer(slope, slope) * gain.variance)

    def _changed(self, mean: np.ndarray, covariance: np.ndarray) -> ChampionState:
        other = copy.copy(self)
        other.mean, other.covariance = mean, covariance
        return other

    def _kalman(self, rows: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gain matrix of an update by such trials, and the inverse of their scores' covariance."""
        crossed = covariance @ rows.T
        inverse = np.linalg.inv(rows @ crossed + np.eye(len(rows)) * self.model.trial**2)
        return crossed @ inverse, inverse

    def _rows(self, seeds: Collection[int]) -> np.ndarray:
        rows = np.zeros((len(seeds), 1 + len(self.seeds)))
        rows[:, 0] = 1
        for place, seed in enumerate(seeds):
            rows[place, 1 + self.seeds.index(seed)] = 1
        return rows
