"""The fixed side of the PyTorch backend: device facts, seeding and scoring on the device. PyTorch loads when called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backends import base
from backends.base import Chunk, Floats, Ids, Logits
from core.records import DeviceName
from core.system import hardware, install
from core.system.accelerators import accelerators

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
packages = ("torch",)


def missing() -> str | None:
    """Whether PyTorch is installed; it is not imported."""
    if find_spec("torch") is None:
        return f"PyTorch is not installed. Install it with: {install.command('torch', '--torch-backend=auto')}"
    return None


def environment(cache: Path, fetched: Path, device: str) -> dict[str, str]:
    """Compile caches below `cache`, kernels below `fetched`; an allocator that keeps its pages."""
    return {
        **base.KEEP_PAGES,
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
        "KERNELS_CACHE": str(fetched / "kernels"),
        # A long run on CUDA asks for blocks of many sizes; without this, memory lies idle between them.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }


def thread_settings(device: str, *, busy: bool, training: bool) -> dict[str, str]:
    """How OpenMP's threads wait at the end of each product, and where they run; nothing where the device is a GPU.

    A thread that spins beside other work takes the processor from the thread that it waits for: 6 % of the speed is
    left. Threads that sleep keep 70 %, but on an idle machine cost up to a quarter, because a processor wakes slowly.
    So they sleep if there is other work; else they spin for some 0.1 ms, each bound to a processor of its own, which
    keeps 45 % should other work begin. Measured on two cores of a virtual machine; only Linux has libgomp's binding.
    A process that scores is not bound: three processes would start on one processor.
    """
    if DeviceName.parse(device).kind != "cpu" and (device != "auto" or accelerators()):
        return {}
    if busy:
        return {"OMP_WAIT_POLICY": "PASSIVE"}
    if sys.platform != "linux" or hardware.cores() == 1:
        return {}
    bound = {"OMP_PROC_BIND": "spread", "OMP_PLACES": "threads"} if training else {}
    return {"GOMP_SPINCOUNT": "30000", **bound}


def fetch(fetched: Path) -> str | None:
    """Fetches FlashAttention-3 where the device is a Hopper."""
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
    return base.MEMORY_ERROR.search(said) is not None or re.search(words, said) is not None


def resolve(device: str) -> str:
    """`auto`: CUDA or ROCm, then Apple's GPU, then the CPU. One named that isn't there is a UserError."""
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return base.resolve_among(device, there, f"PyTorch {torch.__version__}")


def choose(device: str) -> dict[str, str]:
    """What the reference trainer chooses on the device."""
    return base.choices_of("torch", device)


def to_device(array: Ids, device: str) -> Any:
    """Ids as an int32 tensor on the device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.int32)).to(device)


def to_numpy(array: Any) -> Floats:
    """A tensor as float32."""
    found: Floats = array.detach().float().cpu().numpy()
    return found


def seed(seed: int) -> None:
    """Seeds NumPy's, Python's and PyTorch's generators on every device."""
    import torch

    base.seed_numpy(seed)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """PyTorch, what it was built for, and the kernels and compilers that are installed."""
    import torch

    found = {"torch": torch.__version__, **base.installed("triton", "kernels")}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.version.hip:
        found["hip"] = torch.version.hip
    return found


def threads() -> int:
    """The threads of PyTorch's pool for one operation."""
    import torch

    return torch.get_num_threads()


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


def logits_shape(logits: Logits, length: int, device: str) -> tuple[int, ...]:
    """The shape of the logits for one row of that many tokens."""
    import torch

    with torch.inference_mode():
        return tuple(logits(to_device(np.zeros((1, length), np.int32), device)).shape)


def losses(logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
    """Nats of each target, float32 [B, T]. Rows go through in chunks; the log-softmax is float32, on the device."""
    import torch
    import torch.nn.functional as F

    out_BT = np.empty(targets_BT.shape, np.float32)
    with torch.inference_mode():
        for part, logits_BTV in _chunks(logits, tokens_BT, device):
            targets_M = to_device(targets_BT[part], device).flatten().long()
            losses_M = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_M, reduction="none")
            out_BT[part] = losses_M.view(-1, tokens_BT.shape[1]).cpu().numpy()
    return out_BT


def logits_at(logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
    """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
    import torch

    def pick(logits_BTV: torch.Tensor, row_M: Ids, time_M: Ids) -> Floats:
        found_MV: Floats = (
            logits_BTV[to_device(row_M, device).long(), to_device(time_M, device).long()].float().cpu().numpy()
        )
        return found_MV

    with torch.inference_mode():
        return base.pick_positions(lambda tokens: _chunks(logits, tokens, device), pick, tokens_BT, positions_N2)


def _chunks(logits: Logits, tokens_BT: Ids, device: str) -> Iterator[Chunk]:
    return base.in_chunks(
        lambda ids: logits(to_device(ids, device)), tokens_BT, CHUNK_MB[DeviceName.parse(device).kind]
    )
