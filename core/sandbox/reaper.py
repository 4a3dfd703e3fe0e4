"""Stands between supervisor and trial so that no process of a trial outlives it, whatever happens to either.

`python -P -m core.sandbox.reaper [--leave] PARENT USAGE SCRATCH LIMITS COMMAND...` starts the command with this
process's own stdin, stdout and stderr, waits for it, ends everything that descends from it (also what left its process
group), writes {"returncode", "peak_memory_mb", "exceeded"} to the file USAGE, and deletes the folder SCRATCH; with
--leave only where nobody is left to look into it. It does the same at SIGTERM, when a limit is exceeded, and when
the process PARENT has gone. Linux: a subreaper, to which orphans fall. Windows: a job object, which ends with this
process. Elsewhere: what was ever seen as a descendant is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil

from core.sandbox.limits import Limits, Watch

POLL_SECONDS = 0.25


class Ended(Exception):
    """The supervisor asked for the end, or is gone; or a limit is exceeded, and the text says which."""


def main(arguments: list[str]) -> int:
    """Keeps one command. Returns its exit status, or 1 if it was ended."""
    if leave := arguments[0] == "--leave":
        arguments = arguments[1:]
    parent, usage, scratch = int(arguments[0]), Path(arguments[1]), Path(arguments[2])
    watch, command = Watch(Limits(**json.loads(arguments[3]))), arguments[4:]
    exceeded = ""
    seen: dict[int, psutil.Process] = {}
    returncode: int | None = None
    peak_mb: float | None = None
    early: list[int] = []
    if sys.platform == "win32":
        job = _job_object()  # noqa: F841  held until this process ends
    else:
        signal.signal(signal.SIGTERM, lambda signum, frame: early.append(signum))
        _become_subreaper()
    # Safe between fork and exec: this process has one thread.
    at_start = _die_with_keeper if sys.platform == "linux" else None
    child = subprocess.Popen(command, start_new_session=sys.platform != "win32", preexec_fn=at_start)  # noqa: PLW1509
    _let_go_of_the_channel()
    try:
        if sys.platform != "win32":
            signal.signal(signal.SIGTERM, _end)
        if not early:
            returncode, peak_mb = _wait(child, parent, watch, seen)
    except (Ended, KeyboardInterrupt) as ended:
        exceeded = str(ended)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    status, ended_peak = _end_all(child, seen)
    returncode = status if returncode is None else returncode
    peak_mb = ended_peak if peak_mb is None else peak_mb
    with contextlib.suppress(OSError):
        usage.write_text(json.dumps({"returncode": returncode, "peak_memory_mb": peak_mb, "exceeded": exceeded}))
    if not leave or _gone(parent):
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if returncode is None else min(abs(returncode), 255)


def _end(signum: int, frame: FrameType | None) -> None:
    raise Ended


def _gone(parent: int) -> bool:
    return not psutil.pid_exists(parent) if sys.platform == "win32" else os.getppid() != parent


def _let_go_of_the_channel() -> None:
    """Only the child may hold the pipes, so that its end is seen as the end of the channel."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    os.close(nothing)


def _wait(
    child: subprocess.Popen[bytes], parent: int, watch: Watch, seen: dict[int, psutil.Process]
) -> tuple[int, float | None]:
    """Exit status and peak memory of the child. Raises Ended when told to end, and when the parent is gone."""
    if sys.platform == "win32":
        peak: float | None = None
        handle = psutil.Process(child.pid)
        while True:
            with contextlib.suppress(psutil.Error):
                peak = handle.memory_info().peak_wset / 2**20
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_SECONDS), peak
            if _gone(parent):
                raise Ended
            if exceeded := watch.exceeded():
                raise Ended(exceeded)
    last_look = 0.0
    pause = 0.002
    while True:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, _megabytes(used.ru_maxrss)
        if pid:
            continue  # an orphan that fell to this process
        if _gone(parent):
            raise Ended
        if exceeded := watch.exceeded():
            raise Ended(exceeded)
        if sys.platform != "linux" and time.monotonic() - last_look > 1:
            seen.update((process.pid, process) for process in _descendants())
            last_look = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)


def _end_all(child: subprocess.Popen[bytes], seen: dict[int, psutil.Process]) -> tuple[int | None, float | None]:
    """Kills every descendant until none is left. Exit status and peak memory of the child, if it was still there."""
    if sys.platform == "win32":
        for process in _descendants():
            with contextlib.suppress(psutil.Error):
                process.kill()
        return child.wait(), None
    status: int | None = None
    peak_mb: float | None = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if child.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
        for process in {*_descendants(), *seen.values()}:
            with contextlib.suppress(psutil.Error):
                process.kill()
        try:
            pid, raw, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == child.pid:
            status, peak_mb = os.waitstatus_to_exitcode(raw), _megabytes(used.ru_maxrss)
            child.returncode = status
        elif not pid:
            time.sleep(0.002)
    return status, peak_mb


def _descendants() -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from psutil.Process().children(recursive=True)


def _megabytes(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _become_subreaper() -> None:
    """Linux: orphaned descendants become this process's children (prctl(2), PR_SET_CHILD_SUBREAPER = 36)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _die_with_keeper() -> None:
    """Linux: the kernel kills this process when its parent ends (prctl(2), PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _job_object() -> object:
    """Windows: puts this process into a job that is ended, with all in it, when its last handle closes.

    Children belong to the job by inheritance (Job Objects, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000).
    """
    if sys.platform != "win32":
        return None
    from ctypes import wintypes

    class Limits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = wintypes.HANDLE
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
    kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    job = kernel.CreateJobObjectW(None, None)
    limits = Limits(LimitFlags=0x2000)
    if not kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits)):
        raise ctypes.WinError(ctypes.get_last_error())
    if not kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess()):
        raise ctypes.WinError(ctypes.get_last_error())
    return job


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
