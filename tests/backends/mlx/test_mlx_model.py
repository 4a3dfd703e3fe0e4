"""The model in MLX: what a position may see, that bfloat16 stays bfloat16, and that weights alone bring it back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)


def tokens_of(rows: int, length: int, vocabulary: int = 61, seed: int = 0) -> Any:
    return mx.array(np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32))


def fresh_model(trainer, facts, dtype=None) -> Any:
    choices = trainer.choose(trainer.Machine(device="cpu"))
    return trainer.build(facts, choices if dtype is None else dataclasses.replace(choices, dtype=dtype))


def random_model(trainer, facts, dtype=None) -> Any:
    """A model whose every parameter is random: nothing that starts at zero hides a path."""
    from mlx.utils import tree_flatten

    model = fresh_model(trainer, facts, dtype)
    random = np.random.default_rng(5)
    drawn = []
    for name, value in dict(tree_flatten(model.parameters())).items():
        scale = 1.0 if "embedding" in name or "scales" in name else value.shape[-1] ** -0.5
        drawn.append((name, mx.array(random.standard_normal(value.shape, np.float32) * np.float32(scale))))
    return model.load_weights(drawn)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(("aspect", "head"), [(16, 16), (24, 16), (16, 64)])
def test_depth_alone_scales_the_model(load_trainer, facts, depth, aspect, head):
    trainer = load_trainer(DEPTH=depth, ASPECT_RATIO=aspect, HEAD_DIM=head)
    model = fresh_model(trainer, facts)
    assert len(model.blocks) == depth
    assert model.width % head == 0
    assert 0 <= model.width - depth * aspect < head
    has = [layer for layer, value in enumerate(model.value_embeddings) if isinstance(value, mx.array)]
    assert has == [layer for layer in range(depth) if (depth - 1 - layer) % 2 == 0]
    assert model(tokens_of(2, 16)).shape == (2, 16, facts.vocabulary)


@pytest.mark.parametrize("pattern", ["L", "SL"])
def test_no_position_sees_a_later_token(load_trainer, facts, pattern):
    model = random_model(load_trainer(WINDOW_PATTERN=pattern), facts)
    tokens = np.array(tokens_of(2, 16))
    before = np.array(model(mx.array(tokens)))
    for changed in (0, 7, 15):
        other = tokens.copy()
        other[0, changed] = (other[0, changed] + 1) % facts.vocabulary
        moved = np.abs(np.array(model(mx.array(other))) - before).max(-1) > 0
        assert not moved[0, :changed].any(), "a logit before the changed token moved"
        assert moved[0, changed], "the changed token's own logits did not move"
        assert not moved[1].any(), "rows see each other"


def test_a_window_of_w_sees_w_keys_before_its_own(load_trainer):
    trainer = load_trainer()
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((1, 2, 12, 16), np.float32) for _ in range(3))

    def attend(values, window):
        return np.array(trainer.attention(mx.array(q), mx.array(k), mx.array(values), window))

    for window in (1, 4, 10, None):
        before = attend(v, window)
        for changed in range(12):
            other = v.copy()
            other[0, :, changed] += 1.0
            moved = np.abs(attend(other, window) - before).max((1, 3))[0] > 0
            last = 11 if window is None else min(11, changed + window)
            assert np.flatnonzero(moved).tolist() == list(range(changed, last + 1)), (window, changed)


def test_logits_stay_within_the_cap_and_the_first_loss_is_a_guess(load_trainer, facts):
    trainer = load_trainer()
    model = random_model(trainer, facts)
    model.unembedding.weight = model.unembedding.weight * 1000.0
    assert mx.abs(model(tokens_of(2, 16))).max().item() <= trainer.SOFTCAP
    fresh = fresh_model(trainer, facts)
    assert fresh.loss(tokens_of(4, 17)).item() == pytest.approx(np.log(facts.vocabulary), abs=0.01)


def test_more_tokens_than_the_sequence_length_are_refused(load_trainer, facts):
    model = fresh_model(load_trainer(), facts)
    assert model(tokens_of(1, 5)).shape == (1, 5, facts.vocabulary)
    with pytest.raises(ValueError, match="at most SEQUENCE_LENGTH = 16"):
        model(tokens_of(1, 17))


def test_nothing_promotes_a_network_in_bfloat16(load_trainer, facts, monkeypatch):
    """Every product and every gradient that flows back through one is bfloat16; logits and what is kept, float32."""
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    trainer = load_trainer(DEPTH=3)
    forward: set[Any] = set()
    backward: set[Any] = set()

    @mx.custom_function
    def probe(x):
        forward.add(x.dtype)
        return x

    @probe.vjp
    def probe_vjp(primals, cotangent, output):
        backward.add(cotangent.dtype)
        return cotangent

    multiply, attend = trainer.Linear.__call__, trainer.attention
    monkeypatch.setattr(trainer.Linear, "__call__", lambda self, x: probe(multiply(self, probe(x))))
    monkeypatch.setattr(
        trainer, "attention", lambda q, k, v, window: probe(attend(probe(q), probe(k), probe(v), window))
    )
    model = random_model(trainer, facts, mx.bfloat16)
    assert model(tokens_of(2, 16)).dtype == mx.float32
    assert forward == {mx.bfloat16}
    _, gradients = nn.value_and_grad(model, model.loss)(tokens_of(2, 17))
    assert forward == backward == {mx.bfloat16}
    assert {value.dtype for value in dict(tree_flatten(gradients)).values()} == {mx.float32}
    assert {value.dtype for value in dict(tree_flatten(model.parameters())).values()} == {mx.float32}


def test_bfloat16_is_near_float32(load_trainer, facts):
    """Logits and the direction of every gradient: a sum that loses its terms in bfloat16 would turn one around."""
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    trainer = load_trainer()
    exact, rounded = random_model(trainer, facts), random_model(trainer, facts, mx.bfloat16)
    difference = np.array(rounded(tokens_of(4, 16))) - np.array(exact(tokens_of(4, 16)))
    assert 0 < np.sqrt(np.square(difference).mean()) < 0.05
    gradients = [
        dict(tree_flatten(nn.value_and_grad(model, model.loss)(tokens_of(4, 17))[1])) for model in (exact, rounded)
    ]
    for name, value in gradients[0].items():
        one, other = np.array(value).ravel(), np.array(gradients[1][name]).ravel()
        assert one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other), name


def test_weights_alone_bring_the_trained_model_back(load_trainer, facts):
    from mlx.utils import tree_flatten

    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine(device="cpu"))
    stepper = trainer.Stepper(trainer.build(facts, choices), choices, 4)
    for seed in range(4):
        stepper.step(np.array(tokens_of(8, 17, seed=seed)), progress=0.1)
    weights = {name: np.array(value) for name, value in dict(tree_flatten(stepper.model.parameters())).items()}
    assert all(value.dtype == np.float32 for value in weights.values())
    logits = trainer.restore(weights, dataclasses.replace(facts, seed=99))
    tokens = tokens_of(4, 16, seed=9)
    np.testing.assert_array_equal(np.array(logits(tokens)), np.array(stepper.model(tokens)))


def test_restore_names_a_weight_that_is_missing_or_misshapen(load_trainer, facts):
    from mlx.utils import tree_flatten

    trainer = load_trainer()
    weights = {
        name: np.array(value) for name, value in dict(tree_flatten(fresh_model(trainer, facts).parameters())).items()
    }
    without = {name: value for name, value in weights.items() if name != "x0_lambdas"}
    with pytest.raises(ValueError, match="x0_lambdas"):
        trainer.restore(without, facts)
    with pytest.raises(ValueError, match="embedding"):
        trainer.restore({**weights, "embedding": weights["embedding"][:, :-1]}, facts)
