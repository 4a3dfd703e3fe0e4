"""MLX against PyTorch in float32 on the CPU, from one operation to twenty steps. PyTorch is the reference."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import backends
from core.records import Facts

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)
torch = pytest.importorskip("torch", reason="PyTorch, the reference, is not installed here", exc_type=ImportError)

LOGITS = 1e-4
GRADIENTS = 1e-4  # of the largest of a parameter's gradients
CURVE = 2e-3


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def tokens_of(rows: int, length: int, vocabulary: int = 61, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32)


@pytest.fixture
def pair(load_trainer, facts):
    """Both trainers with the same constants, and models of both with the same weights, every one of them random."""

    def pair(**constants: Any) -> tuple[Any, Any, Any, Any]:
        ours, reference = load_trainer("mlx", **constants), load_trainer("torch", **constants)
        theirs = reference.build(facts, reference.choose(reference.Machine(device="cpu")))
        random = np.random.default_rng(5)
        weights = {}
        for name, value in theirs.state_dict().items():
            kept = name == "embedding" or "value_embeddings" in name or "scales" in name
            scale = 1.0 if kept else value.shape[-1] ** -0.5
            weights[name] = (random.standard_normal(tuple(value.shape)) * scale).astype(np.float32)
        theirs.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        model = ours.build(facts, ours.choose(ours.Machine(device="cpu")), weights)
        return ours, model, reference, theirs

    return pair


def steppers(pair, **constants: Any) -> tuple[Any, Any]:
    ours, model, reference, theirs = pair(**constants)
    return (
        ours.Stepper(model, ours.choose(ours.Machine(device="cpu"), "eager"), 4),
        reference.Stepper(theirs, reference.choose(reference.Machine(device="cpu"), "eager"), 4),
    )


def test_norm(load_trainer):
    x = draw(3, 5, 32) * np.array([1e-4, 1.0, 100.0], np.float32)[:, None, None]
    expected = load_trainer("torch").norm(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.array(load_trainer().norm(mx.array(x))), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "tolerance"),
    # MLX computes its angles in float32: one of 2000 radians is off by up to 2000 * 2**-24, and x up to 4 with it.
    [(16, 2e-6), (256, 5e-5), (2048, 5e-4)],
)
def test_rotation(pair, length, tolerance):
    ours, _, reference, theirs = pair(SEQUENCE_LENGTH=length, HEAD_DIM=32)
    x_BTNH = draw(1, length, 2, 32)
    expected = reference.rotate(torch.from_numpy(x_BTNH), theirs.rotary).numpy()
    turned = np.array(ours.rotate(mx.array(x_BTNH).swapaxes(1, 2)).swapaxes(1, 2))
    np.testing.assert_allclose(turned, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("window", [1, 7, 23, 24, None])
def test_attention(load_trainer, window):
    q, k, v = (draw(2, 24, 3, 16, seed=seed) for seed in range(3))
    expected = load_trainer("torch").attention("sdpa", window)(*map(torch.from_numpy, (q, k, v))).numpy()
    out_BNTH = load_trainer().attention(*(mx.array(part).swapaxes(1, 2) for part in (q, k, v)), window)
    np.testing.assert_allclose(np.array(out_BNTH.swapaxes(1, 2)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])  # a window without, and all keys with, a value embedding
def test_block(pair, layer):
    _, model, _, theirs = pair()
    x, embedded = draw(2, 16, 32), draw(2, 16, 32, seed=1) if layer else None
    with torch.no_grad():
        given = None if embedded is None else torch.from_numpy(embedded)
        expected = theirs.blocks[layer](torch.from_numpy(x), given, theirs.rotary).numpy()
    out = model.blocks[layer](mx.array(x), None if embedded is None else mx.array(embedded))
    np.testing.assert_allclose(np.array(out), expected, rtol=LOGITS, atol=LOGITS)


@pytest.mark.parametrize(
    "constants", [{}, {"DEPTH": 3, "WINDOW_PATTERN": "SSL", "HEAD_DIM": 32, "ASPECT_RATIO": 24}, {"DEPTH": 1}]
)
def test_logits_and_gradients(pair, constants):
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    _, model, _, theirs = pair(**constants)
    tokens = tokens_of(4, 17)
    expected = theirs(torch.from_numpy(tokens[:, :-1])).detach().numpy()
    np.testing.assert_allclose(np.array(model(mx.array(tokens[:, :-1]))), expected, rtol=0, atol=LOGITS)
    loss = theirs.loss(torch.from_numpy(tokens))
    loss.backward()
    ours, gradients = nn.value_and_grad(model, model.loss)(mx.array(tokens))
    assert ours.item() == pytest.approx(loss.item(), rel=1e-6)
    flat = dict(tree_flatten(gradients))
    assert flat.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        reference = parameter.grad.numpy()
        np.testing.assert_allclose(
            np.array(flat[name]), reference, rtol=0, atol=GRADIENTS * np.abs(reference).max(), err_msg=name
        )
    assert model.flops_per_token() == theirs.flops_per_token()


def test_logits_at_the_longest_context(pair):
    """2048 tokens: where the angles of MLX's rotation are off the most."""
    _, model, _, theirs = pair(SEQUENCE_LENGTH=2048)
    tokens = tokens_of(1, 2048)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(np.array(model(mx.array(tokens))), expected, rtol=0, atol=LOGITS)


@pytest.mark.parametrize("shape", [(2, 12, 5), (3, 5, 12), (1, 1, 32), (2, 16, 16)])
def test_orthogonalization(load_trainer, shape):
    matrices = draw(*shape)
    expected = load_trainer("torch").orthogonalize(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(np.array(load_trainer().orthogonalize(mx.array(matrices))), expected, atol=1e-4)


def test_each_optimizer_on_the_same_gradients(pair):
    """Five steps of the schedule on given gradients: no rounding of a network to blow up."""
    from mlx.utils import tree_flatten, tree_unflatten

    ours, theirs = steppers(pair)
    for step in range(5):
        given = {
            name: draw(*value.shape, seed=100 * step + index) * np.float32(10.0 ** -(index % 4))
            for index, (name, value) in enumerate(theirs.model.state_dict().items())
        }
        ours.optimizer.schedule(60 * step, step / 5)
        names = list(dict(tree_flatten(ours.model.parameters())))
        ours.optimizer.update(ours.model, tree_unflatten([(name, mx.array(given[name])) for name in names]))
        theirs.optimizer.schedule(60 * step, step / 5)
        for name, parameter in theirs.model.named_parameters():
            parameter.grad = torch.from_numpy(given[name])
        theirs.optimizer.step()
    for name, value in dict(tree_flatten(ours.model.parameters())).items():
        expected = theirs.model.state_dict()[name].numpy()
        np.testing.assert_allclose(np.array(value), expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_seed_starts_both_at_the_same_weights(load_trainer, facts):
    from mlx.utils import tree_flatten

    ours, reference = load_trainer(DEPTH=3), load_trainer("torch", DEPTH=3)
    model = ours.build(facts, ours.choose(ours.Machine(device="cpu")))
    theirs = reference.build(facts, reference.choose(reference.Machine(device="cpu"))).state_dict()
    weights = dict(tree_flatten(model.parameters()))
    assert weights.keys() == theirs.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(np.array(value), theirs[name].numpy(), err_msg=name)


def curve(stepper: Any, steps: int = 20) -> list[float]:
    starts = np.random.default_rng(0)
    losses = []
    for step in range(steps):
        rows = (starts.integers(0, 61, (8, 1)) + 7 * np.arange(17)) % 61
        losses.append(stepper.step(rows.astype(np.int32), step / steps))
    return losses


def test_twenty_steps_from_random_weights(pair):
    ours, theirs = (curve(stepper) for stepper in steppers(pair))
    assert ours[-1] < 0.5 * ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=CURVE / 100)


def test_twenty_steps_from_the_initial_weights(load_trainer, facts):
    """The scales' gradients are zero there but for rounding, which Adam blows up: the same curve, not as close."""
    curves = []
    for name in ("mlx", "torch"):
        trainer = load_trainer(name)
        choices = trainer.choose(trainer.Machine(device="cpu"), "eager")
        curves.append(curve(trainer.Stepper(trainer.build(facts, choices), choices, 4)))
    assert curves[0][-1] < 0.5 * curves[0][0]
    assert curves[0][-1] == pytest.approx(curves[1][-1], abs=CURVE)


@pytest.mark.parametrize("constants", [{}, {"DEPTH": 3, "SEQUENCE_LENGTH": 64, "HEAD_DIM": 32}])
def test_the_fixed_sides_score_the_same_weights_alike(pair, facts: Facts, constants):
    from mlx.utils import tree_flatten

    ours, model, reference, _ = pair(**constants)
    weights = {name: np.array(value) for name, value in dict(tree_flatten(model.parameters())).items()}
    tokens = tokens_of(64, ours.SEQUENCE_LENGTH + 1)
    sums, found = [], []
    for name, trainer in (("mlx", ours), ("torch", reference)):
        logits = trainer.restore(weights, dataclasses.replace(facts, backend=name))
        losses = backends.get(name).losses(logits, tokens[:, :-1], tokens[:, 1:], "cpu")
        sums.append(losses.astype(np.float64).mean())
        found.append(losses)
    assert sums[0] == pytest.approx(sums[1], abs=1e-5)
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=LOGITS)
