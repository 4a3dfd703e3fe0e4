"""A trial whose processes are forked comes to the same as one whose processes start by themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forking import Starts
from support import trainer_text

from core.records import Trial

Run = Callable[..., Trial]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process starts by itself")

SAME = (
    "verdict reason val_bpb steps tokens parameters weights_sha256 choices versions yardstick sandbox unenforced "
    "device rows notes"
)
# What a trainer finds about itself, and how it may end.
LOOK = """
import os, signal, sys
def read(path):
    try:
        return open(path).read(9)
    except OSError as error:
        return type(error).__name__
found = {
    "pyproject": read(sys.modules["core"].__path__[0] + "/../pyproject.toml"),
    "shadow": read("/etc/shadow"),
    "session": os.getsid(0) == os.getpid(),
    "home": os.environ["HOME"] == os.getcwd() == os.environ["TMPDIR"],
    "signals": [str(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "status": [line for line in open("/proc/self/status") if line.startswith(("CapBnd", "NoNewPrivs", "Seccomp"))],
    "variables": sorted(os.environ),
}
print("server" if "fork_server" in open("/proc/self/cmdline").read() else "interpreter")
print(found)
"""
ENDS = {
    "scored": "pass",
    "status": "os._exit(3)",
    "signal": "os.kill(os.getpid(), signal.SIGSEGV)",
    "error": "raise ValueError('no')",
}


@pytest.mark.parametrize("end", ENDS)
def test_both_are_recorded_alike(
    run: Run, starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    text = trainer_text(before=f"exec({LOOK!r}, globals())", each=ENDS[end])
    forked = run(text)
    monkeypatch.setattr(starts, "fork", False)
    real = run(text)
    assert {name: getattr(forked, name) for name in SAME.split()} == {
        name: getattr(real, name) for name in SAME.split()
    }
    outputs = ((tmp_path / "trial" / number / "output.txt").read_text().splitlines() for number in "12")
    (how_forked, found_forked, *_), (how_real, found_real, *_) = outputs
    assert (how_forked, how_real) == ("server", "interpreter")
    assert found_forked == found_real
