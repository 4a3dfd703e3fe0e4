"""Each backend at a preset's shapes: its matrix peak, a whole step, the optimizer's part, and scoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.measure.bench import WIDER
from core.system import hardware
from core.trial.scoring import REQUEST_TOKENS

Call = Callable[[], Any]  # waits for its result


@pytest.mark.benchmark(group="peak")
def test_numpy(benchmark, timed) -> None:  # type: ignore[no-untyped-def]
    device = f"cpu ({hardware.processor()})"
    benchmark.extra_info |= {"backend": "numpy", "device": device, "dtype": "float32", "flops": 2 * hardware.MATRIX**3}
    timed(hardware.matrix_product())


@pytest.mark.benchmark(group="peak")
def test_product(benchmark, side, timed) -> None:  # type: ignore[no-untyped-def]
    size = hardware.MATRIX if side.device == "cpu" else WIDER * hardware.MATRIX
    left, right = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    benchmark.extra_info |= {**side.record(), "flops": 2 * size**3}
    side.model()  # sets the framework's device and how it multiplies
    timed(PRODUCTS[side.preset.backend](side, left, right))


@pytest.mark.benchmark(group="step")
def test_step(benchmark, side, timed) -> None:  # type: ignore[no-untyped-def]
    stepper, count = side.stepper(), side.rows * side.preset.sequence_length
    benchmark.extra_info |= {**side.record(), "tokens": count, "flops": count * stepper.model.flops_per_token()}
    assert np.isfinite(timed(stepper.step, side.batch(side.rows), 0.0))


@pytest.mark.benchmark(group="optimizer")
def test_update(benchmark, side, timed) -> None:  # type: ignore[no-untyped-def]
    """On gradients that stay the same."""
    # The tokens that one update serves.
    benchmark.extra_info |= {**side.record(), "tokens": side.rows * side.preset.sequence_length}
    timed(UPDATES[side.preset.backend](side, np.random.default_rng(0)))


@pytest.mark.benchmark(group="scoring")
def test_losses(benchmark, side, timed) -> None:  # type: ignore[no-untyped-def]
    shapes = SHAPES[side.preset.backend](side)
    weights = {name: side.trainer.initial_weight(name, shape, side.facts.seed) for name, shape in shapes}
    logits = side.trainer.restore(weights, side.facts)
    # As many as a request has, but no more than a step: on a slow device that is short.
    tokens = side.batch(min(side.rows, max(1, REQUEST_TOKENS // side.preset.sequence_length)))
    benchmark.extra_info |= {**side.record(), "tokens": tokens[:, 1:].size}
    found = timed(side.backend.losses, logits, tokens[:, :-1], tokens[:, 1:], side.device)
    assert found.shape == tokens[:, 1:].shape


def torch_product(side, left: np.ndarray, right: np.ndarray) -> Call:  # type: ignore[no-untyped-def]
    import torch

    a, b = (torch.from_numpy(one).to(side.device, side.choices.dtype) for one in (left, right))

    def multiply() -> None:
        torch.mm(a, b)
        synchronize(side.device)

    return multiply


def jax_product(side, left: np.ndarray, right: np.ndarray) -> Call:  # type: ignore[no-untyped-def]
    import jax

    device, dtype = side.trainer.device_of(side.device), side.choices.dtype
    a, b = (jax.device_put(one, device).astype(dtype) for one in (left, right))
    multiply = jax.jit(lambda a, b: a @ b)
    return lambda: multiply(a, b).block_until_ready()


def mlx_product(side, left: np.ndarray, right: np.ndarray) -> Call:  # type: ignore[no-untyped-def]
    import mlx.core as mx

    a, b = (mx.array(one).astype(side.choices.dtype) for one in (left, right))
    return lambda: mx.eval(a @ b)


def torch_update(side, draw: np.random.Generator) -> Call:  # type: ignore[no-untyped-def]
    import torch

    stepper = side.stepper()
    for parameter in stepper.model.parameters():
        gradient = draw.standard_normal(tuple(parameter.shape), np.float32)
        parameter.grad = torch.from_numpy(gradient).to(parameter.device)

    def update() -> None:
        stepper.optimizer.step()
        synchronize(side.device)

    return update


def jax_update(side, draw: np.random.Generator) -> Call:  # type: ignore[no-untyped-def]
    import jax

    trainer, stepper = side.trainer, side.stepper()
    rates = trainer.rates_at(stepper.model.width, 0, 0.0)
    gradients = {
        name: jax.device_put(draw.standard_normal(value.shape, np.float32), stepper.device)
        for name, value in stepper.weights.items()
    }

    def apply(weights: Any, state: Any, gradients: Any, rates: Any) -> Any:
        updates, state = trainer.optimizer(rates, weights, side.choices.dtype).update(gradients, state, weights)
        return {name: value + updates[name] for name, value in weights.items()}, state

    run = jax.jit(apply, donate_argnums=(0, 1))

    def update() -> None:
        both = run(stepper.weights, stepper.state, gradients, rates)
        stepper.weights, stepper.state = jax.block_until_ready(both)

    return update


def mlx_update(side, draw: np.random.Generator) -> Call:  # type: ignore[no-untyped-def]
    import mlx.core as mx
    from mlx.utils import tree_map

    stepper = side.stepper()
    model, state = stepper.model, stepper.state
    gradients = tree_map(
        lambda value: mx.array(draw.standard_normal(value.shape, np.float32)), model.trainable_parameters()
    )
    mx.eval(gradients, state)

    def apply() -> None:
        stepper.optimizer.update(model, gradients)

    run = mx.compile(apply, inputs=state, outputs=state) if side.choices.compiled else apply

    def update() -> None:
        run()
        mx.eval(state)

    return update


def synchronize(device: str) -> None:
    """Waits for what PyTorch has sent to a device."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def shapes_of(weights: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in weights.items()]


PRODUCTS = {"torch": torch_product, "jax": jax_product, "mlx": mlx_product}
UPDATES = {"torch": torch_update, "jax": jax_update, "mlx": mlx_update}
SHAPES = {
    "torch": lambda side: shapes_of(side.model().state_dict()),
    "jax": lambda side: shapes_of(side.trainer.split(side.model())[1]),
    "mlx": lambda side: shapes_of(side.trainer.named(side.model().parameters())),
}
