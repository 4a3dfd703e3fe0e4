"""What only Apple silicon (or MLX on CUDA) can prove: compiled steps in bfloat16, memory and its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from backends.mlx import backend

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not mx.is_available(mx.Device(mx.gpu)), reason="MLX finds no GPU here"),
]


def test_steps_on_the_gpu_follow_those_on_the_cpu(load_trainer, facts):
    """Three slices a step, so that each of the step's compiled graphs runs."""
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64, SEQUENCE_LENGTH=128)
    losses = []
    for device in ("gpu", "cpu"):
        choices = trainer.choose(trainer.Machine.of(device))
        assert (choices.dtype, choices.compiled) == ((mx.bfloat16, True) if device == "gpu" else (mx.float32, False))
        stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device=device), choices), choices, 4)
        draws = [((np.arange(12)[:, None] + step + 7 * np.arange(129)) % 61).astype(np.int32) for step in range(20)]
        stepper.warm(iter(draws))
        losses.append([stepper.step(tokens, step / 20) for step, tokens in enumerate(draws)])
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], atol=0.05)


def test_the_same_weights_score_alike_on_gpu_and_cpu(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64, SEQUENCE_LENGTH=2048)
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("embedding", (61, 128)),
        ("unembedding.weight", (61, 128)),
        ("value_embeddings.1", (61, 128)),
    ]
    shapes += [("resid_lambdas", (2,)), ("x0_lambdas", (2,)), ("blocks.1.attention.gate.weight", (2, 32))]
    for layer in range(2):
        shapes += [(f"blocks.{layer}.attention.{name}.weight", (128, 128)) for name in ("query", "key", "value")]
        shapes += [(f"blocks.{layer}.attention.output.weight", (128, 128))]
        shapes += [(f"blocks.{layer}.up.weight", (512, 128)), (f"blocks.{layer}.down.weight", (128, 512))]
    random = np.random.default_rng(0)
    weights = {name: (random.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32) for name, shape in shapes}
    tokens = random.integers(0, 61, (4, 2049), dtype=np.int32)
    losses = []
    for device in ("gpu", "cpu"):
        logits = trainer.restore(weights, dataclasses.replace(facts, device=device, sequence_length=2048))
        losses.append(backend.losses(logits, tokens[:, :-1], tokens[:, 1:], device))
    assert losses[0].mean() == pytest.approx(losses[1].mean(), abs=2e-3)
    np.testing.assert_allclose(losses[0], losses[1], atol=0.1)


def test_peak_memory_and_the_device_are_told(load_trainer):
    mx.set_default_device(mx.Device(mx.gpu))
    mx.reset_peak_memory()
    mx.eval(mx.ones((1024, 1024)) + 1)
    peak = backend.peak_memory_mb("gpu")
    assert peak is not None
    assert peak >= 4
    assert backend.device_name("gpu")


def test_limits_are_what_metal_recommends(load_trainer):
    if not mx.metal.is_available():
        pytest.skip("only Metal recommends a working set")
    recommended = mx.device_info(mx.Device(mx.gpu))["max_recommended_working_set_size"]
    load_trainer().limit_memory("gpu")
    # Each setter tells what was set before.
    assert mx.set_memory_limit(recommended) == recommended
    assert mx.set_wired_limit(recommended) == recommended
    assert mx.set_cache_limit(recommended // 2) == recommended // 2


def test_the_cache_is_limited_by_what_a_step_takes(load_trainer, facts):
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine.of("gpu"))
    stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device="gpu"), choices), choices, 4)
    draws = np.random.default_rng(0).integers(0, 61, (12, 17), dtype=np.int32)
    stepper.warm(draws for _ in range(3))
    trainer.limit_cache("gpu")
    for step in range(20):
        stepper.step(draws, step / 20)
    kept, limit = mx.get_cache_memory(), mx.set_cache_limit(2**32)
    assert kept <= limit < 2**32


def test_a_step_in_bfloat16_leaves_float32_weights(load_trainer, facts):
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine.of("gpu"))
    model = trainer.build(dataclasses.replace(facts, device="gpu"), choices)
    assert model.embedding[mx.array([0])].dtype == mx.float32
    stepper = trainer.Stepper(model, choices, 4)
    loss = stepper.step(np.random.default_rng(0).integers(0, 61, (8, 17), dtype=np.int32), 0.0)
    assert loss == pytest.approx(np.log(61), abs=0.05)
    weights = trainer.named(model.parameters())
    assert {value.dtype for value in weights.values()} == {mx.float32}
    assert all(np.isfinite(np.array(value)).all() for value in weights.values())
