"""What only a GPU can prove: cuDNN's attention against XLA's, and whole steps on the device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from backends.jax import backend

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")


def gpu() -> str | None:
    for kind in ("cuda", "rocm"):
        try:
            jax.devices(kind)
        except RuntimeError:
            continue
        return kind
    return None


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpu() is None, reason="JAX finds no CUDA or ROCm device here"),
]


def test_cudnn_attention_is_the_one_of_xla(load_trainer):
    trainer = load_trainer(HEAD_DIM=64, SEQUENCE_LENGTH=256)
    machine = trainer.Machine.of(gpu())
    if trainer.choose(machine).kernel != "cudnn":
        pytest.skip("cuDNN's attention needs CUDA and Ampere")
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 256, 2, 64), np.float32)

    def both(kernel: str, window: int | None, dtype: str):
        def total(q, k, v):
            return trainer.attention(kernel, window)(q, k, v).astype("float32").sum()

        arrays = [jax.device_put(x.astype(dtype), jax.devices("cuda")[0]) for x in (q, k, v)]
        return trainer.attention(kernel, window)(*arrays), *jax.grad(total, argnums=(0, 1, 2))(*arrays)

    for window in (128, 16, None):
        for found, expected in zip(both("cudnn", window, "bfloat16"), both("xla", window, "float32"), strict=True):
            np.testing.assert_allclose(found.astype("float32"), expected, atol=3e-2, rtol=3e-2, err_msg=str(window))


def test_steps_on_the_device_follow_those_on_the_cpu(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64, SEQUENCE_LENGTH=128, SCALAR_LR=0.0)
    losses = []
    for device in (gpu(), "cpu"):
        choices = trainer.choose(trainer.Machine.of(device))
        stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device=device), choices), choices, 4)
        draws = [np.random.default_rng(step).integers(0, 61, (8, 129), dtype=np.int32) for step in range(10)]
        stepper.warm(iter(draws))
        losses.append([stepper.step(tokens, step / 10) for step, tokens in enumerate(draws)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=3e-2)


def test_scoring_restores_what_was_trained(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64)
    facts = dataclasses.replace(facts, device=gpu())
    _, weights = trainer.split(trainer.build(facts, trainer.choose(trainer.Machine.of(facts.device))))
    logits = trainer.restore({name: np.asarray(value) for name, value in weights.items()}, facts)
    tokens = np.random.default_rng(0).integers(0, 61, (4, 16), dtype=np.int32)
    losses = backend.losses(logits, tokens, tokens, facts.device)
    assert losses.shape == (4, 16)
    assert losses.mean() == pytest.approx(np.log(61), abs=0.05)


def test_the_device_is_named_and_its_peak_measured():
    device = gpu() or ""
    jax.block_until_ready(jax.device_put(np.zeros(2**22, np.float32), jax.devices(device)[0]))
    peak = backend.peak_memory_mb(device)
    assert peak is not None
    assert peak >= 16
    assert backend.resolve("auto") == device
    assert backend.device_name(device)
