"""What the processes under one reaper may take together, and the reaper's look at what they take."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psutil

MEMORY_SHARE = 0.9  # of the machine's: above it the kernel would choose whom to end
PROCESSES = 512  # compilers take at most 32 workers at once
LOOK_SECONDS = 1.0
# psutil is imported where it is needed: on Linux a reaper does without, and it would add half to its start-up.
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class ProcessLimits(NamedTuple):
    """What all processes under one reaper may take together."""

    memory_mb: float  # shared pages count once
    processes: int = PROCESSES  # at one time


def machine_limits() -> ProcessLimits:
    """The limits on this machine: so high that no trial that could go on meets them."""
    import psutil

    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # "max", or another kind of system
        total = min(total, int(_CGROUP.read_text()))
    return ProcessLimits(memory_mb=MEMORY_SHARE * total / 2**20)


class LimitWatch:
    """Checks all descendants of this process against the limits, at most once a second."""

    def __init__(self, limits: ProcessLimits) -> None:
        self._limits = limits
        self._looked = time.monotonic()

    def exceeded(self) -> str:
        """Which limit is exceeded, as a reason; empty if none is, or less than a second after the last look."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return ""
        pids = descendants()
        self._looked = time.monotonic()
        if len(pids) > self._limits.processes:
            return f"had {len(pids)} processes at once, over the limit of {self._limits.processes}"
        most = self._limits.memory_mb
        if sum(map(_resident_mb, pids)) > most and (taken := sum(map(_proportional_mb, pids))) > most:
            return f"took {taken:.0f} MB of memory, over the limit of {most:.0f} MB"
        return ""


def descendants() -> list[int]:
    """Process ids of all that descend from this process."""
    if sys.platform == "linux":
        found: list[int] = []
        ahead = [os.getpid()]
        with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_PROC_CHILDREN
            while ahead:
                children = list(_children_of(ahead.pop()))
                found += children
                ahead += children
            return found
    return [process.pid for process in descendants_by_psutil()]


def _children_of(pid: int) -> Iterator[int]:
    """The children of each of its threads. Looking at all processes of a large machine would cost part of a core."""
    threads: list[str] = []
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  names are enough
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_bytes()
        except OSError:
            if pid == os.getpid():
                raise
            continue  # it has ended
        yield from map(int, text.split())


def descendants_by_psutil() -> Iterator[psutil.Process]:
    """All that descend from this process, on any platform. Each is told from a later process of the same id."""
    import psutil

    with contextlib.suppress(psutil.Error):
        yield from psutil.Process().children(recursive=True)


def _resident_mb(pid: int) -> float:
    """0 for a process that has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return 0.0
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    return 0.0


def _proportional_mb(pid: int) -> float:
    """Shared pages are divided among the processes that share them, where the platform can. Slow."""
    import psutil

    if sys.platform == "linux":
        with contextlib.suppress(psutil.Error, OSError):
            return float(psutil.Process(pid).memory_full_info().pss) / 2**20
    return _resident_mb(pid)
