"""Forks processes that tests would otherwise start: an interpreter that has imported what each of them imports.

    python -P tests/fork_server.py DESCRIPTOR MODULE...

It imports the modules; then one message a process comes over the socket of that descriptor, as `forking.py` sends it.
Of a trial's process, reaper, confinement and worker run as they do in any trial, in two processes of their own. What is
left out is `exec`, the interpreter's start and the imports, which take most of the processor time of a small process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import io
import itertools
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

from core.sandbox import confine, reaper, tier

WORKER = "core.trial.child.worker"
STANDARD = 3  # descriptors: stdin, stdout, stderr
EXECUTED = subprocess.Popen
LARGEST = 1 << 17  # bytes of a message


def serve(control: socket.socket) -> None:
    """Forks a process for each message, until the other side closes."""
    ctypes.CDLL(tier.extension() or None)  # mapped once; each process initializes it for itself
    gc.freeze()
    signal.signal(signal.SIGCHLD, wait_for_ended)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LARGEST, STANDARD + 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            leave_by(functools.partial(begin, json.loads(message), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def wait_for_ended(*signal_and_frame: object) -> None:
    """Leaves no zombie of a process that was forked."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def begin(message: dict[str, Any], descriptors: list[int]) -> int:
    """Runs what the message names. Its process id and, when it has ended, its status go to the last descriptor."""
    *standard, done = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.write(done, b"%d\n" % os.getpid())
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.set_inheritable(done, False)
    os.chdir(message["cwd"])
    os.environ.clear()
    os.environ.update(message["environment"])
    tempfile.tempdir = None
    configure_jax()
    if message["module"] == reaper.__name__:
        setattr(subprocess, "Popen", Forked)  # noqa: B010  of this process alone
        status = reaper.main([str(os.getppid()) if word is None else word for word in message["arguments"]])
    else:
        sys.stdout, sys.stderr = (unbuffered(number) for number in (1, 2))
        status = sys.modules[message["module"]].main(message["arguments"])
    os.write(done, b"%d\n" % status)
    return status


def configure_jax() -> None:
    """Does what JAX does when it is imported: takes its options from the environment."""
    if (jax := sys.modules.get("jax")) is not None:
        for name in filter(lambda name: name.startswith("JAX_"), os.environ):
            kind = type(getattr(jax.config, name.lower()))
            jax.config.update(name.lower(), os.environ[name] if kind is type(None) else kind(os.environ[name]))


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
            for first, last in itertools.pairwise((STANDARD - 1, *sorted(pass_fds), 1024)):
                os.closerange(first + 1, last)
            sys.stdout, sys.stderr = (unbuffered(number) for number in (1, 2))
            leave_by(lambda: run(command))


def run(command: list[str]) -> int:
    """What the command line would run, in this process."""
    if command[1:4] == ["-I", "-S", confine.__file__]:
        setattr(os, "execv", lambda path, arguments: leave_by(lambda: run(arguments)))  # noqa: B010
        return confine.main(command[4:])
    assert command[1:] == ["-P", "-m", WORKER], command
    status: int = sys.modules[WORKER].main()
    return status


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
    for name in sys.argv[2:]:
        importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
