"""The reference trainer in JAX: model, optimizer and loop in one file, written to be edited.

Shapes stand in names: B rows, T time, D model width, N heads, H head width, V vocabulary, L matrices of one shape,
S slices of a step. The supervisor holds the clock, the data and the score; what is free is everything below.
"""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

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
COMPILE = "auto"  # "auto", "xla" or "eager"; auto is xla: by itself each operation would start from Python
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
SPLASH = "jax.experimental.pallas.ops.tpu.splash_attention"
SPLASH_BLOCKS = (128, 512)  # keys and queries of a block: the least that there is, and MaxText's

# ---- Choices: kernel, dtype and compiler, decided once from plain facts ----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the choices rest on."""

    device: str  # "cuda", "rocm", "tpu" or "cpu"
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability
    arch: str = ""  # ROCm's name of the architecture, such as gfx942; empty elsewhere
    splash: bool = False  # this JAX has the TPU's attention kernel

    @property
    def instinct(self) -> bool:
        """AMD's with matrix cores. The older gfx9 are Vega: without them, and without bfloat16."""
        return self.arch.startswith(("gfx908", "gfx90a", "gfx94", "gfx95"))

    @staticmethod
    def of(device: str) -> Machine:
        """This machine, as far as it is known without running anything on the device."""
        kind = device.partition(":")[0]
        facts: dict[str, Any] = {"device": kind}
        if kind == "cuda":
            facts["capability"] = tuple(map(int, device_of(device).compute_capability.split(".")))
        elif kind == "rocm":
            facts["arch"] = device_of(device).compute_capability.partition(":")[0]
        elif kind == "tpu":
            facts["splash"] = find_spec(SPLASH) is not None
        return Machine(**facts)


@dataclass(frozen=True)
class Choices:
    """What this process runs with, and why."""

    kernel: str  # "cudnn", "splash" or "xla"
    dtype: Any  # of activations and matrix products; parameters and their updates are float32
    compiled: bool
    kernel_reason: str
    dtype_reason: str
    compile_reason: str

    def with_reasons(self) -> dict[str, str]:
        """For the record: each choice with its reason."""
        return {
            "kernel": f"{self.kernel} ({self.kernel_reason})",
            "dtype": f"{jnp.dtype(self.dtype).name} ({self.dtype_reason})",
            "compile": f"{'xla' if self.compiled else 'eager'} ({self.compile_reason})",
        }


def choose(machine: Machine, compiler: str = COMPILE, *, failed: str = "") -> Choices:
    """Kernel, dtype and compiler for a machine. Pure: a table of machines tests it.

    `compiler` is as COMPILE; `failed` says why a kernel that isn't XLA's own failed on this machine.
    """
    if compiler not in ("auto", "xla", "eager"):
        raise UserError(f'COMPILE is "auto", "xla" or "eager" for JAX, not {compiler!r}. Set COMPILE = "auto"')
    dtype, dtype_reason = choose_dtype(machine)
    kernel, reason = choose_kernel(machine, failed)
    compile_reason = "every JAX device has it" if compiler == "auto" else "asked for"
    return Choices(kernel, dtype, compiler != "eager", reason, dtype_reason, compile_reason)


def choose_dtype(machine: Machine) -> tuple[Any, str]:
    """The dtype of activations, and why."""
    if machine.device == "tpu":
        return jnp.bfloat16, "what a TPU multiplies"
    if machine.device == "rocm":
        if machine.instinct or machine.arch.startswith(("gfx11", "gfx12")):
            return jnp.bfloat16, f"{machine.arch} multiplies it natively"
        return jnp.float32, f"{machine.arch} lacks bfloat16"
    if machine.device == "cuda":
        if machine.capability >= (8, 0):
            return jnp.bfloat16, "Ampere or newer"
        return jnp.float32, "no bfloat16 before Ampere"
    return jnp.float32, f"no other was measured on {machine.device}"


def choose_kernel(machine: Machine, failed: str) -> tuple[str, str]:
    """The attention kernel, and why."""
    if failed:
        return "xla", failed
    if machine.device == "cuda":
        if machine.capability < (8, 0):
            return "xla", "cuDNN's attention needs Ampere"
        if HEAD_DIM % 8 or HEAD_DIM > 128:
            return "xla", "cuDNN's attention takes heads of 8 to 128 in steps of 8"
        return "cudnn", "Ampere or newer"
    if machine.device == "tpu":
        if not machine.splash:
            return "xla", "this JAX lacks splash attention"
        if HEAD_DIM % SPLASH_BLOCKS[0] or SEQUENCE_LENGTH % SPLASH_BLOCKS[0]:
            return "xla", f"splash takes heads and sequences in whole blocks of {SPLASH_BLOCKS[0]}"
        return "splash", "the TPU's own kernel"
    return "xla", f"JAX has no other on {machine.device}"


# ---- Model -----------------------------------------------------------------------------------------------------------


def norm(x: Array) -> Array:
    """RMSNorm over the last axis, without a gain."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + NORM_EPSILON)).astype(x.dtype)


def rotate(x_BTNH: Array, rotary: Array) -> Array:
    """RoPE: turns pairs, one of each half of H, by minus the angle of their time. `rotary` is [2, T, 1, H/2]."""
    cos, sin = rotary[0], rotary[1]
    a, b = jnp.split(x_BTNH, 2, axis=-1)
    return jnp.concatenate((a * cos + b * sin, b * cos - a * sin), axis=-1)


@cache
def rotary_table() -> np.ndarray:
    """Cosines and sines of every time and pair, float32 [2, T, 1, H/2]; the angles are taken in float64."""
    angles = np.arange(SEQUENCE_LENGTH)[:, None] * ROTARY_BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    return np.stack((np.cos(angles), np.sin(angles)))[:, :, None].astype(np.float32)


class Linear(nnx.Module):
    """A matrix [outputs, inputs] without bias: stored in float32, multiplied in the dtype of what comes in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs = inputs
        self.weight = nnx.Param(jnp.empty((outputs, inputs)))

    def __call__(self, x: Array) -> Array:
        return x @ self.weight[...].astype(x.dtype).T


class Attention(nnx.Module):
    """Causal attention over the last `window` keys and itself (None: all), with normed queries and keys."""

    def __init__(self, width: int, window: int | None, value_embedding: bool, kernel: str) -> None:
        self.heads = width // HEAD_DIM
        self.query, self.key, self.value = Linear(width, width), Linear(width, width), Linear(width, width)
        self.output = Linear(width, width)
        self.gate = Linear(min(GATE_CHANNELS, width), self.heads) if value_embedding else None
        self.attend = attention(kernel, window)

    def __call__(self, x_BTD: Array, embedded_BTD: Array | None, rotary: Array) -> Array:
        heads = (*x_BTD.shape[:2], self.heads, HEAD_DIM)
        q_BTNH = norm(rotate(self.query(x_BTD).reshape(heads), rotary))
        k_BTNH = norm(rotate(self.key(x_BTD).reshape(heads), rotary))
        v_BTNH = self.value(x_BTD).reshape(heads)
        if self.gate is not None and embedded_BTD is not None:
            gate_BTN1 = 2 * jax.nn.sigmoid(self.gate(x_BTD[..., : self.gate.inputs]))[..., None]
            v_BTNH = v_BTNH + gate_BTN1 * embedded_BTD.reshape(heads)
        return self.output(self.attend(q_BTNH, k_BTNH, v_BTNH).reshape(x_BTD.shape))


class Block(nnx.Module):
    """One layer: attention, then an MLP with squared ReLU, each on the normed residual stream."""

    def __init__(self, width: int, window: int | None, value_embedding: bool, kernel: str) -> None:
        self.attention = Attention(width, window, value_embedding, kernel)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

    def __call__(self, x_BTD: Array, embedded_BTD: Array | None, rotary: Array) -> Array:
        x_BTD = x_BTD + self.attention(norm(x_BTD), embedded_BTD, rotary)
        return x_BTD + self.down(jnp.square(jax.nn.relu(self.up(norm(x_BTD)))))


class GPT(nnx.Module):
    """The model that the constants describe."""

    def __init__(self, vocabulary: int, kernel: str = "xla", dtype: Any = jnp.float32) -> None:
        self.width = math.ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM
        self.dtype = dtype
        self.windows = tuple(windows(WINDOW_PATTERN, DEPTH, SEQUENCE_LENGTH))
        embedded = [layer % 2 == (DEPTH - 1) % 2 for layer in range(DEPTH)]  # every other layer, the last included
        self.embedding = nnx.Param(jnp.empty((vocabulary, self.width)))
        self.unembedding = Linear(self.width, vocabulary)
        self.value_embeddings = nnx.Dict(
            {str(layer): nnx.Param(jnp.empty((vocabulary, self.width))) for layer in range(DEPTH) if embedded[layer]}
        )
        self.blocks = nnx.List(
            Block(self.width, window, has, kernel) for window, has in zip(self.windows, embedded, strict=True)
        )
        self.resid_lambdas = nnx.Param(jnp.empty(DEPTH))
        self.x0_lambdas = nnx.Param(jnp.empty(DEPTH))

    def __call__(self, tokens_BT: Array) -> Array:
        """The logits, float32 [B, T, V], each within SOFTCAP."""
        if tokens_BT.shape[1] > SEQUENCE_LENGTH:
            raise ValueError(f"at most SEQUENCE_LENGTH = {SEQUENCE_LENGTH} tokens, not {tokens_BT.shape[1]}")
        rotary = jnp.asarray(rotary_table()[:, : tokens_BT.shape[1]], self.dtype)
        x0_BTD = x_BTD = norm(self.embedding[...][tokens_BT].astype(self.dtype))
        for layer, block in enumerate(self.blocks):
            x_BTD = (self.resid_lambdas[layer] * x_BTD + self.x0_lambdas[layer] * x0_BTD).astype(self.dtype)
            name = str(layer)
            embedded = None
            if name in self.value_embeddings:
                embedded = self.value_embeddings[name][...][tokens_BT].astype(self.dtype)
            x_BTD = block(x_BTD, embedded, rotary)
        return SOFTCAP * jnp.tanh(self.unembedding(norm(x_BTD) / SOFTCAP).astype(jnp.float32))

    def loss(self, tokens_BT1: Array) -> Array:
        """Mean nats a token of rows of T + 1 ids."""
        logits_BTV = self(tokens_BT1[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, tokens_BT1[:, 1:]).mean()

    def flops_per_token(self) -> float:
        """Forward and backward: 6 a parameter that is multiplied, 12 a width and key that attention may see."""
        multiplied = sum(module.weight.size for _, module in nnx.iter_modules(self) if isinstance(module, Linear))
        keys = sum(SEQUENCE_LENGTH if window is None else window for window in self.windows)
        return 6.0 * multiplied + 12.0 * self.width * keys


def windows(pattern: str, depth: int, length: int) -> list[int | None]:
    """Each layer's window: keys before its own that a query sees, None for all of them. The last layer sees all."""
    sizes = [length // 2 if pattern[layer % len(pattern)] == "S" else None for layer in range(depth)]
    return [*sizes[:-1], None]


def attention(kernel: str, window: int | None) -> Callable[[Array, Array, Array], Array]:
    """The function of q, k and v, each [B, T, N, H], that a layer with this window uses."""
    # JAX's left window of W keys is ours; its own key comes on top. Unasked, JAX would take XLA everywhere.
    span = None if window is None else (window, 0)
    attend = partial(jax.nn.dot_product_attention, is_causal=True, local_window_size=span)
    if kernel != "splash":
        return partial(attend, implementation=kernel)

    def attend_splash(q: Array, k: Array, v: Array) -> Array:
        from jax.experimental.pallas.ops.tpu import splash_attention as splash

        time, heads = q.shape[1:3]
        if time % SPLASH_BLOCKS[0]:  # a sample of any length
            return attend(q, k, v, implementation="xla")
        mask = splash.LocalMask((time, time), (time if window is None else window, 0), 0)
        block = math.gcd(time, SPLASH_BLOCKS[1])
        sizes = splash.BlockSizes(block, block, block, block, block, block, block, block)
        mask_NTT = splash.MultiHeadMask([mask] * heads)
        flash = splash.make_splash_mha(mask_NTT, block_sizes=sizes, head_shards=1, q_seq_shards=1)
        q, k, v = (x.swapaxes(1, 2) for x in (q * HEAD_DIM**-0.5, k, v))
        return jax.vmap(flash)(q, k, v).swapaxes(1, 2)

    return attend_splash


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


Weights = dict[str, Array]  # under the names and in the layouts that every backend uses


def split(model: GPT) -> tuple[Callable[[Weights], GPT], Weights]:
    """The function that gives this model other weights, and the weights that it has."""
    graph, state = nnx.split(model)
    flat = dict(nnx.to_flat_state(nnx.as_pure(state)))
    path_of = {".".join(map(str, path)): path for path in flat}  # of `blocks.0.attention.query.weight`

    def with_weights(weights: Weights) -> GPT:
        return nnx.merge(graph, nnx.from_flat_state({path: weights[name] for name, path in path_of.items()}))

    return with_weights, {name: flat[path] for name, path in path_of.items()}


# ---- Optimizer -------------------------------------------------------------------------------------------------------


class MuonState(NamedTuple):
    """By shape of the matrices: the running mean of gradients, and of squares along the longer side."""

    momentum_buffer: dict[str, Array]
    variance: dict[str, Array]


def muon(lr: Array, momentum: Array, weight_decay: Array, dtype: Any = jnp.float32) -> optax.GradientTransformation:
    """Muon over matrices, stacked by shape; optax's own lacks all but the first of these.

    Nesterov momentum; the nearest orthogonal matrix (Jordan et al. 2024, here by Polar Express); each row or column
    of the longer side over its running size, total size kept (NorMuon, Li et al. 2025, arXiv:2510.05491); decay only
    where it agrees with the update (Chen et al. 2025, arXiv:2510.12402). `dtype` is that of the orthogonalization.
    """

    def init(matrices: optax.Params) -> MuonState:
        buffers = {name: jnp.zeros_like(stack) for name, stack in stacked(matrices).items()}
        longer = {name: -1 if stack.shape[-2] >= stack.shape[-1] else -2 for name, stack in buffers.items()}
        return MuonState(buffers, {name: zero.mean(longer[name], keepdims=True) for name, zero in buffers.items()})

    def update(gradients: Any, state: MuonState, matrices: Any) -> tuple[Any, MuonState]:
        buffers, variances, updates = {}, {}, {}
        weights = stacked(matrices)
        for name, gradient_LRC in stacked(gradients).items():
            momentum_buffer_LRC = buffers[name] = lerp(state.momentum_buffer[name], gradient_LRC, 1 - momentum)
            update_LRC = orthogonalize(lerp(gradient_LRC, momentum_buffer_LRC, momentum), dtype)
            across = -1 if state.variance[name].shape[-1] == 1 else -2
            square = jnp.square(update_LRC).mean(across, keepdims=True)
            variance = variances[name] = lerp(state.variance[name], square, 1 - MUON_BETA2)
            scale = jax.lax.rsqrt(jnp.maximum(variance, 1e-10))
            size = square.sum((-2, -1), keepdims=True)
            scaled = (square * jnp.square(scale)).sum((-2, -1), keepdims=True)
            update_LRC = update_LRC * (scale * jnp.sqrt(size / jnp.maximum(scaled, 1e-20)))
            agrees = (update_LRC * weights[name] >= 0).astype(update_LRC.dtype)
            rows, columns = update_LRC.shape[-2:]
            fitted = lr * max(1.0, rows / columns) ** 0.5
            updates[name] = -fitted * (update_LRC + weight_decay * weights[name] * agrees)
        return unstacked(updates, gradients), MuonState(buffers, variances)

    return optax.GradientTransformation(init, update)


def lerp(start: Array, end: Array, part: Array | float) -> Array:
    """From start (part 0) to end (part 1)."""
    return start + part * (end - start)


def stacked(matrices: Any) -> dict[str, Array]:
    """The matrices of a tree by their shape, each [L, rows, columns]."""
    by_shape: dict[str, list[Array]] = {}
    for matrix in jax.tree.leaves(matrices):
        by_shape.setdefault("x".join(map(str, matrix.shape)), []).append(matrix)
    return {name: jnp.stack(same) for name, same in by_shape.items()}


def unstacked(stacks: dict[str, Array], like: Any) -> Any:
    """The tree that `stacked` was given, with these values."""
    parts = {name: iter(stack) for name, stack in stacks.items()}
    return jax.tree.map(lambda matrix: next(parts["x".join(map(str, matrix.shape))]), like)


def orthogonalize(matrices_LRC: Array, dtype: Any = jnp.float32) -> Array:
    """The matrices with all singular values moved close to 1; float32 in and out, multiplied in `dtype`."""
    norm_L11 = jnp.linalg.norm(matrices_LRC, axis=(-2, -1), keepdims=True)
    x_LRC = (matrices_LRC / (norm_L11 * 1.02 + 1e-6)).astype(dtype)  # room for the rounding of bfloat16
    tall = x_LRC.shape[-2] > x_LRC.shape[-1]
    x_LRC = x_LRC.mT if tall else x_LRC

    def approach(x_LRC: Array, abc: Array) -> tuple[Array, None]:
        a, b, c = abc  # float32, as the sums are
        gram_LRR = x_LRC @ x_LRC.mT
        gram_LRR = (b * gram_LRR + c * (gram_LRR @ gram_LRR)).astype(dtype)
        return (a * x_LRC + gram_LRR @ x_LRC).astype(dtype), None

    x_LRC, _ = jax.lax.scan(approach, x_LRC, jnp.array(POLAR_EXPRESS))
    return (x_LRC.mT if tall else x_LRC).astype(jnp.float32)


class Rates(NamedTuple):
    """What a schedule or a search moves. It enters the step as arrays, so neither compiles anything again."""

    embeddings: Any
    unembedding: Any
    resid_lambdas: Any
    x0_lambdas: Any
    matrices: Any
    betas: Any
    momentum: Any
    weight_decay: Any


def optimizer(rates: Rates, names: Iterable[str], dtype: Any = jnp.float32) -> optax.GradientTransformation:
    """Muon for the matrices of the blocks, Adam for the rest. `dtype` is that of Muon's orthogonalization."""

    def adam(rate: Array, betas: Any, epsilon: float = ADAM_EPSILON) -> optax.GradientTransformation:
        return optax.adam(rate, betas[0], betas[1], eps=epsilon)

    def kind(name: str) -> str:
        if name.startswith("blocks."):
            return "matrices"
        return "embeddings" if name.startswith(("embedding", "value_embeddings.")) else name.removesuffix(".weight")

    transforms = {
        "embeddings": adam(rates.embeddings, rates.betas),
        "unembedding": adam(rates.unembedding, rates.betas),
        "resid_lambdas": adam(rates.resid_lambdas, rates.betas, SCALAR_EPSILON),
        "x0_lambdas": adam(rates.x0_lambdas, X0_BETAS, SCALAR_EPSILON),
        "matrices": muon(rates.matrices, rates.momentum, rates.weight_decay, dtype),
    }
    return optax.partition(transforms, {name: kind(name) for name in names})


def rate_at(progress: float) -> float:
    """What every learning rate is multiplied with: rises, stays at 1, falls to FINAL_LR_FRAC."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    left = 1.0 - progress
    if left >= WARMDOWN_RATIO:
        return 1.0
    return FINAL_LR_FRAC + (1.0 - FINAL_LR_FRAC) * left / WARMDOWN_RATIO


def rates_at(width: int, step: int, progress: float) -> Rates:
    """Every rate at this point of the schedule. Those of what is V wide fall with the root of D."""
    start, end, over = MUON_MOMENTUM
    by_width = (width / 768) ** -0.5  # upstream's rates were found at a width of 768
    now = rate_at(progress)
    rates = Rates(
        embeddings=EMBEDDING_LR * by_width * now,
        unembedding=UNEMBEDDING_LR * by_width * now,
        resid_lambdas=SCALAR_LR * 0.01 * now,
        x0_lambdas=SCALAR_LR * now,
        matrices=MATRIX_LR * now,
        betas=ADAM_BETAS,
        momentum=start + (end - start) * min(step / over, 1.0),
        weight_decay=WEIGHT_DECAY * (1.0 - progress),
    )
    return jax.tree.map(np.float32, rates)


# ---- Training --------------------------------------------------------------------------------------------------------


def device_of(name: str) -> jax.Device:
    """The device that `cuda`, `cuda:1`, `tpu` or `cpu` names."""
    kind, _, index = name.partition(":")
    return jax.devices(kind)[int(index or 0)]


def train_step(
    with_weights: Callable[[Weights], GPT],
    dtype: Any,
    weights: Weights,
    state: optax.OptState,
    tokens_SBT1: Array,
    rates: Rates,
) -> tuple[Weights, optax.OptState, Array]:
    """One step on S slices of rows of T + 1 ids; the last of what it returns is the mean loss before it."""

    def accumulate(sums: Any, tokens_BT1: Array) -> tuple[Any, None]:
        both = jax.value_and_grad(lambda weights: with_weights(weights).loss(tokens_BT1))(weights)
        return jax.tree.map(jnp.add, sums, both), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), weights))
    sums, _ = jax.lax.scan(accumulate, zeros, tokens_SBT1)
    loss, gradients = jax.tree.map(lambda total: total / len(tokens_SBT1), sums)
    updates, state = optimizer(rates, weights, dtype).update(gradients, state, weights)
    return optax.apply_updates(weights, updates), state, loss


def runner(with_weights: Callable[[Weights], GPT], choices: Choices) -> Callable[..., Any]:
    """`train_step` as it runs, a function of weights, state, tokens and rates. It takes shapes alone to lower it."""
    run = partial(train_step, with_weights, choices.dtype)
    # The weights and the state that go in are given up to those that come out, the model's own first of all.
    return jax.jit(run, donate_argnums=(0, 1)) if choices.compiled else run


class Stepper:
    """A model with its optimizer and what runs them: one call is one step."""

    def __init__(self, model: GPT, choices: Choices, slice_rows: int) -> None:
        self.model = model
        self.device = model.embedding[...].device
        self.slice_rows = slice_rows
        self.with_weights, self.weights = split(model)
        self.run = runner(self.with_weights, choices)
        self.compiled = choices.compiled
        self.start(self.weights)

    def start(self, weights: Weights | dict[str, np.ndarray]) -> None:
        """These weights, and the optimizer and the schedule as they are before the first step."""
        rates = rates_at(self.model.width, 0, 0.0)
        self.weights = jax.device_put(weights, self.device)
        # Put there by name: what JAX itself placed would count as another kind of argument, and compile again.
        self.state = jax.device_put(jax.jit(optimizer(rates, weights).init)(self.weights), self.device)
        self.steps = 0

    def step(self, tokens: np.ndarray, progress: float) -> float:
        """One step on int32 [rows, T + 1]; returns the mean loss before it, in nats a token."""
        slices = jax.device_put(tokens.reshape(-1, self.slice_rows, tokens.shape[1]), self.device)
        rates = rates_at(self.model.width, self.steps, progress)
        with jax.disable_jit(not self.compiled):
            self.weights, self.state, loss = self.run(self.weights, self.state, slices, rates)
        self.steps += 1
        return float(loss)

    def warm(self, batches: Iterable[np.ndarray], steps: int = 1) -> None:
        """Runs a step on a batch that doesn't count, then puts weights and optimizer back as they were."""
        weights = {name: np.array(value) for name, value in self.weights.items()}
        for tokens, _ in zip(batches, range(steps), strict=False):
            self.step(tokens, progress=0.0)
        self.start(weights)


def build(facts: Facts, choices: Choices, weights: dict[str, np.ndarray] | None = None) -> GPT:
    """The model on its device, with the weights given, or with the initial ones of the seed."""
    with_weights, empty = split(nnx.eval_shape(lambda: GPT(facts.vocabulary, choices.kernel, choices.dtype)))
    shapes = {name: value.shape for name, value in empty.items()}
    if weights is None:
        weights = {name: initial_weight(name, shape, facts.seed) for name, shape in shapes.items()}
    found = {name: value.shape for name, value in weights.items()}
    if wrong := sorted({name for name, _ in found.items() ^ shapes.items()}):
        told = ", ".join(f"{name} {found.get(name, 'missing')}, not {shapes.get(name, 'there')}" for name in wrong)
        raise ValueError(f"these weights are another model's: {told}")
    on_device = {name: value.astype(np.float32) for name, value in weights.items()}
    return with_weights(jax.device_put(on_device, device_of(facts.device)))


def main() -> None:
    trial = join(device_rows=DEVICE_BATCH_SIZE)
    rows, slices = batch_shape(TOTAL_BATCH_SIZE, SEQUENCE_LENGTH, DEVICE_BATCH_SIZE, trial.device_rows)

    def warmed(choices: Choices) -> Stepper:
        stepper = Stepper(build(trial.facts, choices), choices, rows // slices)
        stepper.warm(trial.warmup(rows, SEQUENCE_LENGTH))
        trial.describe(flops_per_token=stepper.model.flops_per_token(), **choices.with_reasons())
        return stepper

    machine = Machine.of(trial.facts.device)
    choices = choose(machine)
    try:
        stepper = warmed(choices)
    except Exception as error:
        if choices.kernel == "xla" or "RESOURCE_EXHAUSTED" in str(error):
            raise
        stepper = warmed(choose(machine, failed=f"{choices.kernel} failed: {type(error).__name__}"))
    trial.rehearse(arrays(stepper.weights), restore)
    gc.freeze()  # a collection over what is alive for good would stall a step
    for tokens in trial.batches(rows, SEQUENCE_LENGTH):
        trial.report(loss=stepper.step(tokens, trial.progress))
    trial.finish(arrays(stepper.weights))


def arrays(weights: dict[str, Array]) -> dict[str, np.ndarray]:
    """The weights in NumPy's memory, by name."""
    return {name: np.asarray(value) for name, value in weights.items()}


def restore(weights: dict[str, np.ndarray], facts: Facts) -> Callable[[Array], Array]:
    """The trained model as a function: tokens [B, T] -> logits [B, T, V], float32, on the device."""
    with_weights, on_device = split(build(facts, choose(Machine.of(facts.device)), weights))
    return partial(jax.jit(lambda weights, tokens: with_weights(weights)(tokens)), on_device)


if __name__ == "__main__":
    main()
