"""One seed starts every backend at one point: names, shapes and every bit of every weight."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.adapters import Adapter

DRAWN_BY_SEED_1 = {
    "embedding": (0.2525317967, 0.6308034062, 0.8827723861),
    "unembedding.weight": (-0.0011322881, 0.0007683152, 0.0008729668),
    "value_embeddings.1": (-0.1306297332, 0.145841524, -0.0885250121),
    "blocks.0.attention.query.weight": (0.2026145011, -0.2062413096, -0.1106442735),
}


def test_names_and_shapes_are_the_references(reference: Adapter, other: Adapter):
    assert other.shapes() == reference.shapes()
    assert {"embedding", "unembedding.weight", "value_embeddings.1", "blocks.0.attention.query.weight"} <= set(
        other.shapes()
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_initial_weights_are_equal_by_name_and_seed(reference: Adapter, other: Adapter, seed: int):
    found, expected = other.initial(seed), reference.initial(seed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == np.float32
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_another_seed_is_another_point(other: Adapter):
    first, second = other.initial(1), other.initial(2)
    drawn = [name for name, value in first.items() if np.ptp(value) > 0]
    assert len(drawn) >= 8
    assert all(not np.array_equal(first[name], second[name]) for name in drawn)


def test_what_a_seed_draws_stays(reference: Adapter):
    """Part of the record of every experiment: a changed draw would make old and new ones incomparable."""
    weights = reference.initial(1)
    for name, expected in DRAWN_BY_SEED_1.items():
        np.testing.assert_allclose(weights[name][0, :3], expected, rtol=1e-5, err_msg=name)


def test_equal_draws_start_at_equal_losses(reference: Adapter, other: Adapter):
    tokens = np.random.default_rng(0).integers(0, 256, (4, 65), dtype=np.int32)
    found, expected = (adapter.loss_and_gradients(adapter.initial(3), tokens)[0] for adapter in (other, reference))
    assert expected == pytest.approx(np.log(256), abs=0.01)
    assert found == pytest.approx(expected, abs=1e-5)
