"""Commands under a reaper: what is known of their end, and what is left where the reaper itself was killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from processes import assert_gone

from core.sandbox.reaper import Outcome
from core.sandbox.spawn import ReapedProcess


def start(tmp_path: Path, code: str, *, keep_folder: bool = False) -> ReapedProcess:
    private = tmp_path / "folder" / "private"
    private.mkdir(parents=True)
    return ReapedProcess(
        [sys.executable, "-P", "-c", code],
        folder=tmp_path / "folder",
        private=private,
        usage=tmp_path / "usage.json",
        cwd=tmp_path,
        environment={**os.environ, "TMPDIR": str(private)},
        keep_folder=keep_folder,
    )


@pytest.mark.parametrize("keep", [False, True])
def test_a_command_has_its_streams_and_its_outcome(tmp_path: Path, keep: bool) -> None:
    with start(tmp_path, "import sys; print(input()); sys.exit(7)", keep_folder=keep) as process:
        assert process.outcome() == Outcome()
        out, _ = process.communicate(b"hello\n", timeout=60)
        process.end()
    outcome = process.outcome()
    assert (out.strip(), outcome.returncode, outcome.exceeded) == (b"hello", 7, "")
    assert outcome.peak_memory_mb is not None and 1 < outcome.peak_memory_mb < 1000
    assert (tmp_path / "folder").exists() == keep


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_command_that_is_ended_has_the_signal_as_its_outcome(tmp_path: Path) -> None:
    with start(tmp_path, "import time; print(flush=True); time.sleep(600)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.end()
        process.end()
    assert process.outcome().returncode == -9


@pytest.mark.skipif(sys.platform == "win32", reason="sessions of POSIX")
def test_what_a_killed_reaper_left_is_ended(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    code = f"import subprocess; print(subprocess.Popen({sleeper}, start_new_session=True).pid, flush=True); input()"
    with start(tmp_path, code) as process:
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
        process.kill()
        process.end()
        assert process.outcome() == Outcome()
    (tmp_path / "empty").mkdir()
    assert_gone([left], tmp_path / "empty")
