"""Processes that tests start and see end. Imported as `processes`: pytest puts this folder on the path."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

AUTORESEARCH = [sys.executable, "-P", "-m", "core.cli"]


def descendants(pid: int) -> list[psutil.Process]:
    """Everything that the process has started and that runs now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def assert_gone(processes: Sequence[psutil.Process], temporary: Path, seconds: float = 20) -> None:
    """Fails unless all processes have ended, and nothing is left in the temporary folder, within that time."""
    deadline = time.monotonic() + seconds
    while alive(processes) or any(temporary.iterdir()):
        assert time.monotonic() < deadline, f"left behind: {alive(processes)}, {sorted(temporary.iterdir())}"
        time.sleep(0.02)


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    """Reads standard error until a line has that part; fails if the process ends before."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if part in line:
            return
    raise AssertionError(f"{part!r} never came: {''.join(seen)}")
