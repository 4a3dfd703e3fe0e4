"""What a backend is: a module `backends/<name>/backend.py` with these functions.

Beside it stands `train.py`, the reference trainer that a campaign starts from, written as a native of its framework
would write it. This is no shim over operations: only what the fixed side of a trial needs is here. A backend's module
imports its framework inside its functions, because the framework may be missing, broken or slow to load; the
supervisor loads the module, only a trial's own process calls what stands below the line.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from core.records import UserError, instead

# Python's own, NumPy's and PyTorch's error; what a framework says otherwise is its backend's to know.
MEMORY_ERROR = re.compile(r"\b\w*MemoryError\b")
# glibc gives large blocks back to the system and faults every page in again: 9 % of a step of PyTorch on a CPU.
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}

Logits = Callable[[Any], Any]  # tokens [B, T] -> [B, T, vocabulary], both the framework's own arrays on the device
Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Chunk = tuple[slice, Any]  # some rows, and their logits [rows, T, vocabulary]


class Backend(Protocol):
    """The fixed side of one framework."""

    has_model: bool  # whether the reference trainer trains a network, whose steps can be timed and compared
    packages: tuple[str, ...]  # that are its framework, as they are imported and as they are installed

    def missing(self) -> str | None:
        """Why this backend can't run here and the command that mends it; None if it can. Imports nothing heavy."""

    def environment(self, cache: Path, fetched: Path, device: str) -> dict[str, str]:
        """Environment variables for one process of a trial.

        Compile caches lie below `cache`, a folder of that process alone; below `fetched`, which it can only read, lies
        what `fetch` brought.
        """

    def thread_settings(self, device: str, *, busy: bool, training: bool) -> dict[str, str]:
        """Environment variables for how the process's threads wait for one another on a CPU.

        `busy`: other processes use the processors as well. `training`: the process trains; else it starts beside one
        that does.
        """

    def fetch(self, fetched: Path) -> str | None:
        """Fetches below `fetched` what trials need and, having no network, can't fetch; the line to tell, if any.

        Called in a process of its own. OSError where the network fails.
        """

    def out_of_memory(self, said: str) -> bool:
        """Whether a trainer's last words, `Class: message` or what it printed, say that memory ran out.

        The device's or, on a CPU, the machine's. Imports nothing heavy: a process may be dead when this is asked.
        """

    # ---- Below: only in a trial's own process. -----------------------------------------------------------------

    def resolve(self, device: str) -> str:
        """The device to use: `auto` finds the best. One explicitly named that isn't there is a UserError."""

    def choose(self, device: str) -> dict[str, str]:
        """What the reference trainer chooses on the device, such as its kernel, each with the reason in brackets."""

    def to_device(self, array: Ids, device: str) -> Any:
        """Ids as the framework's own int32 array on the device. With `to_numpy` it goes into exported models."""

    def to_numpy(self, array: Any) -> Floats:
        """The framework's own array as float32."""

    def seed(self, seed: int) -> None:
        """Seeds every generator of the framework."""

    def versions(self) -> dict[str, str]:
        """Versions of the framework and of what it rests on (driver, compiler)."""

    def threads(self) -> int:
        """The threads that compute on a CPU."""

    def device_name(self, device: str) -> str:
        """What a person calls the device: `NVIDIA H100 80GB HBM3`."""

    def peak_memory_mb(self, device: str) -> float | None:
        """Peak device memory of this process in MB; None where the process's own memory is the measure."""

    def logits_shape(self, logits: Logits, length: int, device: str) -> tuple[int, ...]:
        """The shape of the logits for one row of so many tokens, found as cheaply as the framework can."""

    def losses(self, logits: Logits, tokens_BT: Ids, targets_BT: Ids, device: str) -> Floats:
        """Negative log-likelihood in nats of each target, float32 [B, T]; log-softmax in float32, in chunks."""

    def logits_at(self, logits: Logits, tokens_BT: Ids, positions_N2: Ids, device: str) -> Floats:
        """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""


# ---- What several backends do alike. -------------------------------------------------------------------------------


def resolve_among(device: str, there: Sequence[str], framework: str) -> str:
    """The device if it is among those that are there, for `auto` the first of them; else UserError."""
    if device == "auto":
        return there[0]
    if device not in there:
        raise UserError(
            f"device {device!r} is not here, says {framework}: {instead(device, there)}. Use --device auto or cpu"
        )
    return device


def nothing_to_fetch(fetched: Path) -> str | None:
    """Nothing: the framework brings its kernels along."""
    return None


def no_thread_settings(device: str, *, busy: bool, training: bool) -> dict[str, str]:
    """None: a thread that waits sleeps at once, so that other work does not slow the framework more than its share."""
    return {}


def seed_numpy(seed: int) -> None:
    """Seeds Python's generator and NumPy's legacy one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  a trainer may draw from it


def installed(*packages: str) -> dict[str, str]:
    """The versions of NumPy and of those packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # a scorer does without

    found = {"numpy": np.__version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def choices_of(backend: str, device: str) -> dict[str, str]:
    """What a reference trainer with a model chooses on the device; loaded late, because it imports its backend."""
    trainer = import_module(f"backends.{backend}.train")
    found: dict[str, str] = trainer.choose(trainer.Machine.of(device)).with_reasons()
    return found


def batch_shape(total: int, length: int, device_rows: int, granted: int | None = None) -> tuple[int, int]:
    """Rows of a step and the slices that they are taken in: at least one row, all slices equal, near `total` tokens.

    Fewer rows `granted` than `device_rows`, after those ran out of memory, make more slices of the same step.
    """
    rows = max(1, round(total / length))
    slices = math.ceil(rows / device_rows)
    rows = slices * min(device_rows, max(1, round(rows / slices)))
    while granted is not None and (rows // slices > granted or rows % slices):
        slices += 1
    return rows, slices


def rows_within(chunk_mb: float, length: int, width: int) -> int:
    """Rows of float32 logits [rows, length, width] that fit in so many MB; at least one."""
    return max(1, int(chunk_mb * 2**20 / (4 * length * width)))


def in_chunks(logits: Callable[[Ids], Any], tokens_BT: Ids, chunk_mb: float) -> Iterator[Chunk]:
    """The logits of all rows, chunk after chunk. The first row goes alone: it tells how wide they are."""
    first, at_once = 0, 1
    while first < len(tokens_BT):
        part = slice(first, first + at_once)
        logits_BTV = logits(tokens_BT[part])
        yield part, logits_BTV
        first += at_once
        at_once = rows_within(chunk_mb, tokens_BT.shape[1], logits_BTV.shape[-1])


def pick_positions(
    chunks: Callable[[Ids], Iterator[Chunk]], pick: Callable[[Any, Ids, Ids], Floats], tokens_BT: Ids, positions_N2: Ids
) -> Floats:
    """The whole logits at N positions, [N, vocabulary], of rows that `chunks` takes through the model.

    `pick` takes out of a chunk's logits those at M places, given by their rows and times, each [M].
    """
    rows, index_N = np.unique(positions_N2[:, 0], return_inverse=True)
    picked, order = [], []
    # Without a position one row still tells how wide the logits are.
    for part, logits_BTV in chunks(tokens_BT[rows if len(rows) else [0]]):
        mine_M = np.flatnonzero((index_N >= part.start) & (index_N < part.stop))
        picked.append(pick(logits_BTV, index_N[mine_M] - part.start, positions_N2[mine_M, 1]))
        order.append(mine_M)
    return np.concatenate(picked)[np.argsort(np.concatenate(order))]
