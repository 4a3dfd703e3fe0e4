"""`try --detach` and `wait`: an experiment that outlives the shell that began it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import call
from support import RESTING, reference_trainer

import presets
from core.campaign.campaign import Campaign
from core.records import UserError
from core.store.activity import KILLED

COMMAND = [sys.executable, "-m", "core.cli"]
BUSY = 75


@pytest.fixture
def slow(tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign that has run nothing, whose trials take long enough to be looked at; the current folder."""
    return campaign(tmp_path, corpus_folder, monkeypatch, budget=30)


@pytest.fixture
def quick(tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return campaign(tmp_path, corpus_folder, monkeypatch, budget=1)


def campaign(folder: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, budget: float, *options: object) -> Path:
    root = folder / "night"
    settings = ["--set=score_bytes=8000", "--set=peak_tflops=0.001", "--set=seeds=[1]", "--budget", budget]
    call("init", root, "--preset", "numpy", "--corpus", f"folder:{corpus}", *settings, *options)
    monkeypatch.chdir(root)
    return root


def edit(root: Path, value: float) -> str:
    """Another trainer in the work tree; its text."""
    path = root / "train.py"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"SMOOTHING = {value}" if line.startswith("SMOOTHING = ") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8")


def command(*arguments: object, code: int = 0) -> str:
    """Runs the command as a process in a group of its own, and ends the group with it. What it printed."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=os.name != "nt",
        env={**os.environ, "PYTHONPATH": str(Path(presets.__file__).parents[1])},
    ) as process:  # fmt: skip
        printed = process.communicate()[0]
    if os.name != "nt":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, printed
    return printed


@contextlib.contextmanager
def ended_at_last(root: Path) -> Iterator[None]:
    """Ends what still writes to the campaign."""
    try:
        yield
    finally:
        found = activity_quietly(root)
        if found["running"]:
            process = psutil.Process(found["pid"])
            process.terminate()
            process.wait(60)


def activity(root: Path) -> Any:
    return call("status", root, "--json").json["activity"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_detached_try_is_waited_for(quick: Path) -> None:
    text = edit(quick, 0.3)
    printed = command("try", "--detach", "-m", "rare tokens need less")
    assert printed.startswith("experiment 1 runs in process ")
    assert printed.endswith("its verdict: autoresearch wait 1\n")
    assert call("wait", "--json").last["experiment"] == 1
    assert "experiment 1: rare tokens need less" in call("wait", 1).out
    assert call("show", 1, "train.py").out == text
    assert "experiment 0, seed 1: " in next((quick / ".git/autoresearch/detached").glob("*.txt")).read_text()
    edit(quick, 0.3)  # so that it is the same text again, should it have been taken back
    if call("wait", 1, "--json").last["verdict"] == "discard":
        repeated = call("try", "--detach", "-m", "again", "--json").last
        assert (repeated["experiment"], repeated["repeat"]) == (1, True)


def test_what_runs_is_shown_and_another_waits(slow: Path) -> None:
    edit(slow, 0.3)
    started = call("try", "--detach", "-m", "an idea", "--json").last
    with ended_at_last(slow):
        assert (started["experiment"], started["verdict"], started["repeat"]) == (1, None, False)
        until(lambda: activity(slow)["seconds"] is not None)
        waited = call("wait", "--for", 0, code=BUSY).out
        assert waited.startswith("still running, ")
        assert waited.endswith(" of 30 s (the baseline, seed 1; then experiment 1)\n")
        running = call("wait", 1, "--for", 0, "--json", code=BUSY).last
        assert (running["experiment"], running["verdict"], running["running"]["budget"]) == (1, None, 30.0)
        assert " of 30 s (the baseline, seed 1; then experiment 1)" in call("status").out
        for second in (["try", "--detach", "-m", "x"], ["try", "-m", "x"], ["run"]):
            refused = call(*second, code=BUSY).err
            assert "another process writes to this campaign: process " in refused
            assert "autoresearch try, " in refused
            assert "`autoresearch wait`" in refused
        assert activity(slow)["running"]

        with subprocess.Popen([*COMMAND, "wait", str(slow)], stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            waiting.stderr.readline()
            if os.name != "nt":
                waiting.send_signal(signal.SIGINT)
                assert "experiment 1 goes on" in waiting.communicate(timeout=60)[1]
                assert waiting.returncode == 130
            waiting.kill()
        assert activity(slow)["running"]


def test_a_failure_before_the_experiment_is_told_once_and_by_wait(
    tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = campaign(tmp_path, corpus_folder, monkeypatch, budget=0.01)  # which the baseline's first trial refuses
    edit(root, 0.3)
    call("try", "--detach", "-m", "an idea")
    until(lambda: not activity_quietly(root)["running"])
    told = call("log").err
    assert told.startswith("note: experiment 1 got no verdict, as `autoresearch try` failed: a budget of 0.01 s is too")
    assert call("log").err == ""
    assert "a budget of 0.01 s is too short" in call("wait", code=2).err
    assert ", autoresearch try failed: a budget of 0.01 s is too short" in call("status").out


def activity_quietly(root: Path) -> Any:
    """What `status` knows, without its notices."""
    with Campaign.open(root) as opened:
        found = opened.status().activity
    if found is None:
        return {"running": False}
    return {"running": found.running, "pid": found.pid}


@pytest.mark.skipif(os.name == "nt", reason="a process that ends another gives it no signal there")
def test_a_detached_try_that_is_killed_is_told_and_goes_on(slow: Path) -> None:
    edit(slow, 0.3)
    call("try", "--detach", "-m", "an idea")
    psutil.Process(activity(slow)["pid"]).kill()
    until(lambda: not activity_quietly(slow)["running"])
    assert KILLED in call("log").err
    said = call("wait", 1, code=2).err
    assert KILLED in said
    assert "`autoresearch try` with the same train.py continues from there" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["try", "--detach", "-m", "nothing"], "train.py equals the baseline's: edit it, then try"),
        (["try", "--detach", "-m", " "], "say what should be better"),
        (["wait"], "nothing runs in"),
        (["wait", "7"], "there is no experiment 7, there are none yet, and nothing runs in"),
        (["wait", "--for", "-1"], "--for"),
    ],
)
def test_what_can_be_said_at_once_is(quick: Path, arguments: list[str], said: str) -> None:
    assert said in call(*arguments, code=2).err
    assert not list((quick / ".git" / "autoresearch").glob("detached/*"))


AGENT = """
import re, subprocess, sys
command, limit, count = [sys.executable, "-m", "core.cli"], float(sys.argv[1]), int(sys.argv[2])

def shell(*words):
    # As a coding agent's tool: a command that takes longer is ended, with all of its process group.
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            return process.communicate(timeout=limit)[0], process.returncode
        except subprocess.TimeoutExpired:
            import os, signal
            os.killpg(process.pid, signal.SIGKILL)
            return "ended by the shell", None

for number in range(1, count + 1):
    text = open("train.py").read()
    open("train.py", "w").write(re.sub("^SMOOTHING = .*", f"SMOOTHING = {number / 7}", text, flags=re.M))
    said, code = shell("try", "--detach", "-m", f"idea {number}")
    assert code in (0, None), said  # on a busy machine the shell may end even this, and the experiment goes on
    waits, code = 0, 75
    while code in (None, 75):
        said, code = shell("wait", str(number), "--for", str(min(limit / 3, 4)))
        waits += 1
    assert code == 0, said
    print(number, waits, said.split()[0], flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="it ends process groups")
@pytest.mark.long
def test_ten_experiments_from_a_shell_that_ends_its_commands(
    tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes longer than the shell lets any command run."""
    count, budget, limit = 10, 13.0, 12.0
    trainer = tmp_path / "train.py"
    trainer.write_text(reference_trainer(RESTING), encoding="utf-8")
    root = campaign(tmp_path, corpus_folder, monkeypatch, budget, "--trainer", trainer)
    script = tmp_path / "agent.py"
    script.write_text(AGENT, encoding="utf-8")
    with ended_at_last(root):
        done = subprocess.run(
            [sys.executable, script, str(limit), str(count)], cwd=root, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(presets.__file__).parents[1])},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(number) for number in range(1, count + 1)]
    with Campaign.open(root) as opened:
        assert [e.hypothesis for e in opened.experiments()[1:]] == [f"idea {n}" for n in range(1, count + 1)]
        assert all(e.wall_seconds > limit for e in opened.experiments()[1:])
        with pytest.raises(UserError, match="there is no experiment"):
            opened.experiment(count + 1)
