"""The reference trainer in PyTorch: model, optimizer and loop in one file, written to be edited.

Shapes stand in names: B rows, T time, D model width, N heads, H head width, V vocabulary, L matrices of one shape.
The supervisor holds the clock, the data and the score; what is free is everything below.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

from backends.base import batch_shape
from backends.torch.backend import FLASH3, flash3_cached
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
COMPILE = "auto"  # "auto", "inductor" or "eager"; auto is inductor on CUDA and eager elsewhere
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

# ---- Choices: kernel, dtype and compiler, decided once from plain facts ----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the choices rest on."""

    device: str  # "cuda" (ROCm too), "mps" or "cpu"
    platform: str = "linux"  # as sys.platform has it
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability
    arch: str = ""  # ROCm's name of the architecture, such as gfx942; empty elsewhere
    triton: bool = False  # installed
    compiler: bool = False  # a C++ compiler is on the path
    onednn: bool = False  # a CPU whose float32 products are quicker in oneDNN than in MKL
    flash3: bool = False  # FlashAttention-3 is installed and cached for this environment

    @property
    def instinct(self) -> bool:
        """AMD's with matrix cores. The older gfx9 are Vega: without them, and without bfloat16."""
        return self.arch.startswith(("gfx908", "gfx90a", "gfx94", "gfx95"))

    @staticmethod
    def of(device: str) -> Machine:
        """This machine, as far as it is known without running anything on the device."""
        kind = torch.device(device).type
        facts: dict[str, Any] = {"device": kind, "platform": sys.platform, "triton": find_spec("triton") is not None}
        names = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++", "cl"))
        facts["compiler"] = any(shutil.which(name) for name in names)
        cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        # MKL holds back on AMD. With AMX the setting would mean bfloat16; without it oneDNN multiplies in float32.
        amd = "AMD" in cpu.get("cpu_name", "") and cpu.get("avx512_f", False)
        facts["onednn"] = kind == "cpu" and amd and not cpu.get("amx_tile", False)
        if kind == "cuda" and torch.version.hip:
            facts["arch"] = torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
        elif kind == "cuda":
            facts["capability"] = torch.cuda.get_device_capability(device)
            facts["flash3"] = facts["capability"] == (9, 0) and flash3_cached()
        return Machine(**facts)


@dataclass(frozen=True)
class Choices:
    """What this process runs with, and why."""

    kernel: str  # "flash-attn-3", "flex" (for the layers with a window) or "sdpa"
    dtype: torch.dtype  # of activations and matrix products; parameters and their updates are float32
    compiled: bool
    onednn: bool
    kernel_reason: str
    dtype_reason: str
    compile_reason: str

    def with_reasons(self) -> dict[str, str]:
        """For the record: each choice with its reason."""
        return {
            "kernel": f"{self.kernel} ({self.kernel_reason})",
            "dtype": f"{str(self.dtype).removeprefix('torch.')} ({self.dtype_reason})",
            "compile": f"{'inductor' if self.compiled else 'eager'} ({self.compile_reason})",
        }


def choose(machine: Machine, compiler: str = COMPILE, *, failed: str = "") -> Choices:
    """Kernel, dtype and compiler for a machine. Pure: a table of machines tests it.

    `compiler` is as COMPILE; `failed` says why compiling failed on this machine. UserError if it was asked for and
    can't be had.
    """
    dtype, dtype_reason = choose_dtype(machine)
    compiled, compile_reason = choose_compiler(machine, compiler, failed)
    matrix_cores = machine.instinct if machine.arch else machine.capability >= (8, 0)
    hopper = machine.capability == (9, 0)
    if machine.device != "cuda":
        kernel, reason = "sdpa", f"PyTorch's own on {machine.device}"
    elif hopper and machine.flash3:
        kernel, reason = "flash-attn-3", "Hopper, and the kernel is cached"
    else:
        reason = "flash-attn-3 is not in the cache" if hopper else "flash-attn-3 needs Hopper"
        kernel = "flex" if compiled and matrix_cores else "sdpa"
        reason += "; layers without a window use sdpa" if kernel == "flex" else "; flex needs Ampere or MI and inductor"
    return Choices(kernel, dtype, compiled, machine.onednn, reason, dtype_reason, compile_reason)


def choose_dtype(machine: Machine) -> tuple[torch.dtype, str]:
    """The dtype of activations, and why."""
    if machine.onednn:
        return torch.float32, "products by oneDNN"
    if machine.device != "cuda":
        return torch.float32, f"no other was measured on {machine.device}"
    if machine.arch:
        if machine.instinct or machine.arch.startswith(("gfx11", "gfx12")):
            return torch.bfloat16, f"{machine.arch} multiplies it natively"
        return torch.float16, f"{machine.arch} lacks bfloat16; with a gradient scaler"
    if machine.capability >= (8, 0):
        return torch.bfloat16, "Ampere or newer"
    if machine.capability >= (7, 0):
        return torch.float16, "no bfloat16 before Ampere; with a gradient scaler"
    return torch.float32, "no tensor cores before Volta"


def choose_compiler(machine: Machine, asked: str, failed: str) -> tuple[bool, str]:
    """Whether inductor compiles the loss, and why."""
    cuda = machine.device == "cuda"
    own_compiler = cuda and machine.platform == "win32"  # Triton for Windows brings one
    reasons = {
        "Triton is not installed": cuda and not machine.triton,
        "Triton needs Volta or newer": cuda and not machine.arch and machine.capability < (7, 0),
        "Triton knows no Vega": machine.arch.startswith("gfx9") and not machine.instinct,
        "no C++ compiler was found: install g++ or clang++": not machine.compiler and not own_compiler,
    }
    lacks = failed or next((reason for reason, holds in reasons.items() if holds), "")
    if asked == "eager":
        return False, "asked for"
    if asked == "inductor":
        if lacks:
            raise UserError(f'COMPILE = "inductor" can\'t be had: {lacks}. Set COMPILE = "auto"')
        return True, "asked for"
    if asked != "auto":
        raise UserError(f'COMPILE is "auto", "inductor" or "eager", not {asked!r}')
    if cuda:
        return not lacks, lacks or "Triton and a compiler were found"
    return False, "a short trial on this device does not earn the start-up of a compiler back"


# ---- Model -----------------------------------------------------------------------------------------------------------


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last axis, without a gain."""
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)


def rotate(x_BTNH: Tensor, rotary: Tensor) -> Tensor:
    """RoPE: turns pairs, one of each half of H, by minus the angle of their time. `rotary` is [2, T, 1, H/2]."""
    cos, sin = rotary[0], rotary[1]
    a, b = x_BTNH.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Linear(nn.Linear):
    """A matrix without bias: stored in float32, multiplied in the dtype of what comes in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))

    def reset_parameters(self) -> None:
        """Nothing: `initial_weight` draws them."""


class Attention(nn.Module):
    """Causal attention over the last `window` keys and itself (None: all), with normed queries and keys."""

    def __init__(self, width: int, window: int | None, value_embedding: bool, kernel: str) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.query, self.key, self.value = Linear(width, width), Linear(width, width), Linear(width, width)
        self.output = Linear(width, width)
        self.gate = Linear(min(GATE_CHANNELS, width), self.heads) if value_embedding else None
        self.attend = attention(kernel, window)

    def forward(self, x_BTD: Tensor, embedded_BTD: Tensor | None, rotary: Tensor) -> Tensor:
        heads = (*x_BTD.shape[:2], self.heads, HEAD_DIM)
        q_BTNH = norm(rotate(self.query(x_BTD).view(heads), rotary))
        k_BTNH = norm(rotate(self.key(x_BTD).view(heads), rotary))
        v_BTNH = self.value(x_BTD).view(heads)
        if self.gate is not None and embedded_BTD is not None:
            gate_BTN1 = 2 * torch.sigmoid(self.gate(x_BTD[..., : self.gate.in_features])).unsqueeze(-1)
            v_BTNH = v_BTNH + gate_BTN1 * embedded_BTD.view(heads)
        return self.output(self.attend(q_BTNH, k_BTNH, v_BTNH).reshape(x_BTD.shape))


class Block(nn.Module):
    """One layer: attention, then an MLP with squared ReLU, each on the normed residual stream."""

    def __init__(self, width: int, window: int | None, value_embedding: bool, kernel: str) -> None:
        super().__init__()
        self.attention = Attention(width, window, value_embedding, kernel)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

    def forward(self, x_BTD: Tensor, embedded_BTD: Tensor | None, rotary: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(norm(x_BTD), embedded_BTD, rotary)
        return x_BTD + self.down(F.relu(self.up(norm(x_BTD))).square())


class GPT(nn.Module):
    """The model that the constants describe."""

    rotary: Tensor

    def __init__(self, vocabulary: int, kernel: str = "sdpa", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.width = math.ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM
        self.dtype = dtype
        self.windows = windows(WINDOW_PATTERN, DEPTH, SEQUENCE_LENGTH)
        embedded = [layer % 2 == (DEPTH - 1) % 2 for layer in range(DEPTH)]  # every other layer, the last included
        self.embedding = nn.Parameter(torch.empty(vocabulary, self.width))
        self.unembedding = Linear(self.width, vocabulary)
        self.value_embeddings = nn.ParameterDict(
            {str(layer): torch.empty(vocabulary, self.width) for layer in range(DEPTH) if embedded[layer]}
        )
        self.blocks = nn.ModuleList(
            Block(self.width, window, has, kernel) for window, has in zip(self.windows, embedded, strict=True)
        )
        self.resid_lambdas = nn.Parameter(torch.empty(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.empty(DEPTH))
        angles = np.arange(SEQUENCE_LENGTH)[:, None] * ROTARY_BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        rotary = torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)))[:, :, None])
        self.register_buffer("rotary", rotary.to(dtype).to(self.embedding.device), persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The logits, float32 [B, T, V], each within SOFTCAP."""
        if tokens_BT.shape[1] > SEQUENCE_LENGTH:
            raise ValueError(f"at most SEQUENCE_LENGTH = {SEQUENCE_LENGTH} tokens, not {tokens_BT.shape[1]}")
        rotary = self.rotary[:, : tokens_BT.shape[1]]
        x0_BTD = x_BTD = norm(F.embedding(tokens_BT, self.embedding).to(self.dtype))
        for layer, block in enumerate(self.blocks):
            x_BTD = (self.resid_lambdas[layer] * x_BTD + self.x0_lambdas[layer] * x0_BTD).to(self.dtype)
            name = str(layer)
            embedded = None
            if name in self.value_embeddings:
                embedded = F.embedding(tokens_BT, self.value_embeddings[name]).to(self.dtype)
            x_BTD = block(x_BTD, embedded, rotary)
        # Divided before the product: the cap then costs two passes fewer over logits that fill no cache.
        return SOFTCAP * torch.tanh(self.unembedding(norm(x_BTD) / SOFTCAP).float())

    def loss(self, tokens_BT1: Tensor) -> Tensor:
        """Mean nats a token of rows of T + 1 ids."""
        logits_BTV = self(tokens_BT1[:, :-1])
        return F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT1[:, 1:].flatten().long())

    def flops_per_token(self) -> float:
        """Forward and backward: 6 a parameter that is multiplied, 12 a width and key that attention may see."""
        multiplied = sum(module.weight.numel() for module in self.modules() if isinstance(module, Linear))
        keys = sum(SEQUENCE_LENGTH if window is None else window for window in self.windows)
        return 6.0 * multiplied + 12.0 * self.width * keys


def windows(pattern: str, depth: int, length: int) -> list[int | None]:
    """Each layer's window: keys before its own that a query sees, None for all of them. The last layer sees all."""
    sizes = [length // 2 if pattern[layer % len(pattern)] == "S" else None for layer in range(depth)]
    return [*sizes[:-1], None]


def attention(kernel: str, window: int | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The function of q, k and v, each [B, T, N, H], that a layer with this window uses."""
    if kernel == "flash-attn-3":
        from kernels import get_kernel

        flash = get_kernel(FLASH3.repository, version=FLASH3.version).flash_attn_func
        span = (-1, -1) if window is None else (window, 0)  # keys on the left of the query's own, and on its right

        def attend_flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = flash(q, k, v, causal=True, window_size=span)
            return out[0] if isinstance(out, tuple) else out

        return attend_flash
    if kernel == "flex" and window is not None:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def seen(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (query - key <= window)

        device = torch.get_default_device().type
        mask = create_block_mask(seen, None, None, SEQUENCE_LENGTH, SEQUENCE_LENGTH, device=device)

        def attend_flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = flex_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), block_mask=mask)
            return out.transpose(1, 2)

        return attend_flex

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        time = q.shape[1]
        mask = None
        if window is not None and window < time - 1:
            age = torch.arange(time, device=q.device)[:, None] - torch.arange(time, device=q.device)
            mask = (age >= 0) & (age <= window)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)

    return attend


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
    lr: Tensor | float,
    momentum: Tensor | float,
    weight_decay: Tensor | float,
    weights: list[Tensor],
    gradients: list[Tensor],
    momentum_buffer_LRC: Tensor,
    variance: Tensor,
    dtype: torch.dtype,
) -> None:
    """One step of Muon for matrices of one shape, in place.

    Nesterov momentum; the nearest orthogonal matrix (Jordan et al. 2024, here by Polar Express); each row or column
    of the longer side over its running size, total size kept (NorMuon, Li et al. 2025, arXiv:2510.05491); decay only
    where it agrees with the update (Chen et al. 2025, arXiv:2510.12402).
    """
    gradient_LRC = torch.stack(gradients)
    momentum_buffer_LRC.lerp_(gradient_LRC, 1 - momentum)
    update_LRC = orthogonalize(gradient_LRC.lerp(momentum_buffer_LRC, momentum), dtype)
    across = -1 if variance.shape[-1] == 1 else -2
    square = update_LRC.square().mean(across, keepdim=True)
    variance.lerp_(square, 1 - MUON_BETA2)
    scale = variance.clamp_min(1e-10).rsqrt()
    size = square.sum((-2, -1), keepdim=True)
    scaled = (square * scale.square()).sum((-2, -1), keepdim=True)
    update_LRC = update_LRC * (scale * (size / scaled.clamp_min(1e-20)).sqrt())
    for weight, update in zip(weights, update_LRC.unbind(), strict=True):
        agrees = (update * weight >= 0).to(weight.dtype)
        weight.sub_(lr * (update + weight_decay * weight * agrees))


def orthogonalize(matrices_LRC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrices with all singular values moved close to 1; float32 in and out, multiplied in `dtype`."""
    x_LRC = matrices_LRC.to(dtype)
    tall = x_LRC.shape[-2] > x_LRC.shape[-1]
    x_LRC = x_LRC.mT if tall else x_LRC
    x_LRC = x_LRC / (x_LRC.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)  # room for the rounding of bfloat16
    for a, b, c in POLAR_EXPRESS:
        gram_LRR = x_LRC @ x_LRC.mT
        x_LRC = torch.baddbmm(x_LRC, torch.baddbmm(gram_LRR, gram_LRR, gram_LRR, beta=b, alpha=c), x_LRC, beta=a)
    return (x_LRC.mT if tall else x_LRC).float()


class MuonAdamW:
    """Muon for the matrices of the blocks, AdamW for the rest; `update` is `muon_update`, compiled or not.

    No torch.optim.Optimizer: the first one made loads all of torch.compile, which takes seconds. This has what
    GradScaler asks for.
    """

    def __init__(self, model: GPT, update: Callable[..., None] = muon_update) -> None:
        by_width = (model.width / 768) ** -0.5  # upstream's rates were found at a width of 768
        embeddings = [model.embedding, *model.value_embeddings.values()]
        adam: dict[str, Any] = {"betas": ADAM_BETAS, "eps": ADAM_EPSILON}
        scalar: dict[str, Any] = {"betas": ADAM_BETAS, "eps": SCALAR_EPSILON}
        self.param_groups: list[dict[str, Any]] = [
            {"params": embeddings, "initial_lr": EMBEDDING_LR * by_width, **adam},
            {"params": [model.unembedding.weight], "initial_lr": UNEMBEDDING_LR * by_width, **adam},
            {"params": [model.resid_lambdas], "initial_lr": SCALAR_LR * 0.01, **scalar},
            {"params": [model.x0_lambdas], "initial_lr": SCALAR_LR, **scalar, "betas": X0_BETAS},
        ]
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in model.blocks.parameters():
            by_shape.setdefault(matrix.shape, []).append(matrix)
        for (rows, columns), same in by_shape.items():
            lr = MATRIX_LR * max(1.0, rows / columns) ** 0.5
            longer = (rows, 1) if rows >= columns else (1, columns)
            buffer, variance = (same[0].new_zeros(len(same), *shape) for shape in ((rows, columns), longer))
            group = {"params": same, "initial_lr": lr, "momentum_buffer": buffer, "variance": variance}
            self.param_groups.append(group)
        for group in self.param_groups:
            if "betas" in group:
                group["state"] = [[torch.zeros_like(p) for p in group["params"]] for _ in range(2)]
                group["steps"] = [torch.zeros((), device=p.device) for p in group["params"]]
        # Orthogonalization bears the rounding of bfloat16, but not the range of float16.
        self.muon_dtype = torch.bfloat16 if model.dtype == torch.bfloat16 else torch.float32
        self.update = update
        self.schedule(0, 0.0)

    def schedule(self, step: int, progress: float) -> None:
        """Moves learning rates, momentum and weight decay to this point of the trial."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * rate_at(progress)
        start, end, over = MUON_MOMENTUM
        self.momentum = start + (end - start) * min(step / over, 1.0)
        self.weight_decay = WEIGHT_DECAY * (1.0 - progress)

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter by its gradient."""
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"]]
            if "betas" in group:
                averages, variances = group["state"]
                beta1, beta2 = group["betas"]
                rates: dict[str, Any] = {"lr": group["lr"], "beta1": beta1, "beta2": beta2, "eps": group["eps"]}
                flags: dict[str, Any] = {"weight_decay": 0.0, "fused": True, "amsgrad": False, "maximize": False}
                adamw(group["params"], gradients, averages, variances, [], group["steps"], **rates, **flags)
            else:
                state = (group["momentum_buffer"], group["variance"], self.muon_dtype)
                self.update(group["lr"], self.momentum, self.weight_decay, group["params"], gradients, *state)

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


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
        self.device = model.embedding.device
        self.slice_rows = slice_rows
        self.loss: Callable[[Tensor], Tensor] = model.loss
        self.update: Callable[..., None] = muon_update
        if choices.compiled:
            # One graph of static shapes; a kernel from outside may break it.
            self.loss = torch.compile(model.loss, dynamic=False, fullgraph=choices.kernel != "flash-attn-3")
        if choices.compiled and self.device.type == "cuda":
            update = torch.compile(muon_update, dynamic=False, fullgraph=True)
            # Tensors are no part of the graph: neither a schedule nor a search recompiles.
            self.update = lambda lr, momentum, weight_decay, *others: update(
                torch.tensor(lr), torch.tensor(momentum), torch.tensor(weight_decay), *others
            )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=choices.dtype == torch.float16)
        self.optimizer: Any = MuonAdamW(model, self.update)
        self.steps = 0

    def step(self, tokens: np.ndarray, progress: float) -> float:
        """One step on int32 [rows, T + 1]; returns the mean loss before it, in nats a token."""
        slices = torch.split(self.to_device(tokens), self.slice_rows)
        total = torch.zeros((), device=self.device)
        for slice_BT1 in slices:
            loss = self.loss(slice_BT1)
            # The mean over slices is taken out here: how many there are is no part of the compiled graph.
            torch.autograd.backward(self.scaler.scale(loss / len(slices)))
            total += loss.detach()
        self.optimizer.schedule(self.steps, progress)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.steps += 1
        return total.item() / len(slices)

    def to_device(self, tokens: np.ndarray) -> Tensor:
        """The step's rows on the device. No copy can race: the pinned block is new, and PyTorch keeps it until read."""
        batch = torch.from_numpy(tokens)
        pinned = self.device.type == "cuda"
        return (batch.pin_memory() if pinned else batch).to(self.device, non_blocking=pinned)

    def warm(self, batches: Iterable[np.ndarray], steps: int = 2) -> None:
        """Runs a few steps on batches that don't count, then puts weights, optimizer and scaler back as they were."""
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        scaler = self.scaler.state_dict()
        for tokens, _ in zip(batches, range(steps), strict=False):
            self.step(tokens, progress=0.0)
        self.model.load_state_dict(weights)
        self.optimizer = MuonAdamW(self.model, self.update)
        self.scaler.load_state_dict(scaler)
        self.steps = 0


def build(facts: Facts, choices: Choices, weights: dict[str, np.ndarray] | None = None) -> GPT:
    """The model on its device, with the weights given, or with the initial ones of the seed."""
    torch.set_float32_matmul_precision("highest" if facts.device == "cpu" else "high")
    if choices.onednn:
        # The name misleads: without AMX it sends products to oneDNN, and they stay float32. See Machine.of.
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    with torch.device(facts.device):
        model = GPT(facts.vocabulary, choices.kernel, choices.dtype)
    if weights is None:
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        weights = {name: initial_weight(name, shape, facts.seed) for name, shape in shapes.items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def main() -> None:
    trial = join(device_rows=DEVICE_BATCH_SIZE)
    rows, slices = batch_shape(TOTAL_BATCH_SIZE, SEQUENCE_LENGTH, DEVICE_BATCH_SIZE, trial.device_rows)

    def warmed(choices: Choices) -> Stepper:
        stepper = Stepper(build(trial.facts, choices), choices, rows // slices)
        stepper.warm(trial.warmup(rows // slices, SEQUENCE_LENGTH))
        trial.describe(flops_per_token=stepper.model.flops_per_token(), **choices.with_reasons())
        return stepper

    machine = Machine.of(trial.facts.device)
    choices = choose(machine)
    try:
        stepper = warmed(choices)
    except Exception as error:
        if not choices.compiled or COMPILE == "inductor" or isinstance(error, torch.OutOfMemoryError):
            raise
        stepper = warmed(choose(machine, failed=f"compiling failed: {type(error).__name__}"))
    trial.rehearse(arrays(stepper.model), restore)
    gc.freeze()  # a collection over what is alive for good would stall a step
    for tokens in trial.batches(rows, SEQUENCE_LENGTH):
        trial.report(loss=stepper.step(tokens, trial.progress))
    trial.finish(arrays(stepper.model))


def arrays(model: GPT) -> dict[str, np.ndarray]:
    """The weights of a model, by name."""
    return {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def restore(weights: dict[str, np.ndarray], facts: Facts) -> Callable[[Tensor], Tensor]:
    """The trained model as a function: tokens [B, T] -> logits [B, T, V], float32, on the device."""
    # Eager: a score passes over its text once, and compiling would cost more than it saves.
    model = build(facts, choose(Machine.of(facts.device), "eager"), weights)
    return torch.inference_mode()(model)


if __name__ == "__main__":
    main()
