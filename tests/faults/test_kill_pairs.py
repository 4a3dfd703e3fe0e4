"""SIGKILL between the trials of a pair, the candidate's and the champion's: resumed to the same verdict.

The audit of what was resumed replays every verdict (`Script.state`).
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from killing import KILLED, Script, command

SCRIPTS = [Script("faults.drive_pairs", policy) for policy in ("pairs", "belief")]


def between(script: Script) -> list[int]:
    """The writes behind the first trial of a verdict that took several, up to its last one."""
    writes, _ = script.undisturbed()
    verdicts = [place for place, seen in enumerate(writes) if seen == "after INSERT INTO experiments"]
    rows = {"after INSERT INTO trials", "after INSERT INTO measurements"}
    found: list[int] = []
    for begun, decided in itertools.pairwise(verdicts):
        trials = [place for place in range(begun, decided) if writes[place] in rows]
        found += range(trials[0], trials[-1])
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.policy)
def test_its_verdicts_take_trials_of_candidate_champion_and_baseline(script: Script) -> None:
    _, expected = script.undisturbed()
    assert {fact[3] for fact in expected["facts"]} == {"keep", "discard"}
    compared = [(series, role) for purpose, series, role, *_ in expected["measurements"] if purpose == "compare"]
    assert compared
    assert {role for _, role in compared} >= ({"champion", "baseline"} if script.policy == "pairs" else {"champion"})
    assert len(between(script)) > 20


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.policy)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_killed_between(tmp_path: Path, script: Script, share: float) -> None:
    places = between(script)
    check(script, tmp_path / "c", places[int(share * len(places))])


def test_killed_again_and_again(tmp_path: Path) -> None:
    check(SCRIPTS[0], tmp_path / "c", between(SCRIPTS[0])[3], *[16] * 6)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.policy)
@pytest.mark.parametrize("share", range(8))
def test_killed_before_every_write_between(tmp_path: Path, script: Script, share: int) -> None:
    for kill_at in between(script)[share::8]:
        check(script, tmp_path / str(kill_at), kill_at)


def check(script: Script, root: Path, *kills: int) -> None:
    for kill_at in kills:
        script.kill_at_write(root, kill_at)
    script.finish(root)
    assert script.state(root) == script.undisturbed()[1]


# Real trials


def real_pair(root: Path, *rows: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("faults.drive_real_pair", root, *rows), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pair comes to where nobody kills anything."""
    done = real_pair(shutil.copytree(measured, tmp_path_factory.mktemp("undisturbed") / "c"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [seed for seed, _ in found["trials"]] == [1, 10] and [row[:2] for row in found["measured"]] == [
        ["champion", 10]
    ]
    return found


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_real_trials_killed_between(night: Path, undisturbed: dict[str, Any], rows: int) -> None:
    assert real_pair(night, rows).returncode in KILLED
    done = real_pair(night)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == undisturbed
    assert undisturbed["audit"] == ["", ""]  # its record and its verdict
