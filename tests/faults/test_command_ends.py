"""A run whose coding agent is at work, interrupted and killed: nothing of it goes on, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_scripts import script
from messages_server import wait_until
from processes import AUTORESEARCH, alive, assert_gone, descendants

from core.campaign.campaign import Campaign

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WORKS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("at work", flush=True)
time.sleep(600)
"""


@contextmanager
def running(root: Path, temporary: Path, command: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose command is at work."""
    process = subprocess.Popen(
        [*AUTORESEARCH, "run", str(root), "--agent", "command", "--command", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        said = root / ".git" / "autoresearch" / "agents" / "command" / "000001.txt"
        wait_until(lambda: said.exists() and "at work" in said.read_text(encoding="utf-8"), 60)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_the_command_and_all_that_it_started(night: Path, temporary: Path, tmp_path: Path) -> None:
    with running(night, temporary, script(tmp_path, WORKS)) as process:
        started = descendants(process.pid)
        assert len(started) >= 3  # the reaper, the command and its daemon
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "continues from here" in err
        assert "Traceback" not in err
        assert alive(started) == []
        assert list(temporary.iterdir()) == []
    with Campaign.open(night) as campaign:
        assert campaign.status().experiments == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a daemon that left its group may outlive a kill")
def test_a_kill_of_the_run_ends_it_too(night: Path, temporary: Path, tmp_path: Path) -> None:
    with running(night, temporary, script(tmp_path, WORKS)) as process:
        started = descendants(process.pid)
        process.kill()
        process.communicate(timeout=30)
        assert_gone(started, temporary)
