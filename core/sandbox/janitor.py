"""Removes what killed supervisors left: their folders of temporary files, and the processes that live in these.

A supervisor that is killed is survived by its reapers, which end and delete all. This is for what they can't: both were
killed, the machine went down, or the folder had no reaper.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.records import UserError
from core.system import scratch
from core.system.text import count

_HOMES = ("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP")
_ROUNDS = 10  # a process that is starting others may be ahead of one look


@dataclass(frozen=True)
class Removed:
    """What was removed. False if nothing was."""

    folders: int = 0
    bytes: int = 0
    processes: int = 0

    def __bool__(self) -> bool:
        return self.folders > 0

    def __str__(self) -> str:
        folders = "1 folder" if self.folders == 1 else f"{self.folders} folders"
        ended = f", and ended {self.processes} of its processes" if self.processes else ""
        return f"removed what a killed run left: {folders} of temporary files, {count(self.bytes)}B{ended}"


def clean() -> Removed:
    """Removes the temporary folders of this user whose supervisor has gone, and ends what lives in them."""
    try:
        left = scratch.abandoned()
    except UserError:  # no folder for temporary files; who needs one says so
        return Removed()
    removed = Removed()
    for folder in left:
        size, ended = _size(folder), end_processes(folder)
        scratch.remove(folder)
        if not folder.exists():
            removed = Removed(removed.folders + 1, removed.bytes + size, removed.processes + ended)
    return removed


def end_processes(folder: Path) -> int:
    """Kills the processes whose home or temporary folder is there or below, and their children. Returns how many."""
    ended: set[psutil.Process] = set()
    for _ in range(_ROUNDS):
        found = {one for process in _living_in(folder) for one in _with_children(process)}
        found = {process for process in found if process.pid != os.getpid()} - ended
        if not found:
            break
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=3)
        ended |= found
    return len(ended)


def _living_in(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            if any(folder in (home := Path(variables.get(name, "/")), *home.parents) for name in _HOMES):
                yield process


def _with_children(process: psutil.Process) -> Iterator[psutil.Process]:
    yield process
    with contextlib.suppress(psutil.Error):
        yield from process.children(recursive=True)


def _size(folder: Path) -> int:
    """Bytes that its files take on the disk."""
    total = 0.0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = Path(parent, name).lstat()
                total += getattr(found, "st_blocks", found.st_size / 512) * 512
    return int(total)
