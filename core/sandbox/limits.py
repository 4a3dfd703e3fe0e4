"""What the processes of a trial may take together, and the look that the keeper takes at it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MEMORY_SHARE = 0.9  # of the machine's: above it the kernel would choose whom to end
PROCESSES = 512  # compilers take at most 32 workers at once
LOOK_SECONDS = 1.0
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`memory_mb` of all processes together, shared pages counted once; `processes` at one time."""

    memory_mb: float
    processes: int = PROCESSES

    def text(self) -> str:
        """For the keeper's command line."""
        return json.dumps(asdict(self))


def limits() -> Limits:
    """This machine's: so high that no trial that could go on meets them."""
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # "max", or another kind of system
        total = min(total, int(_CGROUP.read_text()))
    return Limits(memory_mb=MEMORY_SHARE * total / 2**20)


class Watch:
    """Looks at all descendants of this process, at most once a second."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._looked = time.monotonic()

    def exceeded(self) -> str:
        """The limit that is exceeded, as a reason; empty while none is."""
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
    if sys.platform != "linux":
        return [process.pid for process in _children()]
    found: list[int] = []
    ahead = [os.getpid()]
    try:
        while ahead:
            children = list(_children_of(ahead.pop()))
            found += children
            ahead += children
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [process.pid for process in _children()]
    return found


def _children_of(pid: int) -> Iterator[int]:
    """Read for each thread: a walk over all processes of a large machine would cost the trial part of a core."""
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


def _children() -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from psutil.Process().children(recursive=True)


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(psutil.Error, OSError):
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    return 0.0


def _proportional_mb(pid: int) -> float:
    """Shared pages are divided among those that share them, where the platform tells; slow, so asked only in doubt."""
    if sys.platform == "linux":
        with contextlib.suppress(psutil.Error, OSError):
            return float(psutil.Process(pid).memory_full_info().pss) / 2**20
    return _resident_mb(pid)
