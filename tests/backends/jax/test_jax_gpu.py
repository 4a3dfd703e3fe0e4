"""What only a GPU or a TPU can prove: its own attention against XLA's, and whole steps on the device."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from backends.jax import backend

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")


def accelerator() -> str | None:
    for kind in ("tpu", "cuda", "rocm"):
        try:
            jax.devices(kind)
        except RuntimeError:
            continue
        return kind
    return None


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(accelerator() is None, reason="JAX finds no TPU, CUDA or ROCm device here"),
]
NEEDS = {"cudnn": "cuDNN's attention needs CUDA and Ampere", "splash": "splash attention needs a TPU"}


def draw(step: int, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 61, (rows, length + 1), dtype=np.int32)


def on(device: str | None) -> Any:
    return jax.devices(device)[0]


@pytest.mark.parametrize("kernel", ["cudnn", "splash"])
def test_the_devices_own_attention_is_the_one_of_xla(load_trainer, kernel):
    """Forward and backward in bfloat16, against XLA's on the CPU in float32."""
    trainer = load_trainer(HEAD_DIM=128, SEQUENCE_LENGTH=256)
    device = accelerator()
    if trainer.choose(trainer.Machine.of(device)).kernel != kernel:
        pytest.skip(NEEDS[kernel])
    q, k, v, weight = np.random.default_rng(0).standard_normal((4, 2, 256, 2, 128), np.float32)

    def both(kernel: str, window: int | None, dtype: str, where: Any):
        def total(q, k, v):
            return (trainer.attention(kernel, window)(q, k, v).astype("float32") * weight).sum()

        arrays = [jax.device_put(jax.numpy.asarray(x, "bfloat16").astype(dtype), where) for x in (q, k, v)]
        found = trainer.attention(kernel, window)(*arrays), *jax.grad(total, argnums=(0, 1, 2))(*arrays)
        return [np.asarray(x, np.float32) for x in found]

    for window in (128, 16, None):
        expected = both("xla", window, "float32", on("cpu"))
        for found, exact in zip(both(kernel, window, "bfloat16", on(device)), expected, strict=True):
            np.testing.assert_allclose(found, exact, atol=3e-2, rtol=3e-2, err_msg=str(window))


@pytest.mark.parametrize(("head", "length"), [(64, 128), (128, 256)])  # the second fills splash's blocks
def test_steps_on_the_device_follow_those_on_the_cpu(load_trainer, facts, head, length):
    trainer = load_trainer(HEAD_DIM=head, ASPECT_RATIO=64, SEQUENCE_LENGTH=length, SCALAR_LR=0.0)
    losses = []
    for device in (accelerator(), "cpu"):
        choices = trainer.choose(trainer.Machine.of(device))
        stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device=device), choices), choices, 4)
        draws = [draw(step, 8, length) for step in range(10)]
        stepper.warm(iter(draws))
        losses.append([stepper.step(tokens, step / 10) for step, tokens in enumerate(draws)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=3e-2)


def test_a_lowered_step_runs_on_the_device(load_trainer, facts):
    """What is lowered from shapes alone, as without a device, is the program that a Stepper runs."""
    trainer = load_trainer(HEAD_DIM=128, ASPECT_RATIO=64, SEQUENCE_LENGTH=256)
    device = accelerator()
    choices = trainer.choose(trainer.Machine.of(device))
    stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device=device), choices), choices, 4)
    tokens = draw(0, 8, 256)
    slices = jax.device_put(tokens.reshape(2, 4, 257), stepper.device)
    given = (stepper.weights, stepper.state, slices, trainer.rates_at(stepper.model.width, 0, 0.0))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), given)
    # JAX promises to read the calls of some kernels only as long as it is the same JAX: it is.
    unkept = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in unkept]
    lowered = jax.export.export(stepper.run, platforms=[device], disabled_checks=checks)(*shapes)
    *_, loss = jax.jit(lowered.call)(*given)
    assert stepper.step(tokens, 0.0) == pytest.approx(float(loss), rel=1e-4)


def test_scoring_restores_what_was_trained(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64)
    facts = dataclasses.replace(facts, device=accelerator())
    _, weights = trainer.split(trainer.build(facts, trainer.choose(trainer.Machine.of(facts.device))))
    logits = trainer.restore({name: np.asarray(value) for name, value in weights.items()}, facts)
    tokens = np.random.default_rng(0).integers(0, 61, (4, 16), dtype=np.int32)
    losses = backend.losses(logits, tokens, tokens, facts.device)
    assert losses.shape == (4, 16)
    assert losses.mean() == pytest.approx(np.log(61), abs=0.05)


def test_the_device_is_named_and_its_peak_measured():
    device = accelerator() or ""
    jax.block_until_ready(jax.device_put(np.zeros(2**22, np.float32), jax.devices(device)[0]))
    peak = backend.peak_memory_mb(device)
    assert peak is not None
    assert peak >= 16
    assert backend.resolve("auto") == device
    assert backend.device_name(device)
