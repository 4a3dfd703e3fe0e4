"""SIGKILL of the supervisor, of each process of a trial and of each reaper, in each phase of a real trial."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from campaigns import ScriptedAgent, Steps, facts_of

import presets
from core.campaign.campaign import Campaign
from core.campaign.judge.greedy import LowerWins

DRIVER = Path(__file__).with_name("drive_trial.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL, and processes found by their environment")


@pytest.fixture(scope="module")
def started(cache: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign whose baseline has run; the experiment to come is better."""
    baseline = runpy.run_path(str(DRIVER))["BASELINE"]
    root = tmp_path_factory.mktemp("started") / "c"
    preset = dataclasses.replace(
        presets.load("numpy"), corpus=f"folder:{corpus_folder}", score_bytes=4000, vocabulary=256
    )
    with Campaign.create(root, preset, trainer=baseline, tag="t", engine=Steps(), policy=LowerWins()) as campaign:
        campaign.run(ScriptedAgent([]))
    return root


@pytest.fixture(scope="module")
def undisturbed(started: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    root = shutil.copytree(started, folder / "c")
    assert drive(root, folder).returncode == 0
    found = outcome(root)
    assert found[0][-1][3] == "keep"
    return found


def drive(root: Path, temporary: Path, *kill: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, str(DRIVER), str(root), *kill]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def outcome(root: Path) -> list[Any]:
    """Everything about the experiments but commits and times, and the state of the repository."""
    with Campaign.open(root) as campaign:
        facts = facts_of(campaign)
        hashes = [[trial.weights_sha256 for trial in e.trials] for e in campaign.experiments()]
    told = [
        subprocess.run(["git", *command.split()], cwd=root, capture_output=True, text=True, check=True).stdout
        for command in ("log --format=%B", "status --porcelain", "fsck --strict --no-dangling")
    ]
    files = sorted(path.relative_to(root).as_posix() for path in root.glob(".git/autoresearch/**/*") if path.is_file())
    return [facts, hashes, told, files, (root / "train.py").read_text()]


def assert_nothing_left(temporary: Path) -> None:
    """No process with its home in that folder, and nothing in it; what is told to end gets some seconds for it."""
    deadline = time.monotonic() + 30
    while (left := [*temporary.iterdir(), *of_trials(temporary)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def of_trials(temporary: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("HOME", "").startswith(str(temporary)):
                found.append(process)
    return found


def cases(*quick: tuple[str, ...]) -> list[Any]:
    """Every target in every phase; what is not in `quick` takes long."""
    phases = [("train", phase) for phase in ("import", "warm-up", "training", "hand-over")]
    phases += [("score", phase) for phase in ("import", "restore", "scoring")]
    found = [("supervisor", *phase) for phase in phases]
    found += [(target, *phase) for phase in phases if phase[0] == "train" for target in ("train", "train-reaper")]
    scoring = [*(phase for phase in phases if phase[0] == "score"), ("train", "training")]  # while it is parked
    found += [(target, *phase) for phase in scoring for target in ("score", "score-reaper")]
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.long, id=" ".join(case)) for case in found]


@pytest.mark.parametrize(
    ("target", "role", "phase"),
    cases(
        ("supervisor", "score", "scoring"),
        ("score", "train", "training"),
        ("train-reaper", "train", "training"),
    ),
)
def test_killed(
    target: str, role: str, phase: str, started: Path, undisturbed: list[Any], tmp_path: Path, temporary: Path
) -> None:
    root = shutil.copytree(started, tmp_path / "c")
    done = drive(root, temporary, target, role, phase)
    assert_nothing_left(temporary)
    if target == "supervisor":
        assert done.returncode == -9
        resumed = drive(root, temporary)
        assert resumed.returncode == 0, resumed.stderr
        assert outcome(root) == undisturbed
    else:
        assert done.returncode == 0, done.stderr
        with Campaign.open(root) as campaign:
            crashed = campaign.experiment(1)
            assert (crashed.verdict, crashed.val_bpb) == ("crash", None)
            killed = "ended by SIGKILL" if not target.endswith("reaper") else "ended with exit status None and no word"
            assert killed in crashed.reason
            assert campaign.champion.number == 0
        assert outcome(root)[2][1:] == ["", ""]
    assert_nothing_left(temporary)
