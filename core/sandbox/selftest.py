"""Whether the confinement works here, found out by confining a small program. For `doctor`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from core.records import UserError
from core.sandbox import paths, tier
from core.sandbox.environment import scrubbed
from core.sandbox.policy import SHARED_MEMORY, SandboxPolicy, confined
from core.sandbox.spawn import ReapedProcess
from core.system import scratch

SECONDS = 30
_PROGRAM = f"""
import socket, sys
try:
    open(sys.argv[1])
    print("read what it must not")
except OSError:
    pass
try:
    open("{SHARED_MEMORY}/probe", "w")
    print("shared")
except OSError:
    pass
try:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5)
    print("connected")
except OSError:
    pass
"""


@dataclass(frozen=True)
class SelftestResult:
    """`error` is empty if the small program was confined as it should be."""

    error: str = ""
    shared_memory: bool = True  # by name, which locks between processes need
    loopback: bool = True  # of a trial's own, over which its processes can use TCP; Linux alone has one


def check() -> SelftestResult:
    """Confines a program that tries to read a file it must not. Nothing is run where there is no tier."""
    if not tier.available().enforced:
        return SelftestResult()
    try:
        done = _ran()
    except (OSError, UserError, subprocess.TimeoutExpired) as error:
        return SelftestResult(str(error))
    if done.returncode:
        return SelftestResult((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    if "read what it must not" in done.stdout:
        return SelftestResult("a confined program read a file that it must not")
    elsewhere = sys.platform != "linux"
    return SelftestResult(
        shared_memory="shared" in done.stdout or elsewhere, loopback="connected" in done.stdout or elsewhere
    )


def _ran() -> subprocess.CompletedProcess[str]:
    with scratch.folder() as folder:
        inside, outside = folder / "scratch", folder / "outside"
        inside.mkdir()
        outside.touch()
        policy = SandboxPolicy(read=(*paths.system(), *paths.python()), write=(inside,), devices=paths.device_files())
        command = confined([sys.executable, "-I", "-S", "-c", _PROGRAM, str(outside)], policy, folder)
        with ReapedProcess(
            command,
            folder=inside,
            private=inside,
            usage=folder / "usage.json",
            cwd=inside,
            environment=scrubbed(inside, {}),
            sockets=inside,
        ) as process:
            try:
                out, err = process.communicate(timeout=SECONDS)
            finally:
                process.end()
        return subprocess.CompletedProcess(command, process.returncode, out.decode(), err.decode())
