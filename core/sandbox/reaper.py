"""The process above a confined one, which ends all that the confined one started, also if the supervisor has gone.

`python -P -m core.sandbox.reaper [--keep] [--sockets BELOW] PARENT USAGE FOLDER LIMITS COMMAND...` starts the command
with this process's own stdin, stdout and stderr, and waits for it. Then it ends everything that descends from it (also
what left its process group), writes an `Outcome` as JSON to the file USAGE, and deletes FOLDER; with --keep only if the
process PARENT has gone. It does the same at SIGTERM, when a limit is exceeded, and when PARENT has gone. With --sockets
it connects the command's sockets below that folder (`sockets.py`). Linux: a subreaper, to which orphans fall. Windows:
a job object, which ends with this process. Elsewhere: what was ever seen as a descendant is ended. Three reapers start
in every trial, so they import little.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from core.sandbox.limits import LimitWatch, ProcessLimits, descendants, descendants_by_psutil

if TYPE_CHECKING:
    import psutil

POLL_SECONDS = 0.25


class Outcome(NamedTuple):
    """How the command ended."""

    returncode: int | None = None  # negative: a signal
    peak_memory_mb: float | None = None
    exceeded: str = ""  # the limit that it exceeded, as a reason
    folder_gone: bool = False  # somebody had deleted FOLDER before the end


class EndRequested(Exception):
    """The parent asks for the end or has gone, or a limit is exceeded: then the text says which."""


def main(arguments: list[str]) -> int:
    """Runs one command. Returns its exit status (of a signal its number), or 1 if that is unknown."""
    if keep := arguments[0] == "--keep":
        arguments = arguments[1:]
    below = ""
    if arguments[0] == "--sockets":
        below, arguments = arguments[1], arguments[2:]
    parent, usage, folder = int(arguments[0]), Path(arguments[1]), Path(arguments[2])
    watch, command = LimitWatch(ProcessLimits(*json.loads(arguments[3]))), arguments[4:]
    exceeded = ""
    seen: dict[int, psutil.Process] = {}
    peak_mb: float | None = None
    early: list[int] = []  # signals that came before there was a child to end
    if sys.platform == "win32":
        job = _job_object()  # noqa: F841  held until this process ends
    else:
        signal.signal(signal.SIGTERM, lambda signum, frame: early.append(signum))
    at_start = None
    if sys.platform == "linux":
        _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphaned descendants become this process's children
        # PR_SET_PDEATHSIG. Safe between fork and exec: this process has one thread.
        at_start = functools.partial(_prctl, 1, signal.SIGKILL)
    child = _start(command, below, at_start)
    _release_streams()
    try:
        if sys.platform != "win32":
            signal.signal(signal.SIGTERM, _request_end)
        if not early:
            peak_mb = _wait(child, parent, watch, seen)
    except (EndRequested, KeyboardInterrupt) as ended:
        exceeded = str(ended)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ended_peak_mb = _end_all(child, seen)
    returncode: int | None = child.returncode
    peak_mb = ended_peak_mb if peak_mb is None else peak_mb
    with contextlib.suppress(OSError):
        usage.write_text(json.dumps(Outcome(returncode, peak_mb, exceeded, not folder.exists())._asdict()))
    if not keep or _gone(parent):
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if returncode is None else min(abs(returncode), 255)


def _start(command: list[str], below: str, at_start: Callable[[], None] | None) -> subprocess.Popen[bytes]:
    """Starts the command; with `below`, also the thread that connects its sockets."""
    session = sys.platform != "win32"
    if sys.platform != "linux" or not below:
        return subprocess.Popen(command, start_new_session=session, preexec_fn=at_start)  # noqa: PLW1509
    import _socket  # without what the module around it would load

    from core.sandbox import sockets

    here, there = _socket.socketpair()
    environment = {**os.environ, sockets.VARIABLE: str(there.fileno())}
    child = subprocess.Popen(
        command,
        start_new_session=session,
        preexec_fn=at_start,  # noqa: PLW1509  the thread starts later
        env=environment,
        pass_fds=[there.fileno()],
    )
    there.close()
    threading.Thread(target=sockets.serve, args=(here, Path(below)), daemon=True).start()
    return child


def _request_end(signum: int, frame: FrameType | None) -> None:
    raise EndRequested


def _gone(parent: int) -> bool:
    if sys.platform != "win32":
        return os.getppid() != parent
    import psutil

    return not psutil.pid_exists(parent)


def _release_streams() -> None:
    """Leaves stdin and stdout to the child alone, so that its end closes the channel."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    os.close(nothing)


def _wait(
    child: subprocess.Popen[bytes], parent: int, watch: LimitWatch, seen: dict[int, psutil.Process]
) -> float | None:
    """Waits for the child and returns its peak memory in MB. Raises EndRequested."""
    if sys.platform == "win32":
        import psutil

        peak: float | None = None
        handle = psutil.Process(child.pid)
        while True:
            with contextlib.suppress(psutil.Error):
                peak = handle.memory_info().peak_wset / 2**20
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_SECONDS)
                return peak
            _check(parent, watch)
    last_look = 0.0
    pause = 0.002
    while True:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return _megabytes(used.ru_maxrss)
        if pid:
            continue  # an orphan that fell to this process
        _check(parent, watch)
        if sys.platform != "linux" and time.monotonic() - last_look > 1:
            seen.update((process.pid, process) for process in descendants_by_psutil())
            last_look = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)


def _check(parent: int, watch: LimitWatch) -> None:
    if _gone(parent):
        raise EndRequested
    if exceeded := watch.exceeded():
        raise EndRequested(exceeded)


def _end_all(child: subprocess.Popen[bytes], seen: dict[int, psutil.Process]) -> float | None:
    """Kills every descendant until none is left. Returns the child's peak memory in MB, if it was still there."""
    if sys.platform == "win32":
        _kill_descendants(seen)
        child.wait()
        return None
    peak_mb: float | None = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if child.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
        _kill_descendants(seen)
        try:
            pid, raw, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == child.pid:
            child.returncode, peak_mb = os.waitstatus_to_exitcode(raw), _megabytes(used.ru_maxrss)
        elif not pid:
            time.sleep(0.002)
    return peak_mb


def _kill_descendants(seen: dict[int, psutil.Process]) -> None:
    """Kills all descendants. Not on Linux, where orphans stay descendants: also all that were ever seen."""
    if sys.platform == "linux":
        for pid in descendants():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return
    import psutil

    for process in {*descendants_by_psutil(), *seen.values()}:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _megabytes(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _job_object() -> object:
    """Windows: puts this process into a job that is ended, with all in it, when its last handle closes.

    Children belong to the job by inheritance (Job Objects, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000).
    """
    if sys.platform != "win32":
        return None
    from ctypes import wintypes

    class JobLimits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; neighbours of one type are one array."""

        _fields_ = [
            ("TimeLimits", ctypes.c_int64 * 2),
            ("LimitFlags", wintypes.DWORD),
            ("WorkingSetSizes", ctypes.c_size_t * 2),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("Classes", wintypes.DWORD * 2),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("Memory", ctypes.c_size_t * 4),
        ]

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = wintypes.HANDLE
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
    kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    job = kernel.CreateJobObjectW(None, None)
    limits = JobLimits(LimitFlags=0x2000)
    if not kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits)):
        raise ctypes.WinError(ctypes.get_last_error())
    if not kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess()):
        raise ctypes.WinError(ctypes.get_last_error())
    return job


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
