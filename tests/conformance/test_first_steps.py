"""From the initial weights, where the scales' gradients are zero but for rounding: no step is made of that.

A norm follows whatever the scales multiply, and the blocks write nothing yet: no scale can change the loss.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance import adapters
from conformance.adapters import Adapter, Weights
from conformance.ladder import LADDER

STEPS = 20
TOLERANCE = 2e-4  # nats; where it was measured 8e-6, and 5e-3 with an epsilon of 1e-10
SCALES = ("resid_lambdas", "x0_lambdas")


def batches() -> list[np.ndarray]:
    """What can be learnt: every token is seven more than the one before it. Eight rows of 65 a step."""
    random = np.random.default_rng(0)
    firsts = (random.integers(0, adapters.VOCABULARY, (8, 1)) for _ in range(STEPS))
    return [((first + 7 * np.arange(65)) % adapters.VOCABULARY).astype(np.int32) for first in firsts]


def moved(weights: Weights, seed: int) -> Weights:
    """Every weight that isn't zero as the float next to it, up or down."""
    random = np.random.default_rng(seed)

    def nudged(value: np.ndarray) -> np.ndarray:
        towards = np.where(random.random(value.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        return np.where(value != 0, np.nextafter(value, towards), value)

    return {name: nudged(value) for name, value in sorted(weights.items())}


def apart(adapter: Adapter, *seeds: int) -> float:
    """Nats: the largest difference of a loss between training and training from weights one ulp away."""
    largest = 0.0
    for seed in seeds:
        weights = adapter.initial(seed)
        losses = np.array([adapter.train(start, batches(), 4) for start in (weights, moved(weights, seed))])
        assert losses[0, -1] < 0.1 * losses[0, 0], "it learns, so that there is something to follow"
        largest = max(largest, float(np.abs(losses[0] - losses[1]).max()))
    return largest


@pytest.mark.parametrize("seed", [1, *(pytest.param(one, marks=pytest.mark.long) for one in (2, 3))])
def test_weights_one_ulp_away_train_alike(reference: Adapter, seed: int):
    assert apart(reference, seed) < TOLERANCE


def test_an_epsilon_that_lets_rounding_move_the_scales_fails(tmp_path: Path):
    tiny = adapters.adapter(adapters.REFERENCE, tmp_path, {"SCALAR_EPSILON": 1e-10})
    assert apart(tiny, 1, 2, 3) > 3 * TOLERANCE


def test_from_the_initial_weights_every_backend_follows_one_curve(reference: Adapter, other: Adapter):
    tolerance = next(rung.tolerance for rung in LADDER if rung.name == "curve")
    weights = reference.initial(1)
    found, expected = (adapter.train(weights, batches(), 4) for adapter in (other, reference))
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("backend", [adapters.REFERENCE, *adapters.OTHERS])
def test_a_gradient_of_epsilon_makes_half_a_step_of_the_scales(backend: str, tmp_path: Path):
    """Adam's first step is rate * gradient / (|gradient| + epsilon)."""
    if reason := adapters.unavailable(backend):
        pytest.skip(reason)
    adapter = adapters.adapter(backend, tmp_path)
    trainer = adapter.trainer
    assert (trainer.SCALAR_EPSILON, trainer.ADAM_EPSILON) == (1e-7, 1e-10)
    weights = adapter.initial(1)
    gradients = {name: np.full_like(value, 1e-7) for name, value in weights.items()}
    after = adapter.optimize(weights, [gradients], 0.0)
    rates = {"resid_lambdas": trainer.SCALAR_LR * 0.01, "x0_lambdas": trainer.SCALAR_LR}
    for name in SCALES:
        np.testing.assert_allclose(weights[name] - after[name], rates[name] / 2, rtol=1e-3, err_msg=name)
    by_width = (weights["embedding"].shape[1] / 768) ** -0.5
    whole = trainer.EMBEDDING_LR * by_width
    np.testing.assert_allclose(weights["embedding"] - after["embedding"], whole, rtol=2e-3)
