"""The reference trainer in MLX: model, optimizer and loop in one file, written to be edited.

Shapes stand in names: B rows, T time, D model width, N heads, H head width, V vocabulary, L matrices of one shape.
The supervisor holds the clock, the data and the score; what is free is everything below.
"""

from __future__ import annotations

import gc
import hashlib
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from backends.base import batch_shape
from core.records import Facts, UserError
from core.trial import join

# ---- Constants: the search reads the ranges; upstream's values for an H100 where a preset sets nothing else ----------

DEPTH = 8  # tune: int 4 .. 12; layers; with ASPECT_RATIO it sets the width, so depth alone scales the model
ASPECT_RATIO = 64  # tune: one of 32, 48, 64, 96; model width = DEPTH * ASPECT_RATIO, rounded up to whole heads
HEAD_DIM = 128  # tune: one of 32, 64, 128
WINDOW_PATTERN = "SSSL"  # tune: one of "L", "SL", "SSL", "SSSL"; S: half the sequence, L: all; the last layer is L
SEQUENCE_LENGTH = 2048  # tune: one of 512, 1024, 2048
TOTAL_BATCH_SIZE = 524288  # tune: log int 65536 .. 1048576; tokens of one step, rounded to whole slices
DEVICE_BATCH_SIZE = 128  # rows that the device takes at once: memory and speed only
COMPILE = "auto"  # "auto", "compile" or "eager"; auto is compile on the GPU and eager elsewhere
EMBEDDING_LR = 0.6  # tune: log 0.05 .. 2
UNEMBEDDING_LR = 0.004  # tune: log 0.0005 .. 0.03
MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2
SCALAR_LR = 0.5  # tune: log 0.05 .. 2
WEIGHT_DECAY = 0.2  # tune: linear 0 .. 0.6; of the matrices, where it agrees with the update
ADAM_BETAS = (0.8, 0.95)  # tune: one of (0.8, 0.95), (0.9, 0.95), (0.8, 0.99), (0.9, 0.99)
WARMUP_RATIO = 0.0  # tune: linear 0 .. 0.2; part of the budget over which the rates rise
WARMDOWN_RATIO = 0.5  # tune: linear 0.1 .. 1; part of the budget over which they fall
FINAL_LR_FRAC = 0.0  # tune: linear 0 .. 0.2; what is left of them at the end

SOFTCAP = 15.0  # logits lie within (-SOFTCAP, SOFTCAP)
NORM_EPSILON = 1e-6
ROTARY_BASE = 10000.0
GATE_CHANNELS = 32  # of the layer's input, read by the gates of the value embeddings
ADAM_EPSILON = 1e-10
SCALAR_EPSILON = 1e-7  # of the two scales: their first gradients are rounding, of which 1e-10 makes whole steps
X0_BETAS = (0.96, 0.95)
MUON_MOMENTUM = (0.85, 0.95, 300)  # from, to, over so many steps
MUON_BETA2 = 0.95
# Polar Express (Amsel et al. 2025, arXiv:2505.16932), the first five steps for singular values down to 1e-3.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

# ---- Choices: dtype and compiler, decided once from plain facts ------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the choices rest on."""

    device: str  # "gpu" or "cpu"
    compiler: bool = False  # g++ is on the path: what MLX builds its fused CPU kernels with

    @staticmethod
    def of(device: str) -> Machine:
        """This machine, as far as it is known without running anything on the device."""
        return Machine(device=device, compiler=shutil.which("g++") is not None)


@dataclass(frozen=True)
class Choices:
    """What this process runs with, and why."""

    dtype: mx.Dtype  # of activations and matrix products; parameters and their updates are float32
    compiled: bool
    dtype_reason: str
    compile_reason: str

    def with_reasons(self) -> dict[str, str]:
        """For the record: each choice with its reason."""
        return {
            "kernel": "mx.fast (what MLX has for attention, RoPE and norm)",
            "dtype": f"{str(self.dtype).removeprefix('mlx.core.')} ({self.dtype_reason})",
            "compile": f"{'mx.compile' if self.compiled else 'eager'} ({self.compile_reason})",
        }


def choose(machine: Machine, compiler: str = COMPILE) -> Choices:
    """Dtype and compiler for a machine. Pure: a table of machines tests it.

    `compiler` is as COMPILE. UserError if what it asks for can't be had.
    """
    dtype, dtype_reason = choose_dtype(machine)
    compiled, compile_reason = choose_compiler(machine, compiler)
    return Choices(dtype, compiled, dtype_reason, compile_reason)


def choose_dtype(machine: Machine) -> tuple[mx.Dtype, str]:
    """The dtype of activations, and why."""
    if machine.device == "cpu":
        return mx.float32, "nothing faster was measured on cpu"
    return mx.bfloat16, "half the memory traffic; sums and parameters stay float32"


def choose_compiler(machine: Machine, asked: str) -> tuple[bool, str]:
    """Whether mx.compile fuses the step, and why."""
    if asked == "eager":
        return False, "asked for"
    if asked == "compile":
        if machine.device == "cpu" and not machine.compiler:
            raise UserError('COMPILE = "compile" can\'t be had: MLX needs g++ on the CPU. Set COMPILE = "auto"')
        return True, "asked for"
    if asked != "auto":
        raise UserError(f'COMPILE is "auto", "compile" or "eager", not {asked!r}')
    if machine.device == "cpu":
        return False, "a short trial on this device does not earn the start-up of a compiler back"
    return True, "kernels are built at run time on this device"


# ---- Model -----------------------------------------------------------------------------------------------------------


def norm(x: mx.array) -> mx.array:
    """RMSNorm over the last axis, without a gain."""
    return mx.fast.rms_norm(x, None, NORM_EPSILON)


def rotate(x_BNTH: mx.array) -> mx.array:
    """RoPE: turns pairs, one of each half of H, by minus the angle of their time."""
    return mx.fast.rope(x_BNTH, HEAD_DIM, traditional=False, base=ROTARY_BASE, scale=-1.0, offset=0)


class Linear(nn.Module):
    """A matrix without bias: stored in float32, multiplied in the dtype of what comes in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, inputs))  # `initial_weight` draws them

    def __call__(self, x: mx.array) -> mx.array:
        return x @ self.weight.astype(x.dtype).T


class Attention(nn.Module):
    """Causal attention over the last `window` keys and itself (None: all), with normed queries and keys."""

    def __init__(self, width: int, window: int | None, value_embedding: bool) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.window = window
        self.query, self.key, self.value = Linear(width, width), Linear(width, width), Linear(width, width)
        self.output = Linear(width, width)
        self.gate = Linear(min(GATE_CHANNELS, width), self.heads) if value_embedding else None

    def __call__(self, x_BTD: mx.array, embedded_BTD: mx.array | None) -> mx.array:
        heads = (*x_BTD.shape[:2], self.heads, HEAD_DIM)
        q_BNTH = norm(rotate(self.query(x_BTD).reshape(heads).swapaxes(1, 2)))
        k_BNTH = norm(rotate(self.key(x_BTD).reshape(heads).swapaxes(1, 2)))
        v_BTNH = self.value(x_BTD).reshape(heads)
        if self.gate is not None and embedded_BTD is not None:
            channels = self.gate.weight.shape[1]
            gate_BTN1 = 2 * mx.sigmoid(self.gate(x_BTD[..., :channels]))[..., None]
            v_BTNH = v_BTNH + gate_BTN1 * embedded_BTD.reshape(heads)
        attended_BNTH = attention(q_BNTH, k_BNTH, v_BTNH.swapaxes(1, 2), self.window)
        return self.output(attended_BNTH.swapaxes(1, 2).reshape(x_BTD.shape))


class Block(nn.Module):
    """One layer: attention, then an MLP with squared ReLU, each on the normed residual stream."""

    def __init__(self, width: int, window: int | None, value_embedding: bool) -> None:
        super().__init__()
        self.attention = Attention(width, window, value_embedding)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

    def __call__(self, x_BTD: mx.array, embedded_BTD: mx.array | None) -> mx.array:
        x_BTD = x_BTD + self.attention(norm(x_BTD), embedded_BTD)
        return x_BTD + self.down(mx.square(nn.relu(self.up(norm(x_BTD)))))


class GPT(nn.Module):
    """The model that the constants describe."""

    def __init__(self, vocabulary: int, dtype: mx.Dtype = mx.float32) -> None:
        super().__init__()
        self.width = math.ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM
        self.dtype = dtype
        embedded = [layer % 2 == (DEPTH - 1) % 2 for layer in range(DEPTH)]  # every other layer, the last included
        self.embedding = mx.zeros((vocabulary, self.width))
        self.unembedding = Linear(self.width, vocabulary)
        # To MLX an empty dict is a place without parameters: the others keep their layer's number as their name.
        self.value_embeddings: list[Any] = [mx.zeros((vocabulary, self.width)) if has else {} for has in embedded]
        self.blocks = [
            Block(self.width, window, has)
            for window, has in zip(windows(WINDOW_PATTERN, DEPTH, SEQUENCE_LENGTH), embedded, strict=True)
        ]
        self.resid_lambdas = mx.zeros(DEPTH)
        self.x0_lambdas = mx.zeros(DEPTH)

    def __call__(self, tokens_BT: mx.array) -> mx.array:
        """The logits, float32 [B, T, V], each within SOFTCAP."""
        if tokens_BT.shape[1] > SEQUENCE_LENGTH:
            raise ValueError(f"at most SEQUENCE_LENGTH = {SEQUENCE_LENGTH} tokens, not {tokens_BT.shape[1]}")
        x0_BTD = x_BTD = norm(self.embedding[tokens_BT].astype(self.dtype))
        for layer, block in enumerate(self.blocks):
            # A float32 array, even of one number, makes float32 of what it meets: back before a matrix product.
            x_BTD = (self.resid_lambdas[layer] * x_BTD + self.x0_lambdas[layer] * x0_BTD).astype(self.dtype)
            embedded = None
            if isinstance(self.value_embeddings[layer], mx.array):
                embedded = self.value_embeddings[layer][tokens_BT].astype(self.dtype)
            x_BTD = block(x_BTD, embedded)
        logits_BTV = self.unembedding(norm(x_BTD)).astype(mx.float32)
        return SOFTCAP * mx.tanh(logits_BTV / SOFTCAP)

    def loss(self, tokens_BT1: mx.array) -> mx.array:
        """Mean nats a token of rows of T + 1 ids."""
        logits_BTV = self(tokens_BT1[:, :-1])
        return nn.losses.cross_entropy(logits_BTV, tokens_BT1[:, 1:], reduction="mean")

    def flops_per_token(self) -> float:
        """Forward and backward: 6 a parameter that is multiplied, 12 a width and key that attention may see."""
        multiplied = sum(module.weight.size for module in self.modules() if isinstance(module, Linear))
        seen = [block.attention.window for block in self.blocks]
        keys = sum(SEQUENCE_LENGTH if window is None else window for window in seen)
        return 6.0 * multiplied + 12.0 * self.width * keys


def windows(pattern: str, depth: int, length: int) -> list[int | None]:
    """Each layer's window: keys before its own that a query sees, None for all of them. The last layer sees all."""
    sizes = [length // 2 if pattern[layer % len(pattern)] == "S" else None for layer in range(depth)]
    return [*sizes[:-1], None]


def attention(q_BNTH: mx.array, k_BNTH: mx.array, v_BNTH: mx.array, window: int | None) -> mx.array:
    """What each query sees of the values, [B, N, T, H]: its own key and up to `window` before it.

    On Metal the fused kernel serves scoring; a training step holds the scores of every layer, each [B, N, T, T].
    """
    time = q_BNTH.shape[2]
    mask: mx.array | str = "causal"
    if window is not None and window < time - 1:
        age_TT = mx.arange(time)[:, None] - mx.arange(time)  # the same in every layer: mx.compile keeps one
        mask = (age_TT >= 0) & (age_TT <= window)
    return mx.fast.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, scale=HEAD_DIM**-0.5, mask=mask)


def named(tree: Any) -> dict[str, mx.array]:
    """The arrays of nested dicts and lists, by their path: the names that weights are kept under."""
    return dict(tree_flatten(tree))


def initial_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One parameter, float32: matrices of a variance of 1 over their inputs; zeros write to the residual stream.

    By name and seed alone (Philox keyed with both), so that every backend starts at one point.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    random = np.random.Generator(np.random.Philox(key=key))
    if name == "resid_lambdas":
        return np.ones(shape, np.float32)
    if name == "x0_lambdas":
        return np.full(shape, 0.1, np.float32)
    if name == "embedding":
        return random.standard_normal(shape, np.float32)
    if name == "unembedding.weight":
        return random.standard_normal(shape, np.float32) * np.float32(0.001)
    if name.endswith(("output.weight", "down.weight", "gate.weight")):
        return np.zeros(shape, np.float32)
    bound = math.sqrt(3 / shape[1])
    return random.random(shape, np.float32) * np.float32(2 * bound) - np.float32(bound)


# ---- Optimizer -------------------------------------------------------------------------------------------------------


def muon_update(
    lr: mx.array,
    momentum: mx.array,
    weight_decay: mx.array,
    weights: list[mx.array],
    gradients: list[mx.array],
    momentum_buffer_LRC: mx.array,
    variance: mx.array,
    dtype: mx.Dtype,
) -> tuple[mx.array, mx.array, mx.array]:
    """One step of Muon for matrices of one shape: new weights, momentum buffer and variance.

    Nesterov momentum; the nearest orthogonal matrix (Jordan et al. 2024, here by Polar Express); each row or column
    of the longer side over its running size, total size kept (NorMuon, Li et al. 2025, arXiv:2510.05491); decay only
    where it agrees with the update (Chen et al. 2025, arXiv:2510.12402).
    """
    weight_LRC, gradient_LRC = mx.stack(weights), mx.stack(gradients)
    momentum_buffer_LRC = momentum_buffer_LRC + (1 - momentum) * (gradient_LRC - momentum_buffer_LRC)
    update_LRC = orthogonalize(gradient_LRC + momentum * (momentum_buffer_LRC - gradient_LRC), dtype)
    across = -1 if variance.shape[-1] == 1 else -2
    square = mx.square(update_LRC).mean(across, keepdims=True)
    variance = variance + (1 - MUON_BETA2) * (square - variance)
    scale = mx.rsqrt(mx.maximum(variance, 1e-10))
    size = square.sum((-2, -1), keepdims=True)
    scaled = (square * mx.square(scale)).sum((-2, -1), keepdims=True)
    update_LRC = update_LRC * (scale * mx.sqrt(size / mx.maximum(scaled, 1e-20)))
    agrees = (update_LRC * weight_LRC >= 0).astype(weight_LRC.dtype)
    return weight_LRC - lr * (update_LRC + weight_decay * weight_LRC * agrees), momentum_buffer_LRC, variance


def orthogonalize(matrices_LRC: mx.array, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The matrices with all singular values moved close to 1; float32 in and out, multiplied in `dtype`."""
    # The norm comes before the cast: a sum of squares in bfloat16 can lose most of them.
    norm_L11 = mx.sqrt(mx.square(matrices_LRC).sum((-2, -1), keepdims=True))
    x_LRC = (matrices_LRC / (norm_L11 * 1.02 + 1e-6)).astype(dtype)  # room for the rounding of bfloat16
    tall = x_LRC.shape[-2] > x_LRC.shape[-1]
    x_LRC = x_LRC.swapaxes(-1, -2) if tall else x_LRC
    for a, b, c in POLAR_EXPRESS:
        gram_LRR = x_LRC @ x_LRC.swapaxes(-1, -2)
        x_LRC = mx.addmm(x_LRC, mx.addmm(gram_LRR, gram_LRR, gram_LRR, beta=b, alpha=c), x_LRC, beta=a)
    return (x_LRC.swapaxes(-1, -2) if tall else x_LRC).astype(mx.float32)


class Muon(optim.Optimizer):
    """Muon over matrices, stacked by shape and multiplied in `dtype`."""

    def __init__(self, dtype: mx.Dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def init(self, parameters: dict[str, Any]) -> None:
        """Zeros for every shape."""
        for (rows, columns), names in self.by_shape(parameters).items():
            longer = (rows, 1) if rows >= columns else (1, columns)
            buffer, variance = (mx.zeros((len(names), *shape)) for shape in ((rows, columns), longer))
            self.state[f"{rows}x{columns}"] = {"momentum_buffer": buffer, "variance": variance}

    def apply_gradients(self, gradients: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        """The updated weights of every matrix that has a gradient."""
        weight_of, gradient_of = named(parameters), named(gradients)
        updated: list[tuple[str, mx.array]] = []
        for (rows, columns), names in self.by_shape(gradients).items():
            lr = self.learning_rate * max(1.0, rows / columns) ** 0.5
            rates = lr, self.state["momentum"], self.state["weight_decay"]
            group = self.state[f"{rows}x{columns}"]
            both = [weight_of[name] for name in names], [gradient_of[name] for name in names]
            weight_LRC, *new = muon_update(*rates, *both, group["momentum_buffer"], group["variance"], self.dtype)
            group["momentum_buffer"], group["variance"] = new
            updated += zip(names, weight_LRC, strict=True)
        return tree_unflatten(updated)

    @staticmethod
    def by_shape(parameters: dict[str, Any]) -> dict[tuple[int, ...], list[str]]:
        """Names of the matrices of each shape."""
        names: dict[tuple[int, ...], list[str]] = {}
        for name, matrix in named(parameters).items():
            names.setdefault(matrix.shape, []).append(name)
        return names


class MuonAdamW(optim.MultiOptimizer):
    """Muon for the matrices of the blocks, AdamW for the rest."""

    def __init__(self, model: GPT) -> None:
        by_width = (model.width / 768) ** -0.5  # upstream's rates were found at a width of 768
        groups: list[tuple[str, float, tuple[float, float], float]] = [
            ("embedding value_embeddings", EMBEDDING_LR * by_width, ADAM_BETAS, ADAM_EPSILON),
            ("unembedding", UNEMBEDDING_LR * by_width, ADAM_BETAS, ADAM_EPSILON),
            ("resid_lambdas", SCALAR_LR * 0.01, ADAM_BETAS, SCALAR_EPSILON),
            ("x0_lambdas", SCALAR_LR, X0_BETAS, SCALAR_EPSILON),
        ]
        flags: dict[str, Any] = {"weight_decay": 0.0, "bias_correction": True}
        adams = [optim.AdamW(rate, list(betas), eps=epsilon, **flags) for _, rate, betas, epsilon in groups]
        super().__init__([*adams, Muon(model.dtype)], [self.within(names) for names, *_ in groups])
        self.initial_rates = [*(rate for _, rate, *_ in groups), MATRIX_LR]
        self.init(model.trainable_parameters())
        self.schedule(0, 0.0)

    @staticmethod
    def within(names: str) -> Callable[[str, mx.array], bool]:
        """Whether a parameter's path starts at one of these names: how MLX asks which optimizer it belongs to."""
        return lambda path, _: path.partition(".")[0] in names.split()

    def schedule(self, step: int, progress: float) -> None:
        """Moves learning rates, momentum and weight decay to this point; arrays, so that nothing is compiled anew."""
        for optimizer, rate in zip(self.optimizers, self.initial_rates, strict=True):
            optimizer.learning_rate = mx.array(rate * rate_at(progress))
        start, end, over = MUON_MOMENTUM
        muon = self.optimizers[-1].state
        muon["momentum"] = mx.array(start + (end - start) * min(step / over, 1.0))
        muon["weight_decay"] = mx.array(WEIGHT_DECAY * (1.0 - progress))


def rate_at(progress: float) -> float:
    """What every learning rate is multiplied with: rises, stays at 1, falls to FINAL_LR_FRAC."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    left = 1.0 - progress
    if left >= WARMDOWN_RATIO:
        return 1.0
    return FINAL_LR_FRAC + (1.0 - FINAL_LR_FRAC) * left / WARMDOWN_RATIO


# ---- Training --------------------------------------------------------------------------------------------------------


class Stepper:
    """A model with its optimizer and what runs them: one call is one step."""

    def __init__(self, model: GPT, choices: Choices, slice_rows: int) -> None:
        self.model = model
        self.slice_rows = slice_rows
        self.optimizer = MuonAdamW(model)
        self.steps = 0
        # What a compiled step reads and replaces in place. These containers stay; their leaves change.
        self.state = [model.state, self.optimizer.state]
        self.loss_and_gradients = nn.value_and_grad(model, model.loss)
        self.accumulate: Callable[..., Any] = self._accumulate
        self.update: Callable[..., Any] = self._update
        if choices.compiled:
            self.accumulate = mx.compile(self._accumulate, inputs=self.state, outputs=self.state)
            self.update = mx.compile(self._update, inputs=self.state, outputs=self.state)

    def _accumulate(self, slice_BT1: mx.array, sums: list[Any]) -> list[Any]:
        """Loss and gradients of one slice, added to those before it: [loss, gradients]. Of the first: [] before it."""
        added = list(self.loss_and_gradients(slice_BT1))
        return tree_map(mx.add, added, sums) if sums else added

    def _update(self, slice_BT1: mx.array, sums: list[Any], share: mx.array) -> mx.array:
        """The whole of a step from its last slice on; returns the mean loss."""
        loss, gradients = self._accumulate(slice_BT1, sums)
        self.optimizer.update(self.model, tree_map(lambda gradient: gradient * share, gradients))
        return loss * share

    def step(self, tokens: np.ndarray, progress: float) -> float:
        """One step on int32 [rows, T + 1]; returns the mean loss before it, in nats a token."""
        slices = [tokens[first : first + self.slice_rows] for first in range(0, len(tokens), self.slice_rows)]
        self.optimizer.schedule(self.steps, progress)
        sums: list[Any] = []
        for slice_BT1 in slices[:-1]:
            sums = self.accumulate(mx.array(slice_BT1), sums)
            mx.eval(sums)  # one slice's activations at a time
        # As an array the number of slices is no part of the graph either.
        loss = self.update(mx.array(slices[-1]), sums, mx.array(1.0 / len(slices)))
        mx.eval(loss, self.state)
        self.steps += 1
        return loss.item()

    def warm(self, batches: Iterable[np.ndarray], steps: int = 2) -> None:
        """Runs a few steps on batches that don't count, then puts weights and optimizer back as they were."""
        before = tree_map(lambda leaf: leaf, self.state)  # arrays never change: to keep them is to copy them
        for tokens, _ in zip(batches, range(steps), strict=False):
            self.step(tokens, progress=0.0)
        put_back(self.state, before)
        self.steps = 0


def put_back(tree: Any, before: Any) -> None:
    """Sets every leaf of nested dicts and lists to its value in `before`; the containers stay the ones they are."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        if isinstance(tree[key], (dict, list)):
            put_back(tree[key], before[key])
        else:
            tree[key] = before[key]


def build(facts: Facts, choices: Choices, weights: dict[str, np.ndarray] | None = None) -> GPT:
    """The model on its device, with the weights given, or with the initial ones of the seed."""
    mx.set_default_device(mx.Device(mx.gpu if facts.device == "gpu" else mx.cpu))
    model = GPT(facts.vocabulary, choices.dtype)
    if weights is None:
        shapes = {name: value.shape for name, value in named(model.parameters()).items()}
        weights = {name: initial_weight(name, shape, facts.seed) for name, shape in shapes.items()}
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    mx.eval(model.parameters())
    return model


def limit_memory(device: str) -> None:
    """Keeps MLX within what the device recommends, and that resident: past it a Mac swaps and every step crawls."""
    recommended = int(mx.device_info().get("max_recommended_working_set_size", 0)) if device == "gpu" else 0
    if recommended:  # Metal; a CUDA device and the CPU name none, and keep MLX's own limits
        mx.set_memory_limit(recommended)
        mx.set_wired_limit(recommended)
        mx.set_cache_limit(recommended // 2)  # of freed blocks: the supervisor and the scorer share this memory


def limit_cache(device: str) -> None:
    """Keeps of freed blocks what a step of the preset's shapes and rows takes again, by what the warm-up showed.

    Half more than is in use at once: blocks of other sizes don't fit, and 1.2 to 1.4 times were seen to be kept. MLX
    by itself keeps whatever was ever freed, up to its limit, of a memory that the whole machine shares.
    """
    if device == "gpu":
        mx.set_cache_limit((mx.get_peak_memory() - mx.get_active_memory()) * 3 // 2)


def main() -> None:
    trial = join(device_rows=DEVICE_BATCH_SIZE)
    rows, slices = batch_shape(TOTAL_BATCH_SIZE, SEQUENCE_LENGTH, DEVICE_BATCH_SIZE, trial.device_rows)
    limit_memory(trial.facts.device)
    choices = choose(Machine.of(trial.facts.device))
    stepper = Stepper(build(trial.facts, choices), choices, rows // slices)
    # The first slice, those between and the last have a graph each.
    stepper.warm(trial.warmup(rows // slices * min(slices, 3), SEQUENCE_LENGTH))
    limit_cache(trial.facts.device)
    trial.describe(flops_per_token=stepper.model.flops_per_token(), **choices.with_reasons())
    trial.rehearse(arrays(stepper.model), restore)
    gc.freeze()  # a collection over what is alive for good would stall a step
    for tokens in trial.batches(rows, SEQUENCE_LENGTH):
        trial.report(loss=stepper.step(tokens, trial.progress))
    trial.finish(arrays(stepper.model))


def arrays(model: GPT) -> dict[str, np.ndarray]:
    """The weights of a model, by name."""
    return {name: np.array(value) for name, value in named(model.parameters()).items()}


def restore(weights: dict[str, np.ndarray], facts: Facts) -> Callable[[mx.array], mx.array]:
    """The trained model as a function: tokens [B, T] -> logits [B, T, V], float32, on the device."""
    limit_memory(facts.device)
    # Eager: a score passes over its text once, and compiling would cost more than it saves.
    return build(facts, choose(Machine.of(facts.device), "eager"), weights)


if __name__ == "__main__":
    main()
