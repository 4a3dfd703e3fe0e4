"""Starts trials' processes as forks of one interpreter that has imported all they need: see `fork_server.py`.

Imported as `forking`. Reaper, confinement and worker are the real ones. Tests of how a process starts, and of what it
can reach, are marked `real_start`; so is every trial's process with --real-starts, and where there is no Linux.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.sandbox import confine, spawn
from core.sandbox.environment import scrubbed
from core.sandbox.spawn import ReapedProcess
from core.trial import process

SERVER = Path(__file__).with_name("fork_server.py")
CONFINED = [sys.executable, "-I", "-S", confine.__file__]
WORKER = [sys.executable, "-P", "-m", "core.trial.child.worker"]


class ForkServer:
    """The interpreter that forks. It ends when its socket is closed."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(SERVER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._lock = threading.Lock()

    def start(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Has a process forked that gets the descriptors."""
        with self._lock:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)

    def close(self) -> None:
        """Ends the server."""
        self._control.close()
        self._process.wait(60)


class ForkedProcess(ReapedProcess):
    """A trial's process that a server forked. Its reaper is the server's child, so its end comes over a pipe."""

    def __init__(
        self,
        server: ForkServer,
        command: Sequence[str],
        *,
        folder: Path,
        private: Path,
        usage: Path,
        cwd: Path,
        environment: Mapping[str, str],
        sockets: Path | None,
    ) -> None:
        self.args, self.returncode = command, None
        self._private, self._usage = private, usage
        usage.unlink(missing_ok=True)
        (stdin, given), (printed, stdout), (failed, stderr), (done, told) = (os.pipe() for _ in range(4))
        self.stdin, self.stdout, self.stderr = os.fdopen(given, "wb"), os.fdopen(printed, "rb"), os.fdopen(failed, "rb")
        self._done = os.fdopen(done, "rb", buffering=0)
        limits = vars(spawn)["machine_limits"]()  # where tests replace it
        arguments = [str(usage), str(folder), json.dumps(limits), *command]
        options = [] if sockets is None else ["--sockets", str(sockets)]
        message = {"options": options, "arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        theirs = (stdin, stdout, stderr, told)
        try:
            server.start(message, theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.pid = int(self._done.readline())

    def poll(self) -> int | None:
        """The reaper's status, once it has ended; that of a kill if it left none."""
        if self.returncode is None and select.select([self._done], [], [], 0)[0]:
            self.returncode = int(self._done.readline() or -signal.SIGKILL)
            self._done.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the reaper's end, as `subprocess.Popen.wait` does."""
        if self.returncode is None and not select.select([self._done], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        """Sends the reaper a signal if it runs."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class Starts:
    """Stands for `ReapedProcess` where trials start their processes: forks them where that comes to the same."""

    def __init__(self, *, fork: bool) -> None:
        self.fork = fork
        self._usual = of_an_interpreter(scrubbed(Path("scratch"), {}))
        self._server: ForkServer | None = None

    def __call__(self, command: Sequence[str], *, environment: Mapping[str, str], **options: Any) -> ReapedProcess:
        confined = len(command) > 5 and [*command[:4], *command[5:]] == [*CONFINED, *WORKER]
        usual = of_an_interpreter(environment) == self._usual
        if not (self.fork and usual and (confined or command == WORKER)):
            return ReapedProcess(command, environment=environment, **options)
        self._server = self._server or ForkServer()
        return ForkedProcess(self._server, command, environment=environment, **options)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def of_an_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that count when an interpreter starts."""
    return {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LD_"))}


@pytest.fixture(scope="session", autouse=True)
def starts(request: pytest.FixtureRequest) -> Iterator[Starts]:
    """Forks the processes of the trials that this process runs."""
    starts = Starts(fork=sys.platform == "linux" and not request.config.getoption("--real-starts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "ReapedProcess", starts)
        yield starts
    starts.close()


@pytest.fixture(autouse=True)
def real_start(request: pytest.FixtureRequest, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks nothing while a test runs that is marked so."""
    if request.node.get_closest_marker("real_start"):
        monkeypatch.setattr(starts, "fork", False)
