"""The fixed side of the NumPy backend: everything on the CPU, nothing to compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backends.base import MEMORY_ERROR, Floats, Ids, Logits, no_thread_settings, nothing_to_fetch, seed_numpy
from core.records import UserError
from core.system import hardware

has_model = False  # it counts pairs of tokens
packages = ("numpy",)
fetch = nothing_to_fetch
thread_settings = no_thread_settings
seed = seed_numpy


def missing() -> str | None:
    """NumPy is what the core itself needs, so it is always there."""
    return None


def environment(cache: Path, fetched: Path, device: str) -> dict[str, str]:
    """Nothing is compiled and nothing is cached."""
    return {}


def out_of_memory(said: str) -> bool:
    """NumPy's MemoryError."""
    return MEMORY_ERROR.search(said) is not None


def resolve(device: str) -> str:
    """The CPU, and nothing else."""
    if device not in ("auto", "cpu"):
        raise UserError(f"device {device!r} with the numpy backend: it runs on the CPU only. Use --device cpu")
    return "cpu"


def threads() -> int:
    """Counting takes one."""
    return 1


def choose(device: str) -> dict[str, str]:
    """There is nothing to choose."""
    return {}


def to_device(array: Ids, device: str) -> Any:
    """The ids as they are."""
    return array


def to_numpy(array: Any) -> Floats:
    """An array as float32."""
    return np.asarray(array, np.float32)


def versions() -> dict[str, str]:
    """NumPy's version."""
    return {"numpy": np.__version__}


def device_name(device: str) -> str:
    """The processor's name as the platform reports it."""
    return hardware.processor()


def peak_memory_mb(device: str) -> float | None:
    """The process's own memory is the measure."""
    return None


def logits_shape(logits: Logits, length: int, device: str) -> tuple[int, ...]:
    """The shape of the logits for one row of that many tokens."""
    return np.asarray(logits(np.zeros((1, length), np.int32))).shape


def losses(logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
    """Nats of each target, float32 [B, T], one row of logits in memory at a time."""
    out_BT = np.empty(targets_BT.shape, np.float32)
    for row, (tokens_T, targets_T) in enumerate(zip(tokens_BT, targets_BT, strict=True)):
        logits_TV = np.asarray(logits(tokens_T[None])[0], np.float32)
        top_T1 = logits_TV.max(axis=-1, keepdims=True)
        total_T = np.log(np.exp(logits_TV - top_T1).sum(axis=-1)) + top_T1[:, 0]
        out_BT[row] = total_T - np.take_along_axis(logits_TV, targets_T[:, None], axis=-1)[:, 0]
    return out_BT


def logits_at(logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
    """The whole logits at N positions: float32 [N, vocabulary]."""
    logits_BTV = np.asarray(logits(tokens_BT), np.float32)
    return logits_BTV[positions_N2[:, 0], positions_N2[:, 1]]
