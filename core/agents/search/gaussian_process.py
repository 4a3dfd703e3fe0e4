"""A Gaussian process for few points in many coordinates: mostly a sum of one function for each coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Share of the sum. Each point that moved a coordinate shows that coordinate's effect, whatever else moved: a sum learns
# from tens of points what a product over all coordinates needs thousands for. A wide product models the interactions.
ADDITIVE = 0.9
PRODUCT_POWER = 0.25
# The likeliest pair is chosen: widths in units of a range, and variances of the noise in units of the signal's.
WIDTHS = (0.2, 0.4, 0.8)
NOISES = (0.001, 0.01, 0.1, 0.4)
WEIGHT_STEPS = 5
EVEN_SHARE = 0.2  # of equal weights, mixed in at every step: few points determine the weights poorly
NO_VARIANCE = 1e-9
LEVEL = 10.0  # variance of each task's own level, in units of the signal's: nothing is known of it


@dataclass(frozen=True)
class Tasks:
    """Whose each point is, int [n], and how far the tasks' effects correlate, float [tasks, tasks], 1 on its diagonal.

    The intrinsic model of coregionalization (Bonilla, Chai & Williams 2007), with a level for each task.
    """

    of: np.ndarray
    likeness: np.ndarray


class Gaussian:
    """Rasmussen & Williams 2006, chapters 2 and 5; the coordinates' weights by Zhou et al. 2019, arXiv:1509.07426.

    `X` float [n, d]: numbers scaled so that a range has length 1, and where `categorical` bool [d] the number of a
    category, which is as far from every other; `y` float [n], not all equal. `edges`: `y` may jump. `tasks`: points
    may come from several, whose levels differ and whose effects are alike; what is predicted is task 0.
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: np.ndarray,
        *,
        edges: bool = False,
        tasks: Tasks | None = None,
    ) -> None:
        self._X, self._categorical, self._edges, self._tasks = X, categorical, edges, tasks
        self._mean, self._scale = float(y.mean()), float(y.std())
        y = (y - self._mean) / self._scale
        n, d = X.shape
        even = np.full(d, 1 / d)
        best = -math.inf
        for width in WIDTHS:
            parts, product, level = self._kernels(X, width, own=False)
            signal = _mixed(even, parts, product) + level
            for noise in NOISES:
                inverse, log_determinant = _inverse(signal + noise * np.eye(n))
                likelihood = -0.5 * n * math.log(y @ inverse @ y / n) - 0.5 * log_determinant
                if likelihood > best:
                    best, self._width, self._noise = likelihood, width, noise
        parts, product, level = self._kernels(X, self._width, own=False)
        self._weights = even
        for step in range(WEIGHT_STEPS + 1):
            self._inverse, _ = _inverse(_mixed(self._weights, parts, product) + level + self._noise * np.eye(n))
            self._alpha = self._inverse @ y
            self._signal = float(y @ self._alpha) / n
            if step < WEIGHT_STEPS:
                explained = np.einsum("i,dij,j->d", self._alpha, parts, self._alpha, optimize=True) / self._signal
                expected = np.einsum("ij,dij->d", self._inverse, parts, optimize=True)
                weights = self._weights * np.sqrt(np.maximum(explained, 1e-3) / np.maximum(expected, 1e-9))
                weights = weights / weights.sum() + EVEN_SHARE * even
                self._weights = weights / weights.sum()

    def predict(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the function, without the noise, at Z [m, d]: two of [m]."""
        parts, product, level = self._kernels(Z, self._width)
        cross = _mixed(self._weights, parts, product) + level
        mean = cross @ self._alpha
        prior = 1.0 if self._tasks is None else 1.0 + LEVEL
        variance = self._signal * np.maximum(
            prior - np.einsum("mi,ij,mj->m", cross, self._inverse, cross, optimize=True), NO_VARIANCE
        )
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)

    def _kernels(
        self, Z: np.ndarray, width: float, *, own: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        """One kernel for each coordinate [d, m, n], a product over all of them [m, n], and the tasks' levels [m, n].

        `own`: Z are points of task 0; else they are X.
        """
        exponents = Z.T[:, :, None] - self._X.T[:, None, :]
        apart = exponents[self._categorical] != 0
        if self._edges:
            exponents = np.abs(exponents) / width
        else:
            exponents *= exponents
            exponents *= 0.5 / width**2
        exponents[self._categorical] = apart
        product = np.exp(-PRODUCT_POWER * exponents.sum(0))
        parts = np.exp(-exponents)
        parts[self._categorical] = ~apart
        if self._tasks is None:
            return parts, product, 0.0
        of = self._tasks.of
        rows = np.zeros(len(Z), dtype=int) if own else of
        alike = self._tasks.likeness[np.ix_(rows, of)]
        return parts * alike, product * alike, LEVEL * (rows[:, None] == of)


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """How far below `best` each is to be expected, where above counts as nothing (Jones et al. 1998)."""
    u = (best - mean) / deviation
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in u])
    improvement: np.ndarray = deviation * (u * below + np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi))
    return improvement


def _mixed(weights: np.ndarray, parts: np.ndarray, product: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = ADDITIVE * np.tensordot(weights, parts, 1) + (1 - ADDITIVE) * product
    return mixed


def _inverse(K: np.ndarray) -> tuple[np.ndarray, float]:
    """Of a symmetric positive definite matrix, and the logarithm of its determinant."""
    root = np.linalg.cholesky(K)
    half = np.linalg.solve(root, np.eye(len(K)))
    return half.T @ half, 2 * float(np.log(np.diag(root)).sum())
