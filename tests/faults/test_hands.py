"""People and clocks at the wrong moment: hand edits, a moved branch, a second run, a copied folder, a lost cache."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, Steps, a_campaign, events_of, facts_of, trainer
from command import call
from processes import AUTORESEARCH, wait_for_line

from core import events
from core.agents import registry
from core.campaign.campaign import Campaign
from core.records import Experiment, UserError
from core.trial.spec import TrialSpec

TEXTS = [trainer(1.9), trainer(1.95), trainer(1.8), trainer(1.0, "crash")]


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


class Meanwhile:
    """Does something while a trial of the trainer with that score runs."""

    def __init__(self, score: float, do: Callable[[], object]) -> None:
        self.score, self.do = score, do

    def __call__(self, spec: TrialSpec) -> None:
        if f"SCORE = {self.score}" in spec.trainer:
            self.do()


def run(root: Path, do: Callable[[], object] = lambda: None, at: float = 1.8) -> list[str]:
    """Runs the campaign to its end, and does that while its third experiment is tried; what it noticed."""
    seen: list[events.Event] = []
    with Campaign.open(root, engine=ScriptedEngine(during=Meanwhile(at, do))) as campaign:
        campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
    return [event.text for event in events_of(events.Notice, seen)]


def facts(root: Path) -> list[tuple[Any, ...]]:
    with Campaign.open(root) as campaign:
        assert git(root, "rev-parse", f"refs/heads/{campaign.branch}") == campaign.champion.commit
        return facts_of(campaign)


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is watched for less long than a person's repository deserves."""
    monkeypatch.setattr("core.store.repository._STALE_LOCK_SECONDS", 0.3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    a_campaign(tmp_path / "c").close()
    return tmp_path / "c"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    root = tmp_path_factory.mktemp("undisturbed") / "c"
    a_campaign(root).close()
    run(root)
    return facts(root)


def mine(root: Path) -> Path:
    (root / "train.py").write_text("mine = True\n")
    return root


class TestMeanwhile:
    def test_an_edit_of_the_work_tree_stays_and_changes_nothing(self, root: Path, undisturbed: list[Any]) -> None:
        notices = run(root, lambda: mine(root))
        assert facts(root) == undisturbed
        assert (root / "train.py").read_text() == "mine = True\n"
        assert "was edited and stays so" in notices[0]

    def test_a_staged_edit_stays_staged(self, root: Path, undisturbed: list[Any]) -> None:
        run(root, lambda: git(mine(root), "add", "train.py"))
        assert facts(root) == undisturbed
        assert git(root, "show", ":train.py") == "mine = True"

    def test_a_deleted_trainer_stays_deleted_until_it_is_asked_for(self, root: Path, undisturbed: list[Any]) -> None:
        run(root, (root / "train.py").unlink)
        assert facts(root) == undisturbed
        with (
            Campaign.open(root, engine=ScriptedEngine()) as campaign,
            pytest.raises(UserError, match="get the champion's back with: git checkout train.py"),
        ):
            campaign.try_worktree("x")
        git(root, "checkout", "train.py")
        assert (root / "train.py").read_text() == trainer(1.8)

    def test_a_detached_head_moves_with_nothing(self, root: Path, undisturbed: list[Any]) -> None:
        notices = run(root, lambda: git(root, "checkout", "--quiet", "--detach"))
        assert facts(root) == undisturbed
        assert "HEAD is not on autoresearch/t" in notices[0]
        assert git(root, "show", "HEAD:train.py") == trainer(1.9).strip()
        git(root, "switch", "--quiet", "autoresearch/t")
        assert git(root, "status", "--porcelain") == ""
        assert (root / "train.py").read_text() == trainer(1.8)

    @pytest.mark.parametrize("lock", ["index.lock", "HEAD.lock", "refs/heads/autoresearch/t.lock", "packed-refs.lock"])
    def test_a_lock_of_git_that_was_left_behind(self, root: Path, undisturbed: list[Any], lock: str) -> None:
        path = root / ".git" / lock
        with contextlib.suppress(UserError):  # it is met at once, or when the next run begins
            run(root, path.touch)
        if lock == "index.lock":
            path.unlink()
        run(root)
        assert facts(root) == undisturbed
        assert not path.exists()
        assert git(root, "status", "--porcelain") == ""

    def test_an_index_that_stays_locked_catches_up_with_all_champions(self, root: Path, undisturbed: list[Any]) -> None:
        lock = root / ".git" / "index.lock"
        run(root, lock.touch, at=2.0)
        assert facts(root) == undisturbed
        lock.unlink()
        run(root)
        assert git(root, "status", "--porcelain") == ""

    def test_a_branch_that_was_moved_is_told_and_the_trial_not_lost(self, root: Path, undisturbed: list[Any]) -> None:
        def move() -> None:
            mine(root)
            git(root, "commit", "--quiet", "-am", "by hand")

        with pytest.raises(UserError, match="git reset --soft") as told:
            run(root, move)
        git(root, *str(told.value).split("git ")[1].split(",")[0].split())
        engine = ScriptedEngine()
        with Campaign.open(root, engine=engine) as campaign:
            campaign.run(ScriptedAgent(TEXTS))
        assert (1.8, 1) not in engine.ran  # its trial was on record already
        assert facts(root) == undisturbed
        assert (root / "train.py").read_text() == "mine = True\n"


class TestClock:
    @pytest.fixture
    def turn(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Sets the wall clock of this process off by seconds; the monotonic one goes on as it must."""
        off = [0.0]
        real = time.time

        class Turned(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Turned:
                return cls.fromtimestamp(real() + off[0], tz)

        monkeypatch.setattr(time, "time", lambda: real() + off[0])
        for module in ("core.campaign.experiment", "core.store.activity"):
            monkeypatch.setattr(f"{module}.datetime", Turned)
        monkeypatch.setattr("core.trial.supervisor.datetime.datetime", Turned)

        def turn(seconds: float) -> None:
            off[0] += seconds

        return turn

    @pytest.mark.parametrize("hours", [-5.0, 5.0, 24 * 365.0])
    def test_a_wall_clock_that_is_set_changes_no_record_but_its_date(
        self, root: Path, undisturbed: list[Any], turn: Callable[[float], None], hours: float
    ) -> None:
        lock = root / ".git" / "refs" / "experiments" / "2.lock"
        run(root, lambda: turn(3600 * hours), at=1.9)
        assert facts(root) == undisturbed
        with Campaign.open(root) as campaign:
            found = campaign.experiments()
            assert [e.number for e in found] == list(range(5))
            assert all(0 <= e.wall_seconds < 60 for e in found)
            dates = [datetime.datetime.fromisoformat(e.ended) for e in found]
            # The record tells what the clock said.
            assert abs((dates[1] - dates[0]).total_seconds() - 3600 * hours) < 60
        lock.touch()  # of a git that was killed just now, whatever the clock says
        assert "2.lock" in run(root)[0]

    @pytest.mark.parametrize("hours", [-5.0, pytest.param(5.0, marks=pytest.mark.long)])
    def test_a_trial_is_neither_cut_nor_stretched(
        self, night: Path, turn: Callable[[float], None], hours: float
    ) -> None:
        jumped: list[str] = []

        def jump(event: events.Event) -> None:
            if isinstance(event, events.Progress) and event.phase not in jumped:
                jumped.append(event.phase)
                turn(3600 * hours)

        with Campaign.open(night) as campaign:
            campaign.run(registry.make("search"), experiments=1, hours=1, on_event=jump)
            experiment = campaign.experiment(1)
        assert jumped == ["startup", "train", "score"]
        trial = experiment.trials[0]
        assert trial.verdict == "scored" or trial.reason.startswith("overran: "), trial.reason  # on a busy machine
        assert 0.5 < trial.train_seconds < 60
        assert 0 < trial.wall_seconds < 120
        assert 0 < experiment.wall_seconds < 120


def test_two_at_once_on_one_campaign(night: Path) -> None:
    """The second `run`, and a `try`, refuse at once, name the first, and disturb nothing."""
    with subprocess.Popen(
        [*AUTORESEARCH, "run", str(night)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        wait_for_line(first, "experiment 1, seed 1: training")
        for second in (("run", night), ("try", "-m", "x", "--dir", night)):
            refused = call(*second, code=75)
            assert f"another process writes to this campaign: process {first.pid}, since 20" in refused.err
        assert first.poll() is None
        first.terminate()
        first.communicate(timeout=60)
    with Campaign.open(night, engine=Steps()) as campaign:
        before = campaign.status().experiments
        campaign.run(registry.make("search"), experiments=1)
        assert [e.number for e in campaign.experiments()] == list(range(before + 2))


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system that can't be written")
def test_a_folder_that_cannot_be_written_can_be_read(root: Path, tmp_path: Path) -> None:
    run(root)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        there = shutil.copytree(root, disk / "c")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert call("status", "--dir", there, "--json").json["experiments"] == 4
        assert len(call("log", "--dir", there, "--json").json) == 5
        assert "+SCORE = 1.8" in call("show", 3, "diff", "--dir", there).out
        for command in (("run", there), ("try", "-m", "x", "--dir", there)):
            refused = call(*command, code=2)
            assert "can't be written (Read-only file system)" in refused.err
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_copy_goes_on_by_itself(root: Path, tmp_path: Path, undisturbed: list[Any]) -> None:
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent(TEXTS), experiments=2)
    copy = shutil.copytree(root, tmp_path / "copy")
    run(root)
    run(copy)
    assert facts(root) == facts(copy) == undisturbed


def test_a_cache_that_was_deleted_is_made_again(night: Path, cache: Path) -> None:
    for name in ("corpora", "tokens", "tokenizers", "compile"):
        shutil.rmtree(cache / name, ignore_errors=True)
    with Campaign.open(night, engine=Steps()) as campaign:
        campaign.run(registry.make("search"), experiments=1)
        first, second = campaign.experiments()
        assert second.val_bpb is not None
        assert second.trials[0].yardstick == first.trials[0].yardstick


class TestWeights:
    @pytest.mark.parametrize("command", [("sample",), ("export", "model")])
    def test_a_champions_weights_cut_short_are_told(
        self, night: Path, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        weights = night / ".git" / "autoresearch" / "experiments" / "0" / "0" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        told = call(*command, "--dir", night, code=2).err
        assert f"{weights} is damaged: its SHA-256 is not" in told
        assert "restore it from a copy of the campaign's folder, or train it again: autoresearch show 0" in told
        assert not (tmp_path / "model").exists()

    def test_the_campaign_goes_on_without_them(self, night: Path) -> None:
        weights = night / ".git" / "autoresearch" / "experiments" / "0" / "0" / "weights.safetensors"
        os.truncate(weights, 10)
        (weights.parent / "facts.json").write_text("{")
        (weights.parent / "curve.jsonl").write_text('{"step": 1, "seconds": 0.1, "progress": 0.5, "loss": 2}\n{"ste')
        with Campaign.open(night, engine=Steps()) as campaign:
            campaign.run(registry.make("search"), experiments=1)
            assert isinstance(campaign.experiment(1), Experiment)
        assert "at step 1" in call("show", 0, "curve", "--dir", night).out
