"""The reference trainers as functions of NumPy arrays, one adapter a backend. Imported as `conformance.adapters`.

An adapter only calls what its trainer's own `main` and `restore` are made of; it computes nothing itself.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

import backends
from core.records import Constant, Facts
from core.trainer.constants import write_constants

REFERENCE = "torch"
OTHERS = ("jax", "mlx")
VOCABULARY = 256
SMALL: dict[str, Constant] = {
    "DEPTH": 2,  # one layer with a window and one without, one with a value embedding and one without
    "ASPECT_RATIO": 24,  # width 64: 48 rounded up to whole heads
    "HEAD_DIM": 32,
    "WINDOW_PATTERN": "SL",
    "SEQUENCE_LENGTH": 64,
    "TOTAL_BATCH_SIZE": 512,
    "DEVICE_BATCH_SIZE": 4,
}
Array = Any  # NumPy's, float32 unless it holds ids
Weights = dict[str, Array]


class Adapter(Protocol):
    """One trainer with its constants, on the CPU in float32."""

    trainer: ModuleType

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' shapes by name."""

    def initial(self, seed: int) -> Weights:
        """The weights that training starts from."""

    def norm(self, x: Array) -> Array:
        """RMSNorm over the last axis."""

    def rotate(self, x_BTNH: Array) -> Array:
        """RoPE over times 0 to T."""

    def attend(self, q_BTNH: Array, k_BTNH: Array, v_BTNH: Array, window: int | None) -> Array:
        """Causal attention."""

    def block(self, weights: Weights, x_BTD: Array, embedded_BTD: Array | None, window: int | None) -> Array:
        """One layer. `weights` are named as within it: `attention.query.weight`."""

    def logits(self, weights: Weights, tokens_BT: Array) -> Array:
        """What `restore` gives."""

    def loss_and_gradients(self, weights: Weights, tokens_BT1: Array) -> tuple[float, Weights]:
        """The loss of one slice and its gradients."""

    def optimize(self, weights: Weights, gradients: Sequence[Weights], progress: float) -> Weights:
        """The weights after one optimizer step a set of gradients."""

    def train(self, weights: Weights, batches: Sequence[Array], rows: int) -> list[float]:
        """The losses of whole training steps in slices of `rows`, progress rising from 0 to 1."""

    def losses(self, weights: Weights, tokens_BT: Array, targets_BT: Array) -> Array:
        """Each target's nats, as the backend's fixed side scores `restore`'s model."""


def unavailable(backend: str) -> str | None:
    """Why a backend's trainer can't be held against the others here."""
    if backend not in backends.names() or not backends.trainer_path(backend).exists():
        return f"backends/{backend} has no trainer yet"
    return backends.get(backend).missing()


def adapter(backend: str, folder: Path, constants: Mapping[str, Constant] | None = None) -> Adapter:
    """The reference trainer of a backend with `constants` over SMALL, as a module of its own from `folder`."""
    text = write_constants(backends.trainer_path(backend).read_text(encoding="utf-8"), {**SMALL, **(constants or {})})
    name = f"conformance_{backend}_trainer"
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    kinds: dict[str, type[Adapter]] = {"torch": Torch, "jax": Jax, "mlx": Mlx}
    kind: Any = kinds[backend]
    made: Adapter = kind(module)
    return made


def facts(backend: str, seed: int = 1) -> Facts:
    """What the trainer of a backend is told."""
    return Facts(vocabulary=VOCABULARY, bos=0, seed=seed, backend=backend, device="cpu", sequence_length=64)


class Wider:
    """An adapter with one mistake: every window that is one sees a key more."""

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner
        of = inner.trainer.windows
        inner.trainer.windows = lambda *shape: [more(window) for window in of(*shape)]  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def attend(self, q_BTNH: Array, k_BTNH: Array, v_BTNH: Array, window: int | None) -> Array:
        return self.inner.attend(q_BTNH, k_BTNH, v_BTNH, more(window))

    def block(self, weights: Weights, x_BTD: Array, embedded_BTD: Array | None, window: int | None) -> Array:
        return self.inner.block(weights, x_BTD, embedded_BTD, more(window))


def more(window: int | None) -> int | None:
    """A window one key wider; all keys stay all keys."""
    return None if window is None else window + 1


class Torch:
    """PyTorch, eager."""

    def __init__(self, trainer: ModuleType) -> None:
        self.trainer = trainer
        self.choices = trainer.choose(trainer.Machine(device="cpu"), "eager")

    def _model(self, weights: Weights | None = None, seed: int = 1) -> Any:
        return self.trainer.build(facts("torch", seed), self.choices, weights)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self._model().state_dict().items()}

    def initial(self, seed: int) -> Weights:
        return {name: value.numpy() for name, value in self._model(seed=seed).state_dict().items()}

    def norm(self, x: Array) -> Array:
        return self.trainer.norm(_torch(x)).numpy()

    def rotate(self, x_BTNH: Array) -> Array:
        return self.trainer.rotate(_torch(x_BTNH), self._model().rotary[:, : x_BTNH.shape[1]]).numpy()

    def attend(self, q_BTNH: Array, k_BTNH: Array, v_BTNH: Array, window: int | None) -> Array:
        return self.trainer.attention("sdpa", window)(*map(_torch, (q_BTNH, k_BTNH, v_BTNH))).numpy()

    def block(self, weights: Weights, x_BTD: Array, embedded_BTD: Array | None, window: int | None) -> Array:
        block = self.trainer.Block(x_BTD.shape[-1], window, embedded_BTD is not None, "sdpa")
        block.load_state_dict({name: _torch(value) for name, value in weights.items()})
        embedded = None if embedded_BTD is None else _torch(embedded_BTD)
        rotary = self._model().rotary[:, : x_BTD.shape[1]]
        return block(_torch(x_BTD), embedded, rotary).detach().numpy()

    def logits(self, weights: Weights, tokens_BT: Array) -> Array:
        return self.trainer.restore(weights, facts("torch"))(_torch(tokens_BT)).numpy()

    def loss_and_gradients(self, weights: Weights, tokens_BT1: Array) -> tuple[float, Weights]:
        model = self._model(weights)
        loss = model.loss(_torch(tokens_BT1))
        loss.backward()
        return loss.item(), {name: value.grad.numpy() for name, value in model.named_parameters()}

    def optimize(self, weights: Weights, gradients: Sequence[Weights], progress: float) -> Weights:
        model = self._model(weights)
        optimizer = self.trainer.Stepper(model, self.choices, 1).optimizer
        for step, given in enumerate(gradients):
            for name, value in model.named_parameters():
                value.grad = _torch(given[name])
            optimizer.schedule(step, progress)
            optimizer.step()
        return {name: value.numpy() for name, value in model.state_dict().items()}

    def train(self, weights: Weights, batches: Sequence[Array], rows: int) -> list[float]:
        stepper = self.trainer.Stepper(self._model(weights), self.choices, rows)
        return [stepper.step(tokens, step / len(batches)) for step, tokens in enumerate(batches)]

    def losses(self, weights: Weights, tokens_BT: Array, targets_BT: Array) -> Array:
        logits = self.trainer.restore(weights, facts("torch"))
        return backends.get("torch").losses(logits, tokens_BT, targets_BT, "cpu")


class Jax:
    """JAX, the step compiled as in a trial."""

    def __init__(self, trainer: ModuleType) -> None:
        self.trainer = trainer
        self.choices = trainer.choose(trainer.Machine(device="cpu"))

    def _model(self, weights: Weights | None = None, seed: int = 1) -> Any:
        return self.trainer.build(facts("jax", seed), self.choices, weights)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.trainer.split(self._model())[1].items()}

    def initial(self, seed: int) -> Weights:
        return _numpy(self.trainer.split(self._model(seed=seed))[1])

    def norm(self, x: Array) -> Array:
        return np.asarray(self.trainer.norm(_jax(x)))

    def rotate(self, x_BTNH: Array) -> Array:
        return np.asarray(self.trainer.rotate(_jax(x_BTNH), _jax(self.trainer.rotary_table())[:, : x_BTNH.shape[1]]))

    def attend(self, q_BTNH: Array, k_BTNH: Array, v_BTNH: Array, window: int | None) -> Array:
        return np.asarray(self.trainer.attention("xla", window)(*map(_jax, (q_BTNH, k_BTNH, v_BTNH))))

    def block(self, weights: Weights, x_BTD: Array, embedded_BTD: Array | None, window: int | None) -> Array:
        block = self.trainer.Block(x_BTD.shape[-1], window, embedded_BTD is not None, "xla")
        with_weights, _ = self.trainer.split(block)
        rotary = _jax(self.trainer.rotary_table())[:, : x_BTD.shape[1]]
        embedded = None if embedded_BTD is None else _jax(embedded_BTD)
        filled = with_weights({name: _jax(value) for name, value in weights.items()})
        return np.asarray(filled(_jax(x_BTD), embedded, rotary))

    def logits(self, weights: Weights, tokens_BT: Array) -> Array:
        return np.asarray(self.trainer.restore(weights, facts("jax"))(_jax(tokens_BT)))

    def loss_and_gradients(self, weights: Weights, tokens_BT1: Array) -> tuple[float, Weights]:
        _, on_device = self.trainer.split(self._model(weights))
        loss, gradients = self._loss_and_gradients(on_device, _jax(tokens_BT1))
        return float(loss), _numpy(gradients)

    @functools.cached_property
    def _loss_and_gradients(self) -> Any:
        import jax

        with_weights, _ = self.trainer.split(self._model())
        return jax.jit(jax.value_and_grad(lambda weights, tokens: with_weights(weights).loss(tokens)))

    def optimize(self, weights: Weights, gradients: Sequence[Weights], progress: float) -> Weights:
        import jax
        import optax

        model = self._model(weights)
        _, on_device = self.trainer.split(model)

        @jax.jit
        def apply(weights: Any, state: Any, gradients: Any, rates: Any) -> Any:
            updates, state = self.trainer.optimizer(rates, weights).update(gradients, state, weights)
            return optax.apply_updates(weights, updates), state

        state = jax.jit(self.trainer.optimizer(self.trainer.rates_at(model.width, 0, 0.0), on_device).init)(on_device)
        for step, given in enumerate(gradients):
            on_device, state = apply(on_device, state, given, self.trainer.rates_at(model.width, step, progress))
        return _numpy(on_device)

    def train(self, weights: Weights, batches: Sequence[Array], rows: int) -> list[float]:
        stepper = self.trainer.Stepper(self._model(weights), self.choices, rows)
        return [stepper.step(tokens, step / len(batches)) for step, tokens in enumerate(batches)]

    def losses(self, weights: Weights, tokens_BT: Array, targets_BT: Array) -> Array:
        logits = self.trainer.restore(weights, facts("jax"))
        return backends.get("jax").losses(logits, tokens_BT, targets_BT, "cpu")


class Mlx:
    """MLX, eager: its compiler would build C++ on a CPU. Heads stand before time in its functions."""

    def __init__(self, trainer: ModuleType) -> None:
        self.trainer = trainer
        self.choices = trainer.choose(trainer.Machine(device="cpu"), "eager")

    def _model(self, weights: Weights | None = None, seed: int = 1) -> Any:
        return self.trainer.build(facts("mlx", seed), self.choices, weights)

    def _named(self, tree: Any) -> Weights:
        return _numpy(self.trainer.named(tree))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.initial(1).items()}

    def initial(self, seed: int) -> Weights:
        return self._named(self._model(seed=seed).parameters())

    def norm(self, x: Array) -> Array:
        return np.array(self.trainer.norm(_mlx(x)))

    def rotate(self, x_BTNH: Array) -> Array:
        return np.array(self.trainer.rotate(_mlx(x_BTNH.swapaxes(1, 2)))).swapaxes(1, 2)

    def attend(self, q_BTNH: Array, k_BTNH: Array, v_BTNH: Array, window: int | None) -> Array:
        q, k, v = (_mlx(x.swapaxes(1, 2)) for x in (q_BTNH, k_BTNH, v_BTNH))
        return np.array(self.trainer.attention(q, k, v, window)).swapaxes(1, 2)

    def block(self, weights: Weights, x_BTD: Array, embedded_BTD: Array | None, window: int | None) -> Array:
        block = self.trainer.Block(x_BTD.shape[-1], window, embedded_BTD is not None)
        block.load_weights([(name, _mlx(value)) for name, value in weights.items()])
        return np.array(block(_mlx(x_BTD), None if embedded_BTD is None else _mlx(embedded_BTD)))

    def logits(self, weights: Weights, tokens_BT: Array) -> Array:
        return np.array(self.trainer.restore(weights, facts("mlx"))(_mlx(tokens_BT)))

    def loss_and_gradients(self, weights: Weights, tokens_BT1: Array) -> tuple[float, Weights]:
        import mlx.nn as nn

        model = self._model(weights)
        loss, gradients = nn.value_and_grad(model, model.loss)(_mlx(tokens_BT1))
        return loss.item(), self._named(gradients)

    def optimize(self, weights: Weights, gradients: Sequence[Weights], progress: float) -> Weights:
        from mlx.utils import tree_unflatten

        model = self._model(weights)
        optimizer = self.trainer.MuonAdamW(model)
        for step, given in enumerate(gradients):
            optimizer.schedule(step, progress)
            optimizer.update(model, tree_unflatten([(name, _mlx(value)) for name, value in given.items()]))
        return self._named(model.parameters())

    def train(self, weights: Weights, batches: Sequence[Array], rows: int) -> list[float]:
        stepper = self.trainer.Stepper(self._model(weights), self.choices, rows)
        return [stepper.step(tokens, step / len(batches)) for step, tokens in enumerate(batches)]

    def losses(self, weights: Weights, tokens_BT: Array, targets_BT: Array) -> Array:
        logits = self.trainer.restore(weights, facts("mlx"))
        return backends.get("mlx").losses(logits, tokens_BT, targets_BT, "cpu")


def _numpy(weights: Mapping[str, Any]) -> Weights:
    return {name: np.array(value) for name, value in weights.items()}


def _torch(array: Array) -> Any:
    import torch

    return torch.from_numpy(np.array(array))  # a copy: what is given is changed by nothing


def _jax(array: Array) -> Any:
    import jax

    return jax.device_put(array, jax.devices("cpu")[0])


def _mlx(array: Array) -> Any:
    import mlx.core as mx

    return mx.array(array)
