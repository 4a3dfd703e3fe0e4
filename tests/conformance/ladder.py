"""The rungs of parity and their tolerances, stated here and nowhere else. Imported as `conformance.ladder`.

A rung measures how far an adapter is from the reference, part by part; the tests say how far it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from conformance.adapters import VOCABULARY, Adapter, Array, Weights

from core.data.scored import Rows

WINDOWS = (1, 7, 32, 63, None)  # of 64 keys; 63 before its own are all of them
Distances = dict[str, float]


@dataclass(frozen=True)
class Rung:
    """One rung. `measure` gives the distance of each part; none may be more than `tolerance`."""

    name: str
    tolerance: float
    measure: Callable[[Adapter, Adapter, Rows], Distances]
    sees_windows: bool  # so that a wrong window must show


def attention(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Largest difference, over the largest value."""
    q, k, v = normal(1, 3, 2, 64, 2, 32)
    return {f"window {w}": largest(other.attend(q, k, v, w), reference.attend(q, k, v, w)) for w in WINDOWS}


def rope(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Largest difference, over the largest value."""
    x = normal(2, 2, 64, 3, 32)
    return {"rotate": largest(other.rotate(x), reference.rotate(x))}


def norm(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Largest difference, over the largest value. Rows near zero tell the epsilon."""
    x = normal(3, 2, 5, 64)
    sizes = {"ordinary": np.float32(1), "small": np.float32(1e-3), "tiny": np.float32(1e-6)}
    return {name: largest(other.norm(x * size), reference.norm(x * size)) for name, size in sizes.items()}


def softcapped_loss(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Nats over nats. The blocks write nothing, and logits of up to some hundreds are capped at 15."""
    weights = random_weights(reference.shapes(), 4)
    for name in weights:
        if name.endswith(("output.weight", "down.weight")):
            weights[name] = np.zeros_like(weights[name])
    weights["unembedding.weight"] = weights["unembedding.weight"] * np.float32(60)
    found, expected = (adapter.loss_and_gradients(weights, ids(4, 4, 65))[0] for adapter in (other, reference))
    return {"loss": abs(found - expected) / expected}


def block(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Largest difference, over the largest value; with and without a value embedding."""
    named = random_weights(reference.shapes(), 5)
    x, embedded = normal(5, 2, 2, 64, 64)
    found = {}
    for layer in range(2):
        start = f"blocks.{layer}."
        given = embedded if f"{start}attention.gate.weight" in named else None
        weights = {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}
        for window in (7, 32, None):
            outputs = [adapter.block(weights, x, given, window) for adapter in (other, reference)]
            found[f"layer {layer}, window {window}"] = largest(*outputs)
    return found


def logits(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Largest difference of a logit; of whole sequences and of shorter ones."""
    weights = random_weights(reference.shapes(), 6)
    found = {}
    for length in (64, 5):
        tokens = ids(6, 4, length)
        found[f"length {length}"] = float(
            np.abs(finite(other.logits(weights, tokens)) - reference.logits(weights, tokens)).max()
        )
    return found


def gradients(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Of each parameter: size of the difference over size of the gradient."""
    weights, tokens = random_weights(reference.shapes(), 7), ids(7, 4, 65)
    return relative(other.loss_and_gradients(weights, tokens)[1], reference.loss_and_gradients(weights, tokens)[1])


def optimizer(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Of each parameter, after one step and after three: the difference over how far the reference moved.

    Larger than it is at all but a thousandth of the elements, because decay has an edge: it takes hold where update and
    weight agree in sign, and where the update is zero but for rounding, that is a toss of a coin.
    """
    shapes = reference.shapes()
    weights, given = random_weights(shapes, 8), [random_weights(shapes, seed) for seed in (80, 81, 82)]
    found = {}
    for steps in (1, 3):
        moved = [
            {name: value - weights[name] for name, value in adapter.optimize(weights, given[:steps], 0.6).items()}
            for adapter in (other, reference)
        ]
        for name, expected in moved[1].items():
            edge = np.quantile(np.abs(finite(moved[0][name]) - expected), 0.999)
            found[f"{name} after {steps}"] = float(edge / np.sqrt(np.mean(np.square(expected))))
    return found


def curve(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Nats, at each of twenty steps, two slices a step.

    From random weights, where no gradient is zero but for rounding; test_first_steps.py starts at the initial ones.
    """
    weights = random_weights(reference.shapes(), 9)
    batches = [ids(900 + step, 8, 65) for step in range(20)]  # of no regularity: what is learnt is to know nothing
    losses = [adapter.train(weights, batches, 4) for adapter in (other, reference)]
    assert losses[1][-1] < losses[1][0] - 0.3, "the reference learns, so that there is something to follow"
    return {f"step {step + 1}": abs(a - b) for step, (a, b) in enumerate(zip(*map(finite, losses), strict=True))}


def val_bpb(reference: Adapter, other: Adapter, text: Rows) -> Distances:
    """Bits per byte of validation text."""
    weights = random_weights(reference.shapes(), 10)
    counted, size = text.bytes_BT > 0, int(text.bytes_BT.sum())
    scores = [
        float(finite(adapter.losses(weights, text.inputs_BT, text.targets_BT))[counted].sum(dtype=np.float64))
        / (math.log(2) * size)
        for adapter in (other, reference)
    ]
    return {"val_bpb": abs(scores[0] - scores[1])}


LADDER = (
    Rung("attention", 1e-5, attention, True),
    Rung("rope", 1e-5, rope, False),
    Rung("norm", 1e-5, norm, False),
    Rung("softcapped loss", 1e-5, softcapped_loss, False),
    Rung("block", 1e-5, block, True),
    Rung("logits", 1e-4, logits, True),
    Rung("gradients", 1e-4, gradients, True),
    Rung("optimizer", 1e-4, optimizer, False),
    Rung("curve", 2e-3, curve, True),
    Rung("val_bpb", 1e-5, val_bpb, True),
)


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Weights:
    """Weights of which none is zero: nothing that training starts at zero hides a path."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("scales"):
            weights[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            size = 1.0 if name.startswith(("embedding", "value_embeddings")) else shape[-1] ** -0.5
            weights[name] = random.standard_normal(shape, np.float32) * np.float32(size)
    return weights


def normal(seed: int, *shape: int) -> Array:
    """float32 of variance 1."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def ids(seed: int, *shape: int) -> Array:
    """Token ids."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, shape, dtype=np.int32)


def largest(found: Array, expected: Array) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(finite(found) - expected).max() / np.abs(expected).max())


def relative(found: Weights, expected: Weights) -> Distances:
    """By name: the size of the difference over the size."""
    assert found.keys() == expected.keys()
    return {
        name: float(np.linalg.norm(finite(found[name]) - value) / np.linalg.norm(value))
        for name, value in expected.items()
    }


def finite(values: Array) -> Array:
    """The values, which are numbers: a distance to NaN is none."""
    values = np.asarray(values)
    assert np.isfinite(values).all()
    return values
