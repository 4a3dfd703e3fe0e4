"""The fixed side of the PyTorch backend: device facts, seeding and scoring on the device. PyTorch loads when called."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.base import MEMORY_ERROR, Floats, Ids, Logits, choices_of, installed, resolve_among, seed_numpy
from core.records import DeviceName
from core.system import hardware

if TYPE_CHECKING:
    import torch


class Kernel(NamedTuple):
    """A build on the kernel hub, of a pinned version."""

    repository: str
    version: int


FLASH3 = Kernel("kernels-community/flash-attn3", 1)

# Logits are float32 [rows, T, V]; more at once than this (in MB) gains nothing: on a CPU they stay in its cache.
CHUNK_MB: dict[str, float] = {"cpu": 8, "mps": 256, "cuda": 1024}
has_model = True


def missing() -> str | None:
    """Whether PyTorch is installed; it is not imported."""
    if find_spec("torch") is None:
        return "PyTorch is not installed. Install it with: uv pip install 'autoresearch[torch]'"
    return None


def environment(cache: Path, fetched: Path, device: str) -> dict[str, str]:
    """Compile caches below `cache`, kernels below `fetched`; an allocator that keeps its pages."""
    return {
        # glibc gives large blocks back to the system and faults every page in again: 9 % of a step on a CPU.
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
        "KERNELS_CACHE": str(fetched / "kernels"),
        # A long run on CUDA asks for blocks of many sizes; without this, memory lies idle between them.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }


def fetch(fetched: Path) -> str | None:
    """Fetches what trials need and, without a network, can't fetch: FlashAttention-3 for a Hopper.

    Returns the line to tell, None where there is nothing to fetch. Runs in a process of its own, which has no
    PyTorch loaded yet and may go online.
    """
    import os

    if find_spec("torch") is None or find_spec("kernels") is None:
        return None
    os.environ["KERNELS_CACHE"] = str(fetched / "kernels")
    import torch

    if not torch.cuda.is_available() or torch.version.hip or torch.cuda.get_device_capability() != (9, 0):
        return None
    from kernels import install_kernel

    install_kernel(FLASH3.repository, version=FLASH3.version)
    return f"fetched {FLASH3.repository} {FLASH3.version}"


def flash3_cached() -> bool:
    """Whether FlashAttention-3 is installed and in the cache for this PyTorch; asks no network in a trial."""
    if find_spec("kernels") is None:
        return False
    from kernels import has_kernel

    try:
        return bool(has_kernel(FLASH3.repository, version=FLASH3.version))
    except (ValueError, OSError):  # offline, and never fetched
        return False


def out_of_memory(said: str) -> bool:
    """torch.OutOfMemoryError, and the allocators that raise a RuntimeError: the CPU's, Metal's, CUDA's libraries'."""
    words = r"can't allocate memory|not enough memory|out of memory|CU\w+_STATUS_ALLOC_FAILED"
    return MEMORY_ERROR.search(said) is not None or re.search(words, said) is not None


def resolve(device: str) -> str:
    """`auto`: CUDA or ROCm, then Apple's GPU, then the CPU. One named that isn't there is a UserError."""
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return resolve_among(device, there, f"PyTorch {torch.__version__}")


def choose(device: str) -> dict[str, str]:
    """What the reference trainer chooses on the device."""
    return choices_of(importlib.import_module("backends.torch.train"), device)


def seed(seed: int) -> None:
    """Seeds NumPy's, Python's and PyTorch's generators on every device."""
    import torch

    seed_numpy(seed)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """PyTorch, what it was built for, and the kernels and compilers that are installed."""
    import torch

    found = {"torch": torch.__version__, **installed("triton", "kernels")}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.version.hip:
        found["hip"] = torch.version.hip
    return found


def device_name(device: str) -> str:
    """What a person calls the device."""
    import torch

    if DeviceName.parse(device).kind == "cuda":
        return torch.cuda.get_device_name(device)
    return hardware.processor()


def peak_memory_mb(device: str) -> float | None:
    """Peak of the memory that PyTorch held on the device, in MB; None on the CPU."""
    import torch

    kind = DeviceName.parse(device).kind
    if kind == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    if kind == "mps":
        # MPS keeps no peak. What its driver holds only grows until the cache is emptied, which no trainer need do.
        return torch.mps.driver_allocated_memory() / 2**20
    return None


def losses(logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
    """Nats of each target, float32 [B, T]. Rows go through in chunks; the log-softmax is float32, on the device."""
    import torch
    import torch.nn.functional as F

    out_BT = np.empty(targets_BT.shape, np.float32)
    rows, length = tokens_BT.shape
    with torch.inference_mode():
        first, at_once = 0, 1  # the first row tells how wide the logits are
        while first < rows:
            part = slice(first, first + at_once)
            logits_BTV = logits(_put(tokens_BT[part], device))
            targets_M = _put(targets_BT[part], device).flatten().long()
            losses_M = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_M, reduction="none")
            out_BT[part] = losses_M.view(-1, length).cpu().numpy()
            first += at_once
            at_once = _rows_at_once(length * logits_BTV.shape[-1], device)
    return out_BT


def logits_at(logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
    """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
    import torch

    rows, index_N = np.unique(positions_N2[:, 0], return_inverse=True)
    picked: list[torch.Tensor] = []
    order: list[Ids] = []
    with torch.inference_mode():
        first, at_once = 0, 1
        while first < max(1, len(rows)):  # without a position one row still tells how wide the logits are
            part = rows[first : first + at_once] if len(rows) else np.zeros(1, np.int64)
            logits_BTV = logits(_put(tokens_BT[part], device))
            mine_M = np.flatnonzero((index_N >= first) & (index_N < first + at_once)).astype(np.int32)
            row_M = torch.from_numpy(index_N[mine_M] - first).to(device)
            time_M = _put(positions_N2[mine_M, 1], device).long()
            picked.append(logits_BTV[row_M, time_M].float().cpu())
            order.append(mine_M)
            first += at_once
            at_once = _rows_at_once(tokens_BT.shape[1] * logits_BTV.shape[-1], device)
    out_NV = torch.cat(picked).numpy()
    return out_NV[np.argsort(np.concatenate(order))]


def _put(array: Ids, device: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.int32)).to(device)


def _rows_at_once(floats_a_row: int, device: str) -> int:
    return max(1, int(CHUNK_MB[DeviceName.parse(device).kind] * 2**20 / (4 * floats_a_row)))
