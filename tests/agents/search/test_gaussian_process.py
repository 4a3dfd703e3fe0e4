"""The Gaussian process behind the search, on functions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.agents.search.gaussian_process import Gaussian, expected_improvement


def test_a_sum_over_many_coordinates_is_learnt_from_few_points() -> None:
    """Sixty points in twelve coordinates, three of which matter: unseen ones are predicted to a few percent."""
    rng = np.random.default_rng(3)

    def truth(X: np.ndarray) -> np.ndarray:
        return (X[:, 0] - 0.3) ** 2 + 0.5 * X[:, 5] + 0.3 * np.sin(3 * X[:, 7])

    X, Z = rng.uniform(size=(60, 12)), rng.uniform(size=(200, 12))
    belief = Gaussian(X, truth(X) + 0.005 * rng.standard_normal(60), np.zeros(12, dtype=bool))
    mean, deviation = belief.predict(Z)
    error = mean - truth(Z)
    assert 1 - np.mean(error**2) / np.var(truth(Z)) > 0.9
    assert 0.5 < np.sqrt(np.mean((error / deviation) ** 2)) < 2  # it knows how wrong it is
    assert set(np.argsort(-belief._weights)[:3]) == {0, 5, 7}


def test_it_is_sure_where_it_looked_and_nowhere_else() -> None:
    X = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.2, 0.0]])
    belief = Gaussian(X, np.array([1.0, 2.0, 3.0, 2.1]), np.array([False, False]))
    mean, deviation = belief.predict(np.array([[0.2, 0.0], [0.9, 0.9]]))
    assert mean[0] == pytest.approx(2.0, abs=0.1)
    assert deviation[1] > 5 * deviation[0]


def test_categories_are_alike_only_with_themselves() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(size=30), rng.integers(3, size=30)])
    y = X[:, 0] + np.array([0.0, 5.0, 0.5])[X[:, 1].astype(int)]
    belief = Gaussian(X, y, np.array([False, True]))
    mean, _ = belief.predict(np.array([[0.5, 0], [0.5, 1], [0.5, 2], [0.5, 7]]))
    assert mean[:3] == pytest.approx([0.5, 5.5, 1.0], abs=0.3)
    assert mean[3] == pytest.approx(y.mean(), abs=1.0)  # never seen: as the others are in the mean


def test_expected_improvement_is_the_mean_of_what_is_below() -> None:
    rng = np.random.default_rng(0)
    for mean, deviation in ((0.0, 1.0), (0.7, 0.5), (-0.4, 2.0)):
        drawn = np.maximum(0, 0.2 - (mean + deviation * rng.standard_normal(400_000))).mean()
        told = expected_improvement(np.array([mean]), np.array([deviation]), 0.2)[0]
        assert told == pytest.approx(drawn, abs=0.01)
    assert math.isclose(expected_improvement(np.array([5.0]), np.array([0.01]), 0.0)[0], 0.0, abs_tol=1e-12)
