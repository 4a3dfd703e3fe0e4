"""What is known of devices: reads devices.toml, and finds a device by the name that its driver gives it."""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.records import UserError

FILE = Path(__file__).resolve().parent / "devices.toml"
# Of unified memory the GPU's working set may take so much: Metal's recommendedMaxWorkingSetSize on small machines.
UNIFIED_SHARE = 0.67
# A framework's context on the device, twice: the scoring process waits beside the training one.
CONTEXTS_GB = 1.0
# What stands behind the name of one card and makes it another.
OTHERS = "ti|super|laptop|d|max-q|nvl"
# Which backend drives a kind of device, best first, with its own name for it.
DRIVERS = {
    "cuda": (("torch", "cuda"), ("jax", "cuda")),
    "rocm": (("torch", "cuda"), ("jax", "rocm")),
    "apple": (("mlx", "gpu"), ("torch", "mps")),
    "tpu": (("jax", "tpu"),),
    "cpu": (("torch", "cpu"), ("jax", "cpu"), ("mlx", "cpu")),
}
# What a trainer is taken to choose where its device is not in the file, or another backend drives it. The widest choice
# that is likely: a narrower one (heads of 64 on a TPU) would keep a measurement from seeing the better kernel.
LIKELY_KERNELS = {"torch": "sdpa", "jax": "xla", "jax cuda": "cudnn", "jax tpu": "splash", "mlx": "mx.fast"}
LIKELY_DTYPES = {"torch cpu": "float32", "torch mps": "float32", "jax cpu": "float32", "mlx cpu": "float32"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device's facts, of devices.toml or, where `known` is false, of one like it.

    `memory_gb` is the machine's where memory is unified, and of the smallest one sold.
    """

    key: str  # what a user types
    name: str
    match: tuple[str, ...]  # parts of the names that drivers and frameworks report
    backend: str
    device: str  # the backend's name for it
    memory_gb: float
    bandwidth_gb_s: float
    kernel: str  # what the backend's trainer chooses there
    dtype: str  # likewise
    tflops: Mapping[str, float]  # dense peak by dtype
    source: str
    known: bool = True  # the facts are its own
    utilization: float | None = None  # share of the peak that training is taken to reach; None: what its kernel does
    unified: bool = False
    capability: tuple[int, int] | None = None  # CUDA
    arch: str = ""  # ROCm

    @property
    def kind(self) -> str:
        """Its key in DRIVERS."""
        if self.arch or self.capability:
            return "rocm" if self.arch else "cuda"
        return next(kind for kind, drivers in DRIVERS.items() if (self.backend, self.device) in drivers)

    @property
    def peak_tflops(self) -> float | None:
        """The dense peak in the dtype that the trainer chooses; None where it is not known."""
        return self.tflops.get(self.dtype) if self.known else None

    @property
    def likely_tflops(self) -> float:
        """A peak to estimate from before anything is measured: for want of the dtype's own, the lowest."""
        return self.tflops.get(self.dtype) or min(self.tflops.values())

    @property
    def usable_gb(self) -> float:
        """What a trial may take of the memory."""
        if self.unified:
            return self.memory_gb * UNIFIED_SHARE
        return self.memory_gb if self.device == "cpu" else self.memory_gb - CONTEXTS_GB


@functools.cache
def known() -> Mapping[str, Device]:
    """Every device of devices.toml under its key, in the file's order."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found = {}
    for key, facts in tables.items():
        lists = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
        found[key] = Device(key=key, **{**facts, **lists})
    return found


def named(key: str) -> Device:
    """The device of that key; UserError if there is none."""
    if key not in known():
        raise UserError(f"no device {key!r} is known; there are {', '.join(known())}")
    return known()[key]


def matching(reported: str, memory_gb: float | None = None) -> Device | None:
    """The device that a driver's name for it means, None if it is not known.

    The longest part that fits wins; of devices told apart by memory alone, the one with the nearest.
    """
    fits = [
        (len(part), -abs(device.memory_gb - memory_gb) if memory_gb else 0.0, device)
        for device in known().values()
        for part in device.match
        if re.search(rf"\b{re.escape(part)}\b(?! *({OTHERS})\b)", reported, re.IGNORECASE)
    ]
    return max(fits, key=lambda fit: fit[:2])[2] if fits else None


def like(kind: str, reported: str, memory_gb: float, backend: str, device: str) -> Device:
    """The facts to start from for a device as it is here, driven by `backend` under the name `device`.

    A device that is not known gets the facts of the weakest one of its kind with the nearest memory, and no peak.
    """
    facts = named("cpu") if kind == "cpu" else matching(reported, memory_gb)
    if facts is None:
        alike = [one for one in known_of(kind) if not one.unified or kind == "apple"]
        facts = min(alike, key=lambda one: (abs(one.memory_gb - memory_gb), one.likely_tflops))
        facts = dataclasses.replace(facts, known=False, match=(), utilization=None, source="measured")
    if not facts.known or (backend, device) != (facts.backend, facts.device):
        driver = f"{backend} {device}"
        kernel = LIKELY_KERNELS.get(driver, LIKELY_KERNELS[backend])
        dtype = LIKELY_DTYPES.get(driver, facts.dtype)
        if backend == "jax" and dtype == "float16":  # its trainer has no scaler of gradients
            dtype = "float32"
        facts = dataclasses.replace(facts, kernel=kernel, dtype=dtype, utilization=None)
    return dataclasses.replace(facts, name=reported, memory_gb=memory_gb, backend=backend, device=device)


def known_of(kind: str) -> list[Device]:
    """The known devices of that kind."""
    return [one for one in known().values() if one.kind == kind]
