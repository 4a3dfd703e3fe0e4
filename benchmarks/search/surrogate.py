"""What a trial of the `cpu` preset would score, fitted to the recorded ones: a function of the constants, plus noise.

Three parts: how long a step takes (a linear model of logarithms), whether that is too long for the budget, and the
score (a Gaussian process over the constants and the number of steps). Only NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.search import space
from benchmarks.search.space import Spaces
from core.agents.search.recorded import Row
from core.records import Constant

VOCABULARY, DEVICE_ROWS = 2048, 8  # the cpu preset's
FITTING_STEPS, RATE = 300, 0.05  # of Adam (Kingma & Ba 2015), on logarithms
# Priors of those logarithms: mean and standard deviation. The widths' is that of Hvarfner et al. 2024, for inputs in
# unit ranges (arXiv:2402.02229); the noise's says only that most of the scores' variance is no noise.
WIDTH_PRIOR, NOISE_PRIOR = (math.sqrt(2), math.sqrt(3)), (math.log(1e-3), 1.5)
FLOOR = 1.4  # bits per byte; scores are fitted as log(score - FLOOR), so that the low ones count most


class Regression:
    """A Gaussian process with Matern-5/2 kernel, a width for each input, fitted by its posterior's maximum.

    Rasmussen & Williams 2006, chapters 2, 4 and 5. `X` [n, d] with `owners` [d], the input that each column belongs
    to; `y` [n].
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, owners: np.ndarray) -> None:
        self._X, self._owners = X, owners
        self._mean, self._scale = float(y.mean()), float(y.std())
        self._y = (y - self._mean) / self._scale
        self._inputs = int(owners.max()) + 1
        widths = np.full(self._inputs, WIDTH_PRIOR[0] + 0.5 * math.log(self._inputs))
        self._centre = widths
        self._squares = self._squared(X)
        # widths of the inputs, signal, noise
        self.theta = self._fit(np.concatenate([widths, [0.0, NOISE_PRIOR[0]]]))
        K, _ = self._kernel(self._squares, self.theta)
        K[np.diag_indices(len(y))] += math.exp(self.theta[-1])
        self._root = np.linalg.cholesky(K)
        self._alpha = np.linalg.solve(self._root.T, np.linalg.solve(self._root, self._y))

    @property
    def noise(self) -> float:
        """Standard deviation of what the inputs don't explain, in units of y."""
        return self._scale * math.exp(0.5 * self.theta[-1])

    @property
    def widths(self) -> np.ndarray:
        """Of each input, in units of its range: a large one hardly matters."""
        return np.exp(self.theta[: self._inputs])

    def __call__(self, Z: np.ndarray) -> np.ndarray:
        """The mean at Z [m, d]."""
        K, _ = self._kernel(self._squared(Z), self.theta)
        return self._mean + self._scale * (K @ self._alpha)

    def left_out(self) -> np.ndarray:
        """What each point would be predicted as without itself, widths and noise as they are [n]."""
        inverse = np.linalg.solve(self._root.T, np.linalg.solve(self._root, np.eye(len(self._y))))
        return self._mean + self._scale * (self._y - self._alpha / np.diag(inverse))

    def _squared(self, Z: np.ndarray) -> np.ndarray:
        """Squared distances [inputs, m, n]."""
        squares = (Z.T[:, :, None] - self._X.T[:, None, :]) ** 2
        return np.stack([squares[self._owners == number].sum(0) for number in range(self._inputs)])

    def _kernel(self, squares: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kernel, and what its derivative by a squared distance in units of the width is."""
        distance = np.sqrt(5 * np.tensordot(np.exp(-2 * theta[: self._inputs]), squares, 1) + 1e-12)
        decay = math.exp(theta[-2]) * np.exp(-distance)
        return (1 + distance + distance**2 / 3) * decay, -(5 / 6) * (1 + distance) * decay

    def _fit(self, theta: np.ndarray) -> np.ndarray:
        first, second = np.zeros_like(theta), np.zeros_like(theta)
        for step in range(1, FITTING_STEPS + 1):
            slope = self._slope(theta)
            first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
            ahead = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
            theta = theta + RATE * (1 - step / FITTING_STEPS) * ahead
        return theta

    def _slope(self, theta: np.ndarray) -> np.ndarray:
        """Of the logarithm of the posterior density."""
        K, by_square = self._kernel(self._squares, theta)
        noise = math.exp(theta[-1])
        inverse = np.linalg.inv(K + noise * np.eye(len(K)))
        alpha = inverse @ self._y
        outer = np.outer(alpha, alpha) - inverse
        widths = theta[: self._inputs]
        by_width = np.tensordot(self._squares, outer * by_square, 2) * -np.exp(-2 * widths)
        slope = np.concatenate([by_width, [0.5 * np.sum(outer * K), 0.5 * noise * np.trace(outer)]])
        slope[: self._inputs] -= (widths - self._centre) / WIDTH_PRIOR[1] ** 2
        slope[-1] -= (theta[-1] - NOISE_PRIOR[0]) / NOISE_PRIOR[1] ** 2
        return slope


class StepTime:
    """Seconds of one step: linear in the logarithms of its sizes, least squares with a little ridge."""

    def __init__(self, rows: Sequence[Row]) -> None:
        made = [row for row in rows if row.steps >= 1 and row.verdict == "scored"]
        X = np.array([self._features(row.constants) for row in made])
        y = np.log([row.train_seconds / row.steps for row in made])
        self._weights = np.linalg.solve(X.T @ X + 1e-2 * np.eye(X.shape[1]), X.T @ y)

    def __call__(self, values: Mapping[str, Constant]) -> float:
        return math.exp(float(self._features(values) @ self._weights))

    @staticmethod
    def _features(values: Mapping[str, Constant]) -> np.ndarray:
        depth, ratio, head, length, batch = (
            int(str(values[name]))
            for name in ("DEPTH", "ASPECT_RATIO", "HEAD_DIM", "SEQUENCE_LENGTH", "TOTAL_BATCH_SIZE")
        )
        width = -(-depth * ratio // head) * head
        flops = 6 * (12 * depth * width**2 + VOCABULARY * width) + 12 * depth * width * length
        tokens = max(batch, DEVICE_ROWS * length)
        sizes = (flops * tokens / 5e10, depth, width, length, tokens, head)
        return np.array([1.0, *map(math.log, sizes)])


@dataclass(frozen=True)
class Quality:
    """How well left-out rows are predicted; errors in bits per byte."""

    rows: int
    error: float  # root mean square
    r2: float  # of the variance, against the mean of all
    constant_error: float  # of that mean
    error_low: float  # of the better half
    r2_low: float
    failures: float  # share of rows of which it is predicted rightly whether they fail
    always_scored: float  # that share for the prediction that none fails


class Surrogate:
    """`noise_free(constants)` is the score, None where it fails; calling it adds the noise of a trial."""

    def __init__(self, rows: Sequence[Row], spaces: Spaces, budget: float, seed: int = 1) -> None:
        self._spaces, self._budget = spaces, budget
        rows = [row for row in rows if row.seed == seed]
        scored = [row for row in rows if row.val_bpb is not None]
        self._time = StepTime(rows)
        self._slowest = self._split(rows)
        X, self.owners = self._inputs([row.constants for row in scored])
        self._score = Regression(X, _to_fit(np.array([row.val_bpb for row in scored])), self.owners)

    def noise_free(self, values: Mapping[str, Constant]) -> float | None:
        """Bits per byte, or None where the trial would fail."""
        if self.fails(values):
            return None
        return float(_from_fit(self._score(self._inputs([values])[0]))[0])

    def steps(self, values: Mapping[str, Constant]) -> float:
        """How many the budget holds."""
        return self._budget / self._time(values)

    def fails(self, values: Mapping[str, Constant]) -> bool:
        """A step that takes longer than any that was seen to end in a score."""
        return self._time(values) > self._slowest

    @property
    def widths(self) -> dict[str, float]:
        """Of each constant, and of the steps, in units of their ranges."""
        return dict(zip([*self._spaces, "steps"], self._score.widths.tolist(), strict=True))

    def _inputs(self, points: Sequence[Mapping[str, Constant]]) -> tuple[np.ndarray, np.ndarray]:
        X, owners = space.encode(self._spaces, points)
        steps = [math.log(max(self.steps(point), 0.5)) / math.log(100) for point in points]
        return np.column_stack([X, steps]), np.append(owners, owners.max() + 1)

    def _split(self, rows: Sequence[Row]) -> float:
        """The seconds of a step that separate failures from scores with the fewest mistakes."""
        times = np.array([self._time(row.constants) for row in rows])
        failed = np.array([row.val_bpb is None for row in rows])
        order = np.argsort(times)
        edges = np.concatenate([[times[order[0]] / 2], np.sqrt(times[order][:-1] * times[order][1:]), [np.inf]])
        return float(min(edges, key=lambda edge: (np.sum((times > edge) != failed), -edge)))


def crossvalidated(rows: Sequence[Row], spaces: Spaces, budget: float, folds: int = 10, seed: int = 0) -> Quality:
    """Every part fitted anew without a fold, which is then predicted. Repeats of one point stay in one fold."""
    rows = [row for row in rows if row.seed == 1]
    points = sorted({repr(row.constants) for row in rows})
    shuffled = np.random.default_rng(seed).permutation(len(points))
    fold_of = {points[int(place)]: number % folds for number, place in enumerate(shuffled)}
    means, truth, right = [], [], []
    for fold in range(folds):
        surrogate = Surrogate([row for row in rows if fold_of[repr(row.constants)] != fold], spaces, budget)
        for row in (row for row in rows if fold_of[repr(row.constants)] == fold):
            right.append(surrogate.fails(row.constants) == (row.val_bpb is None))
            if row.val_bpb is not None:
                X, _ = surrogate._inputs([row.constants])
                means.append(float(_from_fit(surrogate._score(X))[0]))
                truth.append(row.val_bpb)
    predicted, scores = np.array(means), np.array(truth)
    low = scores <= np.median(scores)
    error, error_low = (float(np.sqrt(np.mean((predicted - scores)[which] ** 2))) for which in (slice(None), low))
    return Quality(
        rows=len(scores),
        error=error,
        r2=1 - error**2 / float(scores.var()),
        constant_error=float(scores.std()),
        error_low=error_low,
        r2_low=1 - error_low**2 / float(scores[low].var()),
        failures=float(np.mean(right)),
        always_scored=float(np.mean([row.val_bpb is not None for row in rows])),
    )


def noise_of(rows: Sequence[Row], seed: int = 1) -> tuple[float, int]:
    """Standard deviation of the scores of one point and one seed, pooled over points, and its degrees of freedom."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.val_bpb is not None and row.seed == seed:
            groups.setdefault(repr(row.constants), []).append(row.val_bpb)
    squares = sum(float(np.sum((np.array(group) - np.mean(group)) ** 2)) for group in groups.values())
    freedom = sum(len(group) - 1 for group in groups.values())
    return math.sqrt(squares / freedom), freedom


def _to_fit(scores: np.ndarray) -> np.ndarray:
    return np.log(scores - FLOOR)


def _from_fit(fitted: np.ndarray) -> np.ndarray:
    return FLOOR + np.exp(fitted)
