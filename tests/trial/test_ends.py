"""However a supervisor ends (Ctrl-C, SIGKILL, a full disk), no process, no scratch and no half record stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import alive, assert_gone
from support import trainer_text
from trial_runs import SUPERVISOR

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

HANGING = trainer_text(
    before="""
    import os, subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
""".strip(),
    each="time.sleep(600)",
)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    path = tmp_path / "temporary"
    path.mkdir()
    return path


@pytest.fixture
def hanging(tmp_path: Path, cache: Path, corpus_folder: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor whose trainer hangs in its first step, with a child that left the process group."""
    trainer = tmp_path / "train.py"
    trainer.write_text(HANGING)
    command = [sys.executable, "-c", SUPERVISOR, str(trainer), str(tmp_path / "into"), str(corpus_folder)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) != "train":
            assert line == "startup", line
        yield process
        process.kill()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= 5  # two reapers, trainer, scorer and the trainer's child
    return found


def test_ctrl_c_ends_every_process(hanging: subprocess.Popen[str], temporary: Path) -> None:
    processes = descendants(hanging)
    hanging.send_signal(signal.SIGINT)
    _, told = hanging.communicate(timeout=30)
    assert "KeyboardInterrupt" in told
    assert_gone(processes, temporary)


def test_sigkill_of_the_supervisor_ends_every_process(hanging: subprocess.Popen[str], temporary: Path) -> None:
    processes = descendants(hanging)
    hanging.kill()
    hanging.communicate(timeout=30)
    assert_gone(processes, temporary)


def test_sigkill_of_a_reaper_ends_the_trial_as_a_crash(hanging: subprocess.Popen[str]) -> None:
    reaper = next(p for p in descendants(hanging) if "core.sandbox.reaper" in p.cmdline())
    trainer = reaper.children()
    reaper.kill()
    out, _ = hanging.communicate(timeout=60)
    assert out.split() == ["crash"]
    assert alive(trainer) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 KiB, less than the weights of one trial."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize(("full", "told"), [("scratch", "No space left"), ("records", "no space left for")])
def test_a_full_disk_is_told(
    full: str, told: str, small_disk: Path, tmp_path: Path, cache: Path, corpus_folder: Path, temporary: Path
) -> None:
    trainer = tmp_path / "train.py"
    trainer.write_text(trainer_text())
    into = small_disk / "into" if full == "records" else tmp_path / "into"
    scratch = small_disk if full == "scratch" else temporary
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, str(trainer), str(into), str(corpus_folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        timeout=60,
        check=False,
    )
    if full == "scratch":
        assert done.stdout.split()[-1] == "crash"
        assert told in (into / "output.txt").read_text()
        assert list(small_disk.iterdir()) == []
    else:
        assert f"mistake: {told}" in done.stderr
        assert "run the same command again" in done.stderr
