"""The fixed side of the MLX backend: device facts, seeding and scoring on the device. MLX loads when called."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import base
from backends.base import Chunk, Floats, Ids, Logits
from core.system import hardware, install

if TYPE_CHECKING:
    import mlx.core as mx

# Logits are float32 [rows, T, V]; more at once than this (in MB) gains nothing: on a CPU they stay in its cache.
CHUNK_MB: dict[str, float] = {"cpu": 16, "gpu": 256}
has_model = True
packages = ("mlx",)
fetch = base.nothing_to_fetch
thread_settings = base.no_thread_settings


def missing() -> str | None:
    """Whether MLX is installed with what it runs on; it is not imported."""
    mend = f"Install it with: {install.command('mlx')}"
    places = _places()
    if not any(file for place in places for file in place.glob("core*")):
        here = f"{platform.system()} {platform.machine()}"
        if sys.platform == "win32" or (sys.platform == "darwin" and platform.machine() != "arm64"):
            return f"MLX has no build for {here}: it runs on Apple silicon and Linux. Use --preset cpu"
        return f"MLX is not installed. {mend}"
    # On Linux the package `mlx` is a shell: what computes comes with mlx[cpu] or mlx[cuda].
    if sys.platform == "linux" and not any((place / "lib/libmlx.so").exists() for place in places):
        return f"MLX is installed without a device it runs on. {mend}"
    return None


def environment(cache: Path, fetched: Path, device: str) -> dict[str, str]:
    """Nothing: what MLX builds at run time lies in the trial's own temporary folder, or in macOS's cache of shaders."""
    return {}


def out_of_memory(said: str) -> bool:
    """A refused allocation, and Metal's word for it: an exception in another thread, which ends the process."""
    words = r"malloc\w*\] (Unable|Attempting) to allocate|Insufficient Memory|OutOfMemory|out of memory|std::bad_alloc"
    return base.MEMORY_ERROR.search(said) is not None or re.search(words, said) is not None


def resolve(device: str) -> str:
    """`auto`: the GPU (Metal; CUDA where MLX is built for it), then the CPU. One that isn't there is a UserError."""
    import mlx.core as mx

    there = ["gpu", "cpu"] if mx.is_available(mx.Device(mx.gpu)) else ["cpu"]
    return base.resolve_among(device, there, f"MLX {versions()['mlx']}")


def threads() -> int:
    """A stream on the CPU is one thread."""
    return 1


def choose(device: str) -> dict[str, str]:
    """What the reference trainer chooses on the device."""
    return base.choices_of("mlx", device)


def to_device(array: Ids, device: str) -> Any:
    """Ids as an int32 array; MLX's arrays lie in the memory that its devices share."""
    import mlx.core as mx

    return mx.array(np.ascontiguousarray(array, np.int32))


def to_numpy(array: Any) -> Floats:
    """An array as float32."""
    import mlx.core as mx

    return np.array(array.astype(mx.float32))


def seed(seed: int) -> None:
    """Seeds NumPy's, Python's and MLX's generators."""
    import mlx.core as mx

    base.seed_numpy(seed)
    mx.random.seed(seed)


def versions() -> dict[str, str]:
    """MLX, the packages that hold its kernels, and macOS."""
    found = base.installed("mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
    if macos := platform.mac_ver()[0]:
        found["macos"] = macos
    return found


def device_name(device: str) -> str:
    """What a person calls the device: `Apple M4 Max`."""
    import mlx.core as mx

    if device == "gpu":
        return str(mx.device_info(mx.Device(mx.gpu)).get("device_name") or hardware.processor())
    return hardware.processor()


def peak_memory_mb(device: str) -> float | None:
    """Peak of the memory in MLX's arrays, in MB; None on the CPU."""
    import mlx.core as mx

    return mx.get_peak_memory() / 2**20 if device == "gpu" else None


def logits_shape(logits: Logits, length: int, device: str) -> tuple[int, ...]:
    """The shape of the logits for one row of that many tokens. They are not computed."""
    import mlx.core as mx

    with mx.stream(_device(device)):
        return tuple(logits(to_device(np.zeros((1, length), np.int32), device)).shape)


def losses(logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
    """Nats of each target, float32 [B, T]. Rows go through in chunks; the log-softmax is float32, on the device."""
    import mlx.core as mx

    out_BT = np.empty(targets_BT.shape, np.float32)
    with mx.stream(_device(device)):
        for part, logits_BTV in _chunks(logits, tokens_BT, device):
            wide_BTV = logits_BTV.astype(mx.float32)
            of_target_BT = mx.take_along_axis(wide_BTV, to_device(targets_BT[part], device)[..., None], axis=-1)[..., 0]
            out_BT[part] = np.array(mx.logsumexp(wide_BTV, axis=-1) - of_target_BT)
    return out_BT


def logits_at(logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
    """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
    import mlx.core as mx

    def pick(logits_BTV: mx.array, row_M: Ids, time_M: Ids) -> Floats:
        return np.array(logits_BTV[to_device(row_M, device), to_device(time_M, device)].astype(mx.float32))

    with mx.stream(_device(device)):
        return base.pick_positions(lambda tokens: _chunks(logits, tokens, device), pick, tokens_BT, positions_N2)


def _chunks(logits: Logits, tokens_BT: Ids, device: str) -> Iterator[Chunk]:
    return base.in_chunks(lambda ids: logits(to_device(ids, device)), tokens_BT, CHUNK_MB[device])


def _places() -> list[Path]:
    """The folders of the package `mlx`. To look for `mlx.core` itself would already import something."""
    spec = find_spec("mlx")
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []


def _device(device: str) -> mx.Device:
    import mlx.core as mx

    return mx.Device(mx.gpu if device == "gpu" else mx.cpu)
