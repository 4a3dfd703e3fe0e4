"""Starts trials' processes, and those of tests, as forks of interpreters that have imported all they need.

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
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.sandbox import confine, reaper, spawn
from core.sandbox.environment import scrubbed
from core.sandbox.spawn import ReapedProcess
from core.trial import process

SERVER = Path(__file__).with_name("fork_server.py")
CONFINED = [sys.executable, "-I", "-S", confine.__file__]
OF_TRIALS = ("core.trial.child.worker", "safetensors.numpy", "backends.numpy.backend", "core.system.hardware")
# By a variable of a backend's own: what its trials import besides. Importing starts no thread in any of them.
FRAMEWORKS = {
    "TORCHINDUCTOR_CACHE_DIR": ("torch", "torch.nn.functional", "torch.optim.adamw", "backends.torch.backend"),
    "JAX_COMPILATION_CACHE_DIR": ("jax", "jax.numpy", "flax.nnx", "optax", "backends.jax.backend"),
}
WORKER = [sys.executable, "-P", "-m", "core.trial.child.worker"]


class ForkServer:
    """An interpreter that has imported some modules, and forks. It ends when its socket is closed."""

    def __init__(self, *modules: str, path: str = "") -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(SERVER), str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path} if path else None,
            )
        self._lock = threading.Lock()

    def start(self, message: Mapping[str, object], descriptors: Sequence[int]) -> None:
        """Has a process forked that gets the descriptors."""
        with self._lock:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)

    def close(self) -> None:
        """Ends the server."""
        self._control.close()
        self._process.wait(60)


class Forked:
    """A process that a server forked. It is the server's child, so its end comes over a pipe."""

    args: Any
    returncode: int | None
    pid: int

    def begin(
        self,
        server: ForkServer,
        module: str,
        arguments: Sequence[str | None],
        standard: Sequence[int],
        cwd: Path,
        environment: Mapping[str, str],
    ) -> None:
        """Has `main` of a module run with these arguments. `standard` are stdin, stdout and stderr."""
        self.args, self.returncode = [module, *arguments], None
        done, told = os.pipe()
        self._done = os.fdopen(done, "rb", buffering=0)
        message = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        try:
            server.start(message, (*standard, told))
        finally:
            os.close(told)
        self.pid = int(self._done.readline())

    def poll(self) -> int | None:
        """The status, once it has ended; that of a kill if it left none."""
        if self.returncode is None and select.select([self._done], [], [], 0)[0]:
            self.returncode = int(self._done.readline() or -signal.SIGKILL)
            self._done.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end, as `subprocess.Popen.wait` does."""
        if self.returncode is None and not select.select([self._done], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        """Sends a signal if it runs."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class ForkedProcess(Forked, ReapedProcess):
    """A trial's process under its reaper, forked."""

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
        self._private, self._usage = private, usage
        usage.unlink(missing_ok=True)
        (stdin, given), (printed, stdout), (failed, stderr) = (os.pipe() for _ in range(3))
        self.stdin, self.stdout, self.stderr = os.fdopen(given, "wb"), os.fdopen(printed, "rb"), os.fdopen(failed, "rb")
        limits = vars(spawn)["machine_limits"]()  # where tests replace it
        options = [] if sockets is None else ["--sockets", str(sockets)]
        arguments = [*options, None, str(usage), str(folder), json.dumps(limits), *command]  # None: its parent's id
        try:
            self.begin(server, reaper.__name__, arguments, (stdin, stdout, stderr), cwd, environment)
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)


class ForkedModule(Forked):
    """`main` of a module that the server has imported, with this process's environment, as a process of its own."""

    def __init__(self, server: ForkServer, module: str, *arguments: object) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  closed by `finish`
        with open(os.devnull) as nothing:
            standard = (nothing.fileno(), self._out.fileno(), self._err.fileno())
            self.begin(server, module, [*map(str, arguments)], standard, Path.cwd(), os.environ)

    def kill(self) -> None:
        """Kills it, and nothing that it started."""
        self.send_signal(signal.SIGKILL)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Waits for the end: its status, and what it printed."""
        status = self.wait()
        texts = []
        for file in (self._out, self._err):
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(self.args, status, *texts)


class Starts:
    """Stands for `ReapedProcess` where trials start their processes: forks them where that comes to the same."""

    def __init__(self, *, fork: bool) -> None:
        self.fork = fork
        self._usual = of_an_interpreter(scrubbed(Path("scratch"), {}))
        self._servers: dict[str, ForkServer] = {}

    def __call__(self, command: Sequence[str], *, environment: Mapping[str, str], **options: Any) -> ReapedProcess:
        confined = len(command) > 5 and [*command[:4], *command[5:]] == [*CONFINED, *WORKER]
        usual = of_an_interpreter(environment) == self._usual
        if not (self.fork and usual and (confined or command == WORKER)):
            return ReapedProcess(command, environment=environment, **options)
        framework = next((name for name in FRAMEWORKS if name in environment), "")
        if framework not in self._servers:
            self._servers[framework] = ForkServer(*OF_TRIALS, *FRAMEWORKS.get(framework, ()))
        return ForkedProcess(self._servers[framework], command, environment=environment, **options)

    def close(self) -> None:
        """Ends the servers."""
        for server in self._servers.values():
            server.close()


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
