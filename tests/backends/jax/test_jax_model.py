"""The model at its true shapes for other devices, the TPU's attention kernel, and weights in and out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import backends
import presets
from core.trainer.constants import read_constants

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")


def abstract_model(trainer, vocabulary: int, **choices: Any) -> Any:
    from flax import nnx

    return nnx.eval_shape(lambda: trainer.GPT(vocabulary, **choices))


@pytest.fixture
def h100(load_trainer):
    preset = presets.load("h100")
    return preset, load_trainer(full=True, **preset.trainer_constants())


def test_the_h100_preset_has_upstreams_size(h100):
    preset, trainer = h100
    model = abstract_model(trainer, preset.vocabulary)
    _, weights = trainer.split(model)
    assert sum(np.prod(value.shape) for value in weights.values()) == 50_332_176
    assert model.flops_per_token() == 6 * (8192 * 512 + 8 * 12 * 512**2 + 4 * 32 * 4) + 12 * 512 * (6 * 1024 + 2 * 2048)


def test_the_file_itself_has_the_constants_of_the_reference():
    """Equal names, values and ranges; a kernel of one framework is no constant of another's."""
    ours, reference = (
        read_constants(backends.trainer_path(name).read_text(encoding="utf-8")) for name in ("jax", "torch")
    )
    shared = ours.keys() & reference.keys()
    assert {name: ours[name] for name in shared} == {name: reference[name] for name in shared}
    assert ours.keys() ^ reference.keys() <= {"SPLASH", "SPLASH_BLOCKS", "FLASH3"}


@pytest.mark.parametrize(("platform", "kernel"), [("cuda", "xla"), ("tpu", "xla"), ("tpu", "splash")])
def test_the_step_lowers_at_the_h100s_shapes_for_another_device(h100, platform, kernel):
    """Nothing is compiled or held in memory: shapes go in, the program of that device comes out."""
    preset, trainer = h100
    dtype = jax.numpy.bfloat16
    with_weights, weights = trainer.split(abstract_model(trainer, preset.vocabulary, kernel=kernel, dtype=dtype))
    rates = trainer.rates_at(512, 0, 0.0)
    state = jax.eval_shape(trainer.optimizer(rates, weights, dtype).init, weights)
    rows, slices = trainer.batch_shape(trainer.TOTAL_BATCH_SIZE, trainer.SEQUENCE_LENGTH, trainer.DEVICE_BATCH_SIZE)
    assert (rows, slices) == (256, 2)
    tokens = jax.ShapeDtypeStruct((slices, rows // slices, trainer.SEQUENCE_LENGTH + 1), np.int32)
    step = jax.jit(functools.partial(trainer.train_step, with_weights, dtype), donate_argnums=(0, 1))
    lowered = jax.export.export(step, platforms=[platform])(weights, state, tokens, rates)
    program = lowered.mlir_module()
    assert "bf16[" in program or "xbf16>" in program
    # Forward, and backward for keys with values and for queries, of the windowed and of the full layers.
    assert program.count("@tpu_custom_call") == (6 if kernel == "splash" else 0)
    new, *_ = jax.tree.unflatten(lowered.out_tree, lowered.out_avals)
    assert {name: (value.shape, value.dtype) for name, value in new.items()} == {
        name: (value.shape, np.float32) for name, value in weights.items()
    }


def test_splash_attention_is_the_one_of_xla(load_trainer, monkeypatch):
    """The TPU's kernel, interpreted: with and without a window, and for a sequence that is no whole block."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    interpreted = functools.partial(splash_attention.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention, "make_splash_mha", interpreted)
    trainer = load_trainer(HEAD_DIM=128)
    for time, window in ((256, None), (256, 128), (256, 37), (40, 7)):
        q, k, v = np.random.default_rng(time).standard_normal((3, 1, time, 2, 128), np.float32)
        found, expected = (trainer.attention(kernel, window)(q, k, v) for kernel in ("splash", "xla"))
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=f"{time} {window}")


def test_a_window_of_w_sees_w_keys_before_its_own(load_trainer):
    trainer = load_trainer()
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 12, 2, 16), np.float32)
    for window in (1, 4, 10, None):
        attend = trainer.attention("xla", window)
        before = np.asarray(attend(q, k, v))
        for changed in (0, 3, 11):
            other = v.copy()
            other[0, changed] += 1.0
            moved = np.abs(np.asarray(attend(q, k, other)) - before).max((-2, -1))[0] > 0
            last = 11 if window is None else min(11, changed + window)
            assert np.flatnonzero(moved).tolist() == list(range(changed, last + 1)), (window, changed)


def test_no_position_sees_a_later_token(load_trainer, facts):
    trainer = load_trainer()
    _, weights = trainer.split(trainer.build(facts, trainer.choose(trainer.Machine(device="cpu"))))
    random = np.random.default_rng(5)
    logits = trainer.restore({name: random.standard_normal(value.shape) for name, value in weights.items()}, facts)
    tokens = random.integers(0, 61, (2, 16), dtype=np.int32)
    before = np.asarray(logits(tokens))
    assert np.abs(before).max() <= trainer.SOFTCAP
    for changed in (0, 7, 15):
        other = tokens.copy()
        other[0, changed] = (other[0, changed] + 1) % 61
        moved = np.abs(np.asarray(logits(other)) - before).max(-1) > 0
        assert not moved[0, :changed].any(), "a logit before the changed token moved"
        assert moved[0, changed], "the changed token's own logits did not move"
        assert not moved[1].any(), "rows see each other"


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("aspect", "head"), [(16, 16), (24, 16), (16, 64)])
def test_depth_alone_scales_the_model(load_trainer, depth, aspect, head):
    trainer = load_trainer(DEPTH=depth, ASPECT_RATIO=aspect, HEAD_DIM=head)
    model = abstract_model(trainer, 61)
    assert len(model.blocks) == depth
    assert model.width % head == 0
    assert 0 <= model.width - depth * aspect < head
    assert sorted(model.value_embeddings) == [str(layer) for layer in range(depth) if (depth - 1 - layer) % 2 == 0]


def test_more_tokens_than_the_sequence_length_are_refused(load_trainer, facts):
    trainer = load_trainer()
    _, weights = trainer.split(trainer.build(facts, trainer.choose(trainer.Machine(device="cpu"))))
    logits = trainer.restore({name: np.asarray(value) for name, value in weights.items()}, facts)
    assert logits(np.zeros((1, 5), np.int32)).shape == (1, 5, 61)
    with pytest.raises(ValueError, match="at most SEQUENCE_LENGTH = 16"):
        logits(np.zeros((1, 17), np.int32))


def test_restore_names_a_weight_that_is_missing_or_misshapen(load_trainer, facts):
    trainer = load_trainer()
    _, on_device = trainer.split(trainer.build(facts, trainer.choose(trainer.Machine(device="cpu"))))
    weights = {name: np.asarray(value) for name, value in on_device.items()}
    without = {name: value for name, value in weights.items() if name != "x0_lambdas"}
    with pytest.raises(ValueError, match=r"x0_lambdas missing, not \(2,\)"):
        trainer.restore(without, facts)
    with pytest.raises(ValueError, match=r"embedding \(61, 31\), not \(61, 32\)"):
        trainer.restore({**weights, "embedding": weights["embedding"][:, :-1]}, facts)
    with pytest.raises(ValueError, match=r"other \(3,\), not there"):
        trainer.restore({**weights, "other": np.zeros(3)}, facts)
