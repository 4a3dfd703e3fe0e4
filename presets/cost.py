"""What a reference trainer of some shape costs: parameters, FLOP and memory, from the preset's numbers alone.

The counts are exact and held against the trainers by a test. Memory is an estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.records import Preset

# The trainers' own constants, for what a preset does not set.
HEAD_DIM, ASPECT_RATIO, WINDOW_PATTERN, GATE_CHANNELS = 128, 64, "SSSL", 32
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Of a parameter: weight, gradient, Adam's two moments or Muon's one with its stack of updates, all float32.
STATE_BYTES = 20
# A fused kernel keeps no scores. The others keep [heads, T, T] for the backward pass, in SCORE_COPIES copies.
FUSED_KERNELS = ("flash-attn-3", "flex", "cudnn", "splash")
SCORE_COPIES = 4


@dataclass(frozen=True)
class Activations:
    """What the forward pass keeps of one token for the backward pass."""

    widths: float  # of a layer, in widths of the model
    logit_bytes: float  # of all copies of the logits, per entry of the vocabulary


# Torch compiled: from upstream's 45.1 GB on an H100. The others were measured on a CPU, as the memory of 16 more rows.
ACTIVATIONS = {
    "compiled": Activations(13, 8),
    "torch": Activations(20, 16),
    "jax": Activations(18, 16),
    "mlx": Activations(24, 12),
}


def width(preset: Preset) -> int:
    """The width of the residual stream: DEPTH * ASPECT_RATIO rounded up to whole heads."""
    head = _constant(preset, "HEAD_DIM", HEAD_DIM)
    return math.ceil(preset.depth * _constant(preset, "ASPECT_RATIO", ASPECT_RATIO) / head) * head


def heads(preset: Preset) -> int:
    """Attention heads of a layer."""
    return width(preset) // _constant(preset, "HEAD_DIM", HEAD_DIM)


def matmul_parameters(preset: Preset) -> int:
    """Parameters that every token is multiplied with: the blocks' matrices, the gates and the unembedding."""
    wide = width(preset)
    gates = value_embeddings(preset) * min(GATE_CHANNELS, wide) * heads(preset)
    return preset.depth * 12 * wide**2 + gates + preset.vocabulary * wide


def value_embeddings(preset: Preset) -> int:
    """The number of layers with value embeddings: every other one, the last included."""
    return math.ceil(preset.depth / 2)


def parameters(preset: Preset) -> int:
    """All parameters, as a trial's record counts them."""
    embeddings = (1 + value_embeddings(preset)) * preset.vocabulary * width(preset)
    return matmul_parameters(preset) + embeddings + 2 * preset.depth


def flops_per_token(preset: Preset) -> float:
    """FLOP of the forward and the backward pass, as the trainers declare them."""
    pattern = str(preset.constants.get("WINDOW_PATTERN", WINDOW_PATTERN))
    short = sum(pattern[layer % len(pattern)] == "S" for layer in range(preset.depth - 1))  # the last layer sees all
    keys = (preset.depth - short) * preset.sequence_length + short * (preset.sequence_length // 2)
    return 6.0 * matmul_parameters(preset) + 12.0 * width(preset) * keys


def rows(preset: Preset) -> int:
    """Rows of a step."""
    return max(1, round(preset.total_batch_size / preset.sequence_length))


def memory_gb(preset: Preset, kernel: str, dtype: str, *, compiled: bool) -> float:
    """Peak memory of training in GB (10**9): state, and activations of the rows that are on the device at once."""
    kept = ACTIVATIONS["compiled" if compiled else preset.backend]
    token = kept.widths * preset.depth * width(preset) * BYTES[dtype] + kept.logit_bytes * preset.vocabulary
    if kernel not in FUSED_KERNELS and not (kernel == "sdpa" and preset.backend == "torch"):
        token += SCORE_COPIES * preset.depth * heads(preset) * preset.sequence_length * BYTES[dtype]
    at_once = min(preset.device_batch_size, rows(preset)) * preset.sequence_length
    return (parameters(preset) * STATE_BYTES + at_once * token) / 1e9


def _constant(preset: Preset, name: str, default: int) -> int:
    value = preset.constants.get(name, default)
    assert isinstance(value, int)
    return value
