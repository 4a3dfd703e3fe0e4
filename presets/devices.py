"""Facts about devices: reads devices.toml, and finds a device by the name that its driver reports."""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.records import unknown

FILE = Path(__file__).resolve().parent / "devices.toml"
# The share of unified memory that a GPU may use: Metal's recommendedMaxWorkingSetSize on small machines.
UNIFIED_SHARE = 0.67
# Two contexts of a framework on the device: the scoring process waits beside the training one.
CONTEXTS_GB = 1.0
# Words behind the name of a card that make it another card.
OTHERS = "ti|super|laptop|d|max-q|nvl"
# The backends that drive a kind of device, best first, each with its name for the device.
DRIVERS = {
    "cuda": (("torch", "cuda"), ("jax", "cuda")),
    "rocm": (("torch", "cuda"), ("jax", "rocm")),
    "apple": (("mlx", "gpu"), ("torch", "mps")),
    "tpu": (("jax", "tpu"),),
    "cpu": (("torch", "cpu"), ("jax", "cpu"), ("mlx", "cpu")),
}
# What a trainer is assumed to choose if its device is not in the file, or another backend drives it: the best that is
# likely. A lesser assumption (heads of 64 on a TPU) would give presets with which the better kernel never runs.
LIKELY_KERNELS = {"torch": "sdpa", "jax": "xla", "jax cuda": "cudnn", "jax tpu": "splash", "mlx": "mx.fast"}
LIKELY_DTYPES = {"torch cpu": "float32", "torch mps": "float32", "jax cpu": "float32", "mlx cpu": "float32"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """The facts about one device, from devices.toml; if `known` is false, a similar device's.

    `memory_gb` is the device's, or the machine's if memory is unified; of several sizes it is the smallest one sold.
    """

    key: str  # what a user types
    name: str
    match: tuple[str, ...]  # parts of the names that drivers and frameworks report
    backend: str
    device: str  # the backend's name for it
    memory_gb: float
    kernel: str  # what the backend's trainer chooses there
    dtype: str  # likewise
    tflops: Mapping[str, float]  # dense peak by dtype
    source: str
    known: bool = True  # the facts are its own
    utilization: float | None = None  # share of the peak that training is assumed to reach; None: as its kernel does
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
        """The dense peak in the dtype that the trainer chooses; None if it is not known."""
        return self.tflops.get(self.dtype) if self.known else None

    @property
    def likely_tflops(self) -> float:
        """The peak to estimate from: the dtype's own, or the lowest one known."""
        return self.tflops.get(self.dtype) or min(self.tflops.values())

    @property
    def usable_gb(self) -> float:
        """The memory that a trial may use."""
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
        raise unknown("device", key, known())
    return known()[key]


def matching(reported: str, memory_gb: float | None = None) -> Device | None:
    """The device that a driver reports under this name; None if it is not known.

    The longest part that fits wins; of devices that differ in memory alone, the one with the nearest memory.
    """
    fits = [
        (len(part), -abs(device.memory_gb - memory_gb) if memory_gb else 0.0, device)
        for device in known().values()
        for part in device.match
        if re.search(rf"\b{re.escape(part)}\b(?! *({OTHERS})\b)", reported, re.IGNORECASE)
    ]
    return max(fits, key=lambda fit: fit[:2])[2] if fits else None


def like(kind: str, reported: str, memory_gb: float, backend: str, device: str) -> Device:
    """The facts for a device of this machine, which `backend` calls `device`.

    An unknown device gets the facts of the weakest one of its kind with the nearest memory, and no peak.
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
