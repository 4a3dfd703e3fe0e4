"""Forks the processes of trials: an interpreter that has imported what each of them imports. Linux alone.

    python -P tests/fork_server.py DESCRIPTOR

Over the socket of that descriptor comes one message a trial's process, as `forking.py` sends it. Reaper, confinement
and worker run as they do in any trial, in two processes of their own; what is left out is `exec`, the interpreter's
start and the imports, which take most of the processor time of a small trial.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import safetensors.numpy  # noqa: F401  loaded once for all

import backends
from core.sandbox import confine, reaper, tier
from core.trial.child import worker

STANDARD = 3  # descriptors: stdin, stdout, stderr
EXECUTED = subprocess.Popen
LARGEST = 1 << 17  # bytes of a message


def serve(control: socket.socket) -> None:
    """Forks a reaper for each message, until the other side closes."""
    backends.get("numpy").versions()
    ctypes.CDLL(tier.extension() or None)  # mapped once; each process initializes it for itself
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LARGEST, STANDARD + 1)
        while _ended():
            pass
        if not message:
            return
        if os.fork() == 0:
            control.close()
            leave_by(functools.partial(reap, json.loads(message), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _ended() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def reap(message: dict[str, Any], descriptors: list[int]) -> int:
    """Is the reaper of one process. Its id and, when it has ended, its status go to the last descriptor."""
    *standard, done = descriptors
    os.write(done, b"%d\n" % os.getpid())
    os.setsid()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(message["cwd"])
    os.environ.clear()
    os.environ.update(message["environment"])
    tempfile.tempdir = None
    setattr(subprocess, "Popen", Forked)  # noqa: B010  of this process alone
    status = reaper.main([*message["options"], str(os.getppid()), *message["arguments"]])
    os.write(done, b"%d\n" % status)
    return status


class Forked:
    """What a reaper starts: instead of an `exec`, the command's own main in a fork."""

    def __init__(
        self,
        command: list[str],
        *,
        start_new_session: bool,
        preexec_fn: Callable[[], object],
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            setattr(subprocess, "Popen", EXECUTED)  # noqa: B010
            os.setsid()
            preexec_fn()
            os.environ.update(env or {})
            for descriptor in set(range(STANDARD, 1024)) - set(pass_fds):
                os.closerange(descriptor, descriptor + 1)
            sys.stdout, sys.stderr = (unbuffered(number) for number in (1, 2))
            leave_by(lambda: run(command))


def run(command: list[str]) -> int:
    """What the command line would run, in this process."""
    if command[1:4] == ["-I", "-S", confine.__file__]:
        setattr(os, "execv", lambda path, arguments: leave_by(lambda: run(arguments)))  # noqa: B010
        return confine.main(command[4:])
    assert command[1:] == ["-P", "-m", worker.__name__], command
    return worker.main()


def unbuffered(number: int) -> io.TextIOWrapper:
    """Standard output or error as PYTHONUNBUFFERED and PYTHONUTF8 make them."""
    errors = "backslashreplace" if number == 2 else "surrogateescape"
    raw = io.FileIO(number, "wb", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)  # type: ignore[type-var]


def leave_by(action: Callable[[], int]) -> NoReturn:
    """Does it and ends this process with the status that it returns."""
    status = 1
    try:
        status = action()
    except BaseException:  # noqa: BLE001  nothing may return into the server's loop
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
