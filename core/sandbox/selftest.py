"""Whether the confinement works here, found out by confining a small program. For `doctor`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from core.records import UserError
from core.sandbox import paths, tier
from core.sandbox.policy import SHARED_MEMORY, SandboxPolicy, confined
from core.system import scratch

SECONDS = 30
_PROGRAM = f"""
import sys
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
"""


@dataclass(frozen=True)
class SelftestResult:
    """`error` is empty if the small program was confined as it should be."""

    error: str = ""
    shared_memory: bool = True  # by name, which locks between processes need


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
    return SelftestResult(shared_memory="shared" in done.stdout or sys.platform != "linux")


def _ran() -> subprocess.CompletedProcess[str]:
    with scratch.folder() as folder:
        inside, outside = folder / "scratch", folder / "outside"
        inside.mkdir()
        outside.touch()
        policy = SandboxPolicy(read=(*paths.system(), *paths.python()), write=(inside,), devices=paths.device_files())
        command = confined([sys.executable, "-I", "-S", "-c", _PROGRAM, str(outside)], policy, folder)
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=inside)
