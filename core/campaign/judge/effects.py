"""What changes to a trainer usually do: a distribution of true gains, broad at first, learned from a campaign.

A mixture of nothing, good and bad changes, the latter two of many scales each, so that its tails are heavy. Its weights
are fitted by expectation maximization to measured gains with their errors (empirical Bayes: Stephens 2017, "False
discovery rates: a new deal", has the same mixture with one side). All of it lives on a grid, in bits per byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.campaign.judge.base import Effect

_SIDE = 0.03 * 2.0 ** (np.arange(24) / 2)  # in units of the noise: 0.03 to 87
GRID = np.concatenate([-_SIDE[::-1], [0.0], _SIDE])
SCALES = 2.0 ** np.arange(-2, 6)  # of the components, in the same units
# Weights before anything was seen, as if so many experiments had been: nothing, good, bad.
NOTHING, GOOD, BAD = 2.0, 10.0, 5.0
CLEAR = 3.0  # standard errors from which a change surely does something
# Good changes count fully once so large a share of all does something for sure; before that as if so many had been, of
# so many.
OFTEN, FEW, FEW_TOTAL = 0.3, 0.15, 4.0
# Scales: around this share of the median clear effect, by a normal distribution of this many octaves.
SMALLER, OCTAVES, USUAL_SCALE = 0.1, 1.5, 2.0
HALF_LIFE = 60.0  # experiments after which an effect counts half: gains shrink as a trainer gets better
# Standard errors from which a gain is what was measured: the grid is coarser there, and the prior nearly flat.
EVIDENT = 6.0
STEPS = 12  # of the fit
# Of keeping: what each keep costs, in units of the noise, and how much more a loss counts than a gain. A plain positive
# mean keeps half of all changes that do nothing.
KEEP_COST, LOSS_AVERSION = 0.015, 2.2
SURE = 0.5  # least probability of a true gain that is worth a keep for itself
PROMISE = 3.0  # experiments that the prior's promise counts for
LEAST_WEIGHT = 1e-4  # of a point that is looked at
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()


def _components() -> np.ndarray:
    """Each component's weights on the grid [components, points]: nothing, then good and bad ones by scale."""
    rows = [(GRID == 0).astype(float)]
    for sign in (1, -1):
        for scale in SCALES:
            # half a normal distribution; the points lie evenly in the logarithm
            row = np.where(sign * GRID > 0, np.abs(GRID) * np.exp(-0.5 * (GRID / scale) ** 2), 0.0)
            rows.append(row / row.sum())
    return np.array(rows)


COMPONENTS = _components()


def _before(clear: np.ndarray, total: float, counts: np.ndarray) -> np.ndarray:
    """Weights before a campaign, by what its changes so far did for sure: `clear` sizes in units of the noise.

    Small gains can't be told from nothing one by one. Whether they are likely shows in how often changes do anything,
    and how small they may be in how large the clear ones are.
    """
    share = min(1.0, (FEW + float(counts.sum())) / (OFTEN * (FEW_TOTAL + total)))
    centre = np.clip(SMALLER * np.median(clear), 0.5, 8.0) if len(clear) else USUAL_SCALE
    by_scale = np.exp(-0.5 * (np.log2(SCALES / centre) / OCTAVES) ** 2)
    by_scale /= by_scale.sum()
    return np.concatenate([[NOTHING], share * GOOD * by_scale, BAD * by_scale])


@dataclass(frozen=True, kw_only=True)
class GainBelief:
    """What is believed of one change's true gain, in bits per byte."""

    mean: float
    variance: float
    better: float  # probability that it is above zero
    worth: float  # of keeping it: the expected gain less what a keep costs, losses counting more than gains
    weights: np.ndarray  # on the grid


class GainPrior:
    """The distribution of true gains. `unit` is the noise of a trial, in bits per byte."""

    def __init__(self, effects: Sequence[Effect], unit: float) -> None:
        self.unit, self.grid = unit, GRID * unit
        self.utility = np.where(self.grid < 0, LOSS_AVERSION, 1.0) * self.grid - KEEP_COST * unit
        self._gains = np.array([one.gain for one in effects])
        self._errors = np.array([one.error for one in effects])
        self._counts = 0.5 ** (np.arange(len(effects))[::-1] / HALF_LIFE)
        clear = np.abs(self._gains) > CLEAR * self._errors
        before = _before(np.abs(self._gains[clear]) / unit, float(self._counts.sum()), self._counts[clear])
        weights = before / before.sum()
        if effects:
            self._seen = self._likelihoods(self._gains, self._errors[:, None])
            likelihoods = self._seen @ COMPONENTS.T + 1e-300
            for _ in range(STEPS):
                shares = likelihoods * weights
                shares /= shares.sum(1, keepdims=True)
                total = before + self._counts @ shares
                weights = total / total.sum()
        self.weights = weights @ COMPONENTS

    def realism(self, error: float) -> float:
        """What keeping the changes so far was worth, over what the prior alone promises with that error.

        Such promises rest on rare large gains, which little data can't refuse.
        """
        promised = self.value_of_trying(error)
        if not len(self._gains):
            return 1.0
        worth = np.maximum(0.0, self._worths(self._seen * self.weights))
        count = float(self._counts.sum())
        return (PROMISE * promised + float(self._counts @ worth)) / ((PROMISE + count) * (promised + 1e-300))

    def belief(self, gain: float, error: float) -> GainBelief:
        """After a measured gain with its standard error."""
        weights = self.weights * self._likelihoods(np.array([gain]), error)[0]
        total = weights.sum()
        weights = self.weights if total <= 0 else weights / total
        if abs(gain) > EVIDENT * error:
            aversion = LOSS_AVERSION if gain < 0 else 1.0
            return GainBelief(
                mean=gain,
                variance=error**2,
                better=float(gain > 0),
                worth=aversion * gain - KEEP_COST * self.unit,
                weights=weights,
            )
        mean = float(weights @ self.grid)
        return GainBelief(
            mean=mean,
            variance=float(weights @ (self.grid - mean) ** 2),
            better=float(weights[self.grid > 0].sum()),
            worth=float(self._worths(weights[None])[0]),
            weights=weights,
        )

    def value_of_trying(self, error: float) -> float:
        """The expected worth of a new change that is measured with that error and kept if that is worth it."""
        return self._expected(self.weights, self.grid, error, error, 0.0)

    def value_after(self, gain: float, error: float, later_error: float, bonus: float) -> float:
        """The expected worth once further trials have lowered the error of a gain to `later_error`.

        `bonus`: what keeping is worth beside the gain, in bits per byte.
        """
        weights = self.belief(gain, error).weights
        share = (later_error / error) ** 2  # of what was measured before in the later mean
        spread = (1 - share) * (1 / later_error**2 - 1 / error**2) ** -0.5
        return self._expected(weights, share * gain + (1 - share) * self.grid, spread, later_error, bonus)

    def _expected(self, weights: np.ndarray, centres: np.ndarray, spread: float, error: float, bonus: float) -> float:
        """Of what keeping is worth, or 0, where the measured gain is normal around each centre with that spread."""
        likely = weights > LEAST_WEIGHT
        gains = (centres[likely, None] + spread * NODES).ravel()
        chances = (weights[likely, None] * NODE_WEIGHTS).ravel()
        after = self.weights * self._likelihoods(gains, error)
        return float(chances @ np.maximum(0.0, self._worths(after) + bonus))

    def _worths(self, weights: np.ndarray) -> np.ndarray:
        """Of keeping, by each row of weights [n, points] that need not sum to one."""
        total = weights.sum(1) + 1e-300
        unsure = weights @ (self.grid > 0) < SURE * total
        worths: np.ndarray = weights @ self.utility / total
        return np.where(unsure, np.minimum(worths, -KEEP_COST * self.unit), worths)

    def _likelihoods(self, gains: np.ndarray, error: np.ndarray | float) -> np.ndarray:
        """Of each gain [n] at each point of the grid [n, points], up to a factor of each row."""
        exponent = -0.5 * ((gains[:, None] - self.grid) / error) ** 2
        likelihoods: np.ndarray = np.exp(exponent - exponent.max(1, keepdims=True))
        return likelihoods
