"""`autoresearch run` under Ctrl-C twice, SIGTERM, and a terminal that is closed: an end in order, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import AUTORESEARCH, alive, assert_gone, descendants, wait_for_line

from core.agents import registry
from core.campaign.campaign import Campaign
from core.events import Event, Proposed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

TRAINING = "experiment 1, seed 1: training"


@contextmanager
def running(root: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that is training its first experiment."""
    process = subprocess.Popen(
        [*AUTORESEARCH, "run", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        wait_for_line(process, TRAINING)
        yield process
    finally:
        process.kill()
        process.communicate()


def resumes(root: Path) -> None:
    seen: list[Event] = []
    with Campaign.open(root) as campaign:
        assert campaign.status().experiments == 0
        campaign.run(registry.make("search"), experiments=1, on_event=seen.append)
        assert campaign.status().experiments == 1
    proposed = [event for event in seen if isinstance(event, Proposed)]
    assert [(event.number, event.resumed) for event in proposed] == [(1, True)]


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.long)])
def test_other_signals_end_it_as_ctrl_c_does(night: Path, temporary: Path, name: str) -> None:
    signum = getattr(signal, name)
    with running(night, temporary) as process:
        started = descendants(process.pid)
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 128 + signum
        assert f"`autoresearch run {night}` continues from here" in err
        assert "Traceback" not in err
        assert alive(started) == []  # before it ended, not after
        assert list(temporary.iterdir()) == []
    resumes(night)


@pytest.mark.parametrize("pause", [0.03, *(pytest.param(one, marks=pytest.mark.long) for one in (0, 0.01, 0.06, 0.2))])
def test_ctrl_c_twice_leaves_nothing_behind(night: Path, temporary: Path, pause: float) -> None:
    with running(night, temporary) as process:
        started = descendants(process.pid)
        assert len(started) >= 4  # two reapers with a process each
        process.send_signal(signal.SIGINT)
        time.sleep(pause)  # from the signal itself to the middle of the clean-up
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "continues from here" in err
        assert "Traceback" not in err
        assert alive(started) == []
        assert list(temporary.iterdir()) == []
    resumes(night)


@pytest.mark.long
def test_ctrl_c_as_often_as_one_likes(night: Path, temporary: Path) -> None:
    """Someone who does not wait gets out at once; what then still runs ends by itself."""
    with running(night, temporary) as process:
        started = descendants(process.pid)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        process.communicate(timeout=30)
        assert_gone(started, temporary)
    resumes(night)


# Takes the terminal on its standard streams as its own, so that closing it is heard as a person's shell would.
TAKES_THE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def test_a_closed_terminal_ends_it_in_order(night: Path, temporary: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKES_THE_TERMINAL, *AUTORESEARCH, "run", str(night)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    os.close(theirs)
    try:
        seen = b""
        while b"training" not in seen or b"experiment 1, seed 1" not in seen:
            seen += os.read(ours, 4096)
        started = descendants(process.pid)
        os.close(ours)
        assert process.wait(30) == 128 + signal.SIGHUP
        assert alive(started) == []
        assert list(temporary.iterdir()) == []
    finally:
        process.kill()
        process.wait()
    resumes(night)
