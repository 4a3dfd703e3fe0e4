"""The reaper: nothing that a trial starts outlives it, by whatever way the trial or its supervisor ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.sandbox.limits import ProcessLimits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sessions of POSIX")

# Starts a grandchild that leaves the group and the session, tells both pids, and sleeps.
RUNAWAY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(f"{os.getpid()} {os.getppid()}")
        time.sleep(600)
    os._exit(0)
print("started", flush=True)
if sys.argv[2] == "stay":
    time.sleep(600)
time.sleep(0.5)
sys.exit(7)
"""


def reaper(tmp_path: Path, mode: str, parent: int | None = None) -> list[str]:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    python = [sys.executable, "-P"]
    limits = json.dumps(ProcessLimits(memory_mb=200, processes=20))
    given = [str(parent or os.getpid()), str(tmp_path / "usage.json"), str(tmp_path / "scratch"), limits]
    return [*python, "-m", "core.sandbox.reaper", *given, *python, "-c", RUNAWAY, str(tmp_path / "pids"), mode]


def wait_for(path: Path) -> int:
    for _ in range(500):
        if path.exists() and path.read_text():
            return int(path.read_text().split()[0])
        time.sleep(0.02)
    raise AssertionError("the runaway never started")


def gone(pid: int) -> bool:
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pids"
    yield path
    if path.exists() and psutil.pid_exists(pid := int(path.read_text().split()[0])):
        os.kill(pid, signal.SIGKILL)


def test_a_command_that_ends_by_itself_takes_its_runaways_along(tmp_path: Path, pids: Path) -> None:
    status = subprocess.run(reaper(tmp_path, "leave"), capture_output=True, timeout=60, check=False)
    assert (status.returncode, status.stdout) == (7, b"started\n")
    assert gone(wait_for(pids))
    usage = json.loads((tmp_path / "usage.json").read_text())
    assert usage["returncode"] == 7
    assert 1 < usage["peak_memory_mb"] < 1000
    assert not (tmp_path / "scratch").exists()


def test_sigterm_ends_all(tmp_path: Path, pids: Path) -> None:
    with subprocess.Popen(reaper(tmp_path, "stay"), stdout=subprocess.PIPE) as process:
        runaway = wait_for(pids)
        process.terminate()
        assert process.wait(30) == 9
    assert gone(runaway)
    assert json.loads((tmp_path / "usage.json").read_text())["returncode"] == -9
    assert not (tmp_path / "scratch").exists()


def test_the_death_of_the_supervisor_ends_all(tmp_path: Path, pids: Path) -> None:
    command = reaper(tmp_path, "stay", parent=1)
    command[command.index("1")] = "PARENT"
    supervisor = (
        "import os, subprocess, sys, time\n"
        "command = [str(os.getpid()) if part == 'PARENT' else part for part in sys.argv[1:]]\n"
        "subprocess.Popen(command, start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", supervisor, *command], stdout=subprocess.DEVNULL) as process:
        runaway = wait_for(pids)
        process.kill()
    assert gone(runaway)
    assert not (tmp_path / "scratch").exists() or gone(runaway)


def test_a_reaper_loads_neither_numpy_nor_on_linux_psutil(tmp_path: Path) -> None:
    """Three start in each trial: they would cost it the better part of a second."""
    command = reaper(tmp_path, "leave")
    command.insert(1, "-Ximporttime")  # of the reaper alone: the command has options of its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"core", "json"} <= loaded
    assert not loaded & {"numpy", "filelock", "platformdirs"}
    if sys.platform == "linux":
        assert "psutil" not in loaded


@pytest.mark.parametrize("module", ["core.sandbox.reaper", "core.trial"])
def test_a_module_beside_a_trainer_loads_no_numpy(module: str) -> None:
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
