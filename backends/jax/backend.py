"""The fixed side of the JAX backend: device facts, seeding and scoring on the device. JAX loads when called."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import base
from backends.base import Chunk, Floats, Ids, Logits
from core.records import DeviceName
from core.system import hardware, install

if TYPE_CHECKING:
    import jax

# Logits are float32 [rows, T, V]; more at once than this (in MB) gains nothing: on a CPU they stay in its cache.
CHUNK_MB: dict[str, float] = {"cpu": 16, "tpu": 512, "cuda": 1024, "rocm": 1024}
ROWS = 64  # of a question about positions: fewer are filled up to these
has_model = True
packages = ("jax", "flax", "optax")
fetch = base.nothing_to_fetch  # what JAX's kernels rest on comes with its own extras
thread_settings = base.no_thread_settings
seed = base.seed_numpy  # JAX has no generator of its own: a trainer makes its keys


def missing() -> str | None:
    """Whether JAX, Flax and Optax are installed; none of them is imported."""
    if lacking := [name for name in packages if find_spec(name) is None]:
        return f"{', '.join(lacking)} not installed. Install with: {install.command('jax')}"
    return None


def environment(cache: Path, fetched: Path, device: str) -> dict[str, str]:
    """A compile cache below `cache` that keeps everything; memory that is taken as it is needed."""
    extra = {
        **base.KEEP_PAGES,
        "JAX_COMPILATION_CACHE_DIR": str(cache / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # XLA's own caches would put the folder's path into every key, and each process has a folder of its own.
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        # The scoring process waits beside the training one on the same device: neither may take 75 % of it at start.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",  # errors: a cache from this machine's other processor modes is reported at length
    }
    # A trial on the CPU does not open the accelerator, which another process may hold.
    return {**extra, "JAX_PLATFORMS": "cpu"} if device == "cpu" else extra


def out_of_memory(said: str) -> bool:
    """XLA's RESOURCE_EXHAUSTED, from compiling for too little memory or from allocating it."""
    return base.MEMORY_ERROR.search(said) is not None or "RESOURCE_EXHAUSTED" in said


def resolve(device: str) -> str:
    """`auto`: a TPU, CUDA or ROCm, then the CPU. One named that isn't there is a UserError."""
    import jax

    there: list[str] = []
    for kind in ("tpu", "cuda", "rocm", "cpu"):
        try:
            count = len(jax.devices(kind))
        except RuntimeError:
            continue
        there += [kind] if kind == "cpu" else [kind, *(f"{kind}:{index}" for index in range(count))]
    return base.resolve_among(device, there, f"JAX {jax.__version__}")


def threads() -> int:
    """XLA's pool has one for each core."""
    return hardware.cores()


def choose(device: str) -> dict[str, str]:
    """What the reference trainer chooses on the device."""
    return base.choices_of("jax", device)


def to_device(array: Ids, device: str) -> Any:
    """Ids as an int32 array on the device."""
    import jax

    return jax.device_put(np.ascontiguousarray(array, np.int32), _device(device))


def to_numpy(array: Any) -> Floats:
    """An array as float32."""
    return np.asarray(array, np.float32)


def versions() -> dict[str, str]:
    """JAX, what it rests on, and the driver libraries that came as packages."""
    drivers = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")
    return base.installed("jax", "jaxlib", "flax", "optax", *drivers, "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


def device_name(device: str) -> str:
    """What a person calls the device."""
    return hardware.processor() if device == "cpu" else _device(device).device_kind


def peak_memory_mb(device: str) -> float | None:
    """Peak of the memory that JAX held on the device, in MB; None on the CPU."""
    if device == "cpu":
        return None
    stats = _device(device).memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def logits_shape(logits: Logits, length: int, device: str) -> tuple[int, ...]:
    """The shape of the logits for one row of that many tokens. It is traced, and runs only if it can't be."""
    import jax

    try:
        return tuple(jax.eval_shape(logits, jax.ShapeDtypeStruct((1, length), np.int32)).shape)
    except jax.errors.JAXTypeError:  # a trainer whose logits leave JAX on the way
        return tuple(logits(to_device(np.zeros((1, length), np.int32), device)).shape)


def losses(logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
    """Nats of each target, float32 [B, T]. Rows go through in chunks; the log-softmax is float32, on the device."""
    import jax

    out_BT = np.empty(targets_BT.shape, np.float32)
    nats = jax.jit(_nats)
    at_once = _rows_at_once(logits, len(tokens_BT), tokens_BT.shape[1], device)
    for part, logits_BTV in _chunks(logits, tokens_BT, at_once, device):
        targets = to_device(_filled(targets_BT[part], at_once), device)
        out_BT[part] = np.asarray(nats(logits_BTV, targets))[: len(out_BT[part])]
    return out_BT


def logits_at(logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
    """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
    import jax

    jitted = jax.jit(_pick)

    def chunks(tokens_RT: Ids) -> Iterator[Chunk]:
        # One row (sampling), or a number that questions of changing size share: each other shape would be compiled.
        count, length = tokens_RT.shape
        at_once = 1 if count < 2 else _rows_at_once(logits, max(ROWS, count), length, device)
        return _chunks(logits, tokens_RT, at_once, device)

    def pick(logits_BTV: jax.Array, row_M: Ids, time_M: Ids) -> Floats:
        # As often as there are rows, or a multiple of that: another number of places would be compiled.
        places = -(-len(row_M) // len(logits_BTV)) * len(logits_BTV)
        found_MV = jitted(logits_BTV, np.resize(row_M, places), np.resize(time_M, places))
        return np.asarray(found_MV, np.float32)[: len(row_M)]

    return base.pick_positions(chunks, pick, tokens_BT, positions_N2)


def _chunks(logits: Logits, tokens_BT: Ids, at_once: int, device: str) -> Iterator[Chunk]:
    """Chunks of one shape, the last of them filled up: another shape would be compiled."""
    for first in range(0, len(tokens_BT), at_once):
        part = slice(first, first + at_once)
        yield part, logits(to_device(_filled(tokens_BT[part], at_once), device))


def _nats(logits_BTV: Any, targets_BT: Any) -> Any:
    import jax
    import jax.numpy as jnp

    wide_BTV = logits_BTV.astype(jnp.float32)
    chosen_BT = jnp.take_along_axis(wide_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(wide_BTV, axis=-1) - chosen_BT


def _pick(logits_BTV: Any, row_M: Any, time_M: Any) -> Any:
    return logits_BTV[row_M, time_M]


def _rows_at_once(logits: Logits, rows: int, length: int, device: str) -> int:
    """Rows of a chunk, from how wide the logits are; of few rows the next power of two, so that shapes stay few."""
    width = logits_shape(logits, length, device)[-1]
    return min(base.rows_within(CHUNK_MB[DeviceName.parse(device).kind], length, width), 1 << (rows - 1).bit_length())


def _filled(ids_BT: Ids, rows: int) -> Ids:
    return np.pad(ids_BT, ((0, rows - len(ids_BT)), (0, 0)))


def _device(device: str) -> jax.Device:
    import jax

    place = DeviceName.parse(device)
    return jax.devices(place.kind)[place.index or 0]
