"""One experiment with the trainer as it was edited in the work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, events_of, trainer

import presets
from core import events
from core.campaign.campaign import Campaign
from core.events import OnEvent, Repeat
from core.records import Experiment, Preset, UserError
from core.trial.spec import TrialSpec


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def edit(campaign: Campaign, text: str) -> None:
    (campaign.root / "train.py").write_text(text)


def attempt(campaign: Campaign, text: str, hypothesis: str = "lower") -> Experiment:
    edit(campaign, text)
    tried = campaign.try_worktree(hypothesis)
    assert isinstance(tried, Experiment)
    return tried


def in_work_tree(campaign: Campaign) -> str:
    return (campaign.root / "train.py").read_text()


def test_ten_edits_as_a_coding_agent_makes_them(tmp_path: Path) -> None:
    scores = [1.9, 1.95, 1.85, 2.5, 1.86, 1.5, 1.6, 1.4, 1.45, 1.3]
    with a_campaign(tmp_path / "c") as campaign:
        best, best_text = 2.0, trainer(2.0)
        for number, score in enumerate(scores, 1):
            tried = attempt(campaign, trainer(score), f"idea {number}\n\nlong reasons")
            assert (tried.number, tried.agent, tried.hypothesis) == (number, "try", f"idea {number}\n\nlong reasons")
            assert (tried.verdict == "keep") == (score < best)
            assert tried.champion_bpb == best
            if score < best:
                best, best_text = score, trainer(score)
            assert in_work_tree(campaign) == best_text
            assert git(campaign.root, "status", "--porcelain") == ""
            assert git(campaign.root, "show", f"refs/experiments/{number}:train.py") == trainer(score).strip()
        assert campaign.champion.val_bpb == 1.3


def test_the_baseline_runs_first(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        attempt(campaign, trainer(1.5))
        assert [(e.number, e.val_bpb) for e in campaign.experiments()] == [(0, 2.0), (1, 1.5)]


def test_what_was_staged_is_taken_back_too(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        edit(campaign, trainer(2.5))
        git(campaign.root, "add", "train.py")
        campaign.try_worktree("worse")
        assert in_work_tree(campaign) == trainer(2.0)
        assert git(campaign.root, "status", "--porcelain") == ""


@pytest.mark.parametrize("text", ["x = (\n", trainer(1.0, "crash"), trainer(1.0, "invalid")])
def test_the_champion_comes_back_after_a_failure(tmp_path: Path, text: str) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        campaign.run(ScriptedAgent([]))
        tried = attempt(campaign, text)
        assert tried.verdict in {"crash", "invalid"}
        assert tried.val_bpb is None
        assert in_work_tree(campaign) == trainer(2.0)
        assert campaign.trainer_text(tried.commit) == text


def test_a_repeat_gets_the_earlier_result(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with a_campaign(tmp_path / "c", engine=engine) as campaign:
        attempt(campaign, trainer(2.5))
        edit(campaign, trainer(2.5, note="again"))
        git(campaign.root, "add", "train.py")
        ran = len(engine.ran)
        told = campaign.try_worktree("again")
        assert isinstance(told, Repeat)
        assert (told.earlier.number, told.earlier.verdict, told.hypothesis) == (1, "discard", "again")
        assert len(engine.ran) == ran
        assert in_work_tree(campaign) == trainer(2.0)
        assert git(campaign.root, "status", "--porcelain") == ""


def test_what_is_refused(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c", program="---\nfixed: [OUTCOME]\n---\n") as campaign:
        campaign.run(ScriptedAgent([]))
        with pytest.raises(UserError, match="equals the champion's, experiment 0: edit it, then try"):
            campaign.try_worktree("nothing")
        edit(campaign, trainer(1.9, "crash"))
        with pytest.raises(UserError, match=r"changes OUTCOME, which program.md fixes: put back"):
            campaign.try_worktree("cheat")
        assert in_work_tree(campaign) == trainer(1.9, "crash")
        edit(campaign, trainer(1.9))
        with pytest.raises(UserError, match="try -m"):
            campaign.try_worktree("  \n")
        (campaign.root / "train.py").unlink()
        with pytest.raises(UserError, match=r"git checkout train\.py"):
            campaign.try_worktree("gone")
        git(campaign.root, "checkout", "train.py")
        git(campaign.root, "checkout", "--quiet", "--detach")
        edit(campaign, trainer(1.9))
        with pytest.raises(UserError, match=r"git switch autoresearch/t"):
            campaign.try_worktree("detached")
        assert campaign.status().experiments == 0


@pytest.mark.parametrize(
    ("text", "fixed", "said"),
    [
        (trainer(2.0), "", "train.py equals the baseline's: edit it, then try"),
        (trainer(2.0, note="another comment"), "", "train.py equals the baseline's"),
        ("x = (\n", "", r"train.py:1: syntax error.*; mend train.py, then try"),
        (trainer(1.9, "crash"), "OUTCOME", "changes OUTCOME, which program.md fixes: put back"),
        (trainer(1.9), "NOSUCH", "program.md fixes NOSUCH, and the baseline's train.py has no such constant"),
    ],
)
def test_a_new_campaign_refuses_before_the_baseline_runs(tmp_path: Path, text: str, fixed: str, said: str) -> None:
    engine = Unprepared()
    with a_campaign(tmp_path / "c", engine=engine, program=f"---\nfixed: [{fixed}]\n---\n") as campaign:
        edit(campaign, text)
        with pytest.raises(UserError, match=said):
            campaign.try_worktree("lower")
        assert in_work_tree(campaign) == text
        assert len(campaign) == 0


class Unprepared(ScriptedEngine):
    """Fails where data would be prepared."""

    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        raise AssertionError("data was prepared")


def test_a_repeat_needs_no_data(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        attempt(campaign, trainer(2.5))
    with Campaign.open(tmp_path / "c", engine=Unprepared()) as campaign:
        edit(campaign, trainer(2.5, note="again"))
        assert isinstance(campaign.try_worktree("again"), Repeat)


def test_an_edit_made_during_the_trial_stays(tmp_path: Path) -> None:
    root = tmp_path / "c"

    def edited_meanwhile(spec: TrialSpec) -> None:
        if "2.5" in spec.trainer:
            (root / "train.py").write_text("the next idea\n")

    seen: list[Any] = []
    with a_campaign(root, engine=ScriptedEngine(during=edited_meanwhile)) as campaign:
        edit(campaign, trainer(2.5))
        campaign.try_worktree("worse", on_event=seen.append)
        assert in_work_tree(campaign) == "the next idea\n"


def interrupted(root: Path, text: str) -> None:
    def interrupt(spec: TrialSpec) -> None:
        if spec.trainer == text:
            raise KeyboardInterrupt

    with a_campaign(root, engine=ScriptedEngine(during=interrupt)) as campaign:
        edit(campaign, text)
        with pytest.raises(KeyboardInterrupt):
            campaign.try_worktree("first words")
        assert in_work_tree(campaign) == text


@pytest.mark.parametrize("score", [1.5, 2.5])
def test_a_try_that_was_cut_off_is_finished_by_the_same_command(tmp_path: Path, score: float) -> None:
    interrupted(tmp_path / "c", trainer(score))
    with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
        tried = campaign.try_worktree("first words")
        assert isinstance(tried, Experiment)
        assert (tried.number, tried.val_bpb, tried.hypothesis) == (1, score, "first words")
        assert in_work_tree(campaign) == trainer(min(score, 2.0))
        assert git(campaign.root, "status", "--porcelain") == ""


def test_a_try_that_was_cut_off_is_finished_before_another_edit(tmp_path: Path) -> None:
    interrupted(tmp_path / "c", trainer(1.5))
    with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
        tried = attempt(campaign, trainer(1.4), "second words")
        assert [(e.number, e.hypothesis, e.verdict) for e in campaign.experiments()[1:]] == [
            (1, "first words", "keep"), (2, "second words", "keep"),
        ]  # fmt: skip
        assert tried.champion_bpb == 1.5
        assert in_work_tree(campaign) == trainer(1.4)


def test_a_try_that_was_cut_off_is_finished_by_a_run(tmp_path: Path) -> None:
    interrupted(tmp_path / "c", trainer(2.5))
    seen: list[Any] = []
    with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent([]), on_event=seen.append)
        assert events_of(events.Proposed, seen)[0].agent == "try"
        assert in_work_tree(campaign) == trainer(2.0)
        assert git(campaign.root, "status", "--porcelain") == ""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("score", [1.5, 2.5])
def test_a_byte_order_mark_costs_no_edit(tmp_path: Path, encoding: str, score: float) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        (campaign.root / "train.py").write_text(trainer(score), encoding=encoding)
        tried = campaign.try_worktree("from an editor on Windows")
        assert isinstance(tried, Experiment)
        assert (tried.val_bpb, campaign.text(1)) == (score, trainer(score))
        assert (campaign.root / "train.py").read_bytes() == trainer(min(score, 2.0)).encode()
        assert git(campaign.root, "status", "--porcelain") == ""


def test_a_trainer_that_is_a_folder_or_no_text(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        (campaign.root / "train.py").write_bytes(b"x = '\xff'\n")
        with pytest.raises(UserError, match=r"train\.py: expected UTF-8 text, but byte 5 is not"):
            campaign.try_worktree("latin")
        assert (campaign.root / "train.py").read_bytes() == b"x = '\xff'\n"
        (campaign.root / "train.py").unlink()
        (campaign.root / "train.py").mkdir()
        with pytest.raises(UserError, match=r"train\.py"):
            campaign.try_worktree("folder")


def test_a_device_that_is_missing_is_found_before_data_is_prepared(tmp_path: Path, corpus_folder: Path) -> None:
    settings = {"device": "cuda:9", "corpus": f"folder:{corpus_folder}", "vocabulary": "300"}
    seen: list[Any] = []
    with Campaign.create(tmp_path / "c", presets.load("numpy", settings)) as campaign:
        text = in_work_tree(campaign)
        edit(campaign, text.replace("SMOOTHING = 0.5", "SMOOTHING = 0.3"))
        with pytest.raises(UserError, match=r"preset numpy takes numpy on cuda:9"):
            campaign.try_worktree("rare tokens need less", on_event=seen.append)
    assert not events_of(events.Preparing, seen)
