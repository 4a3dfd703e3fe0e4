"""Campaigns end to end: real git, ledger and files; trials are scripted, but for one real one."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaigns import (
    PRESET,
    SEED_NOISE,
    ScriptedAgent,
    ScriptedEngine,
    a_campaign,
    events_of,
    trainer,
)

import presets
from core import events
from core.agents.base import AgentContext, History
from core.campaign.campaign import REPEATS_IN_A_ROW, Campaign
from core.records import Experiment, Proposal, UserError
from core.trainer.constants import read_constants
from core.trainer.reference import reference_trainer
from core.trial.spec import TrialSpec


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


class TestCreate:
    def test_a_new_folder(self, tmp_path: Path) -> None:
        root = tmp_path / "a" / "b"
        with a_campaign(root) as campaign:
            assert sorted(path.name for path in root.iterdir()) == [".git", "program.md", "train.py"]
            assert git(root, "status", "--porcelain", "--branch") == "## autoresearch/t"
            assert (root / "train.py").read_text() == trainer(2.0)
            assert campaign.preset == PRESET
            assert campaign.program.prose == "Lower it.\n"
            status = campaign.status()
            assert (status.experiments, status.champion_commit, status.overhead_fraction) == (0, None, None)
            with pytest.raises(UserError, match="autoresearch run"):
                _ = campaign.champion

    def test_an_empty_folder_within_another_repository(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet")
        (tmp_path / "demo").mkdir()
        with a_campaign(tmp_path / "demo") as campaign:
            campaign.run(ScriptedAgent([trainer(1.5)]))
        assert git(tmp_path / "demo", "log", "--format=%s") == "idea 0\nCampaign t: preset test"

    def test_what_is_refused(self, tmp_path: Path) -> None:
        root = tmp_path / "c"
        a_campaign(root).close()
        with pytest.raises(UserError, match="a campaign already; go on with it: autoresearch run"):
            a_campaign(root)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").touch()
        with pytest.raises(UserError, match=r"new or empty folder.*thesis\.tex"):
            a_campaign(tmp_path / "full")
        (tmp_path / "repo").mkdir()
        git(tmp_path / "repo", "init", "--quiet")
        with pytest.raises(UserError, match="is a git repository already"):
            a_campaign(tmp_path / "repo")
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="is a file"):
            a_campaign(tmp_path / "file")
        with pytest.raises(UserError, match="no name for a branch"):
            a_campaign(tmp_path / "new", tag="a b")
        with pytest.raises(UserError, match="train.py:1: syntax error"):
            a_campaign(tmp_path / "new", trainer="x = (")
        with pytest.raises(UserError, match="unknown limit"):
            a_campaign(tmp_path / "new", program="---\nhour: 1\n---\n")
        a_campaign(tmp_path / "new").close()  # nothing that was refused is in the way

    def test_the_reference_trainer_is_filled_from_the_preset(self, tmp_path: Path) -> None:
        preset = dataclasses.replace(PRESET, total_batch_size=1024, constants={"BACKOFF": 3.5})
        with Campaign.create(tmp_path / "c", preset, program="") as campaign:
            constants = read_constants((campaign.root / "train.py").read_text())
            assert (constants["TOTAL_BATCH_SIZE"], constants["BACKOFF"]) == (1024, 3.5)
            assert campaign.branch.startswith("autoresearch/20")
        with pytest.raises(UserError, match="no module-level constant NOT_THERE"):
            reference_trainer(dataclasses.replace(PRESET, constants={"NOT_THERE": 1}))


class TestOpen:
    def test_no_campaign(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="holds no campaign; make one with: autoresearch init"):
            Campaign.open(tmp_path / "nowhere")
        git(tmp_path, "init", "--quiet")
        with pytest.raises(UserError, match="is a git repository, but no campaign"):
            Campaign.open(tmp_path)

    def test_a_changed_preset_is_refused(self, tmp_path: Path) -> None:
        a_campaign(tmp_path / "c").close()
        preset = tmp_path / "c" / ".git" / "autoresearch" / "preset.toml"
        preset.write_text(preset.read_text().replace("seeds = [1, 2]", "seeds = [3, 4]"))
        with pytest.raises(UserError, match="was changed after the campaign began"):
            Campaign.open(tmp_path / "c")

    def test_a_copied_folder_goes_on(self, tmp_path: Path) -> None:
        with a_campaign(tmp_path / "c") as campaign:
            campaign.run(ScriptedAgent([trainer(1.5)]))
        shutil.copytree(tmp_path / "c", tmp_path / "copy")
        shutil.rmtree(tmp_path / "c")
        with Campaign.open(tmp_path / "copy", engine=ScriptedEngine()) as copy:
            copy.run(ScriptedAgent([None, trainer(1.4)][1:] * 2))
            assert copy.champion.val_bpb == 1.4
        assert git(tmp_path / "copy", "status", "--porcelain") == ""


class TestRun:
    def test_verdicts_branch_refs_files_and_status(self, tmp_path: Path) -> None:
        texts = [
            trainer(1.9), trainer(1.95), trainer(1.0, "crash"), trainer(1.0, "nan"), "x = (\n", trainer(1.8, "invalid"),
            "A = 1  # tune: nonsense\n", trainer(1.85),
        ]  # fmt: skip
        seen: list[Any] = []
        with a_campaign(tmp_path / "c") as campaign:
            agent = ScriptedAgent(texts)
            campaign.run(agent, on_event=seen.append)
            found = campaign.experiments()
            assert [e.verdict for e in found] == [
                "keep", "keep", "discard", "crash", "crash", "crash", "invalid", "crash", "keep",
            ]  # fmt: skip
            assert [e.val_bpb for e in found] == [2.0, 1.9, 1.95, None, None, None, None, None, 1.85]
            assert [e.champion_bpb for e in found] == [None, 2.0, 1.9, 1.9, 1.9, 1.9, 1.9, 1.9, 1.9]
            assert [e.parent for e in found[1:]] == [found[0].commit, *[found[1].commit] * 7]
            assert [len(e.trials) for e in found] == [2, 1, 1, 1, 1, 0, 1, 0, 1]
            assert all(e.spread == pytest.approx(SEED_NOISE) for e in found)
            assert found[4].reason == "its score is not a number"
            assert found[5].reason == "train.py:1: syntax error: '(' was never closed"
            assert found[7].reason.startswith("train.py:1: A: expected `log")
            assert found[3].reason == "ended as crash"
            assert "10.0x the spread" in found[1].reason
            # what the agent and the listener were told
            assert [e.number for e in agent.observed] == list(range(1, 9))
            assert [e.experiment.commit for e in events_of(events.Judged, seen)] == [e.commit for e in found]
            assert [e.number for e in events_of(events.Proposed, seen)] == list(range(9))
            assert len(events_of(events.TrialEnded, seen)) == 8
            assert seen[-1] == events.Stopped("scripted has nothing more to propose")
            # git
            root = campaign.root
            assert git(root, "log", "--format=%H") == "\n".join(found[n].commit for n in (8, 1, 0))
            for e in found:
                assert git(root, "rev-parse", f"refs/experiments/{e.number}") == e.commit
                assert git(root, "show", f"{e.commit}:program.md") == "Lower it."
            assert git(root, "status", "--porcelain") == ""
            assert (root / "train.py").read_text() == trainer(1.85)
            assert git(root, "fsck", "--strict") == ""
            assert "+SCORE = 1.9 " in campaign.diff(1)
            assert campaign.diff(0) == ""
            # weights stay where they were kept, output and curve everywhere
            weights = root.glob(".git/autoresearch/experiments/*/*/weights.safetensors")
            assert sorted(str(path.relative_to(campaign.folder(0).parent)) for path in weights) == [
                f"{trial}/weights.safetensors" for trial in ("0/0", "0/1", "1/0", "8/0")
            ]
            assert all((campaign.folder(n) / "0" / "output.txt").exists() for n in (0, 1, 2, 3, 4, 6, 8))
            assert (campaign.folder(8) / "trainer" / "train.py").read_text() == trainer(1.85)
            assert campaign.trainer_text(found[2].commit) == trainer(1.95)
            status = campaign.status()
            assert (status.experiments, status.kept, status.discarded, status.crashed, status.invalid) == (
                8,
                2,
                1,
                4,
                1,
            )
            assert (status.baseline_bpb, status.champion_bpb) == (2.0, 1.85)
            assert status.champion_commit == found[8].commit
            assert status.yardstick == found[0].trials[0].yardstick
            with pytest.raises(UserError, match="there are 0 to 8"):
                campaign.experiment(9)

    def test_an_integer_that_python_writes_only_in_hex_harms_nobody(self, tmp_path: Path) -> None:
        huge = f"HUGE = {1 << 20_000:#x}\n"
        with a_campaign(tmp_path / "c") as campaign:
            campaign.run(ScriptedAgent([trainer(1.9) + huge, trainer(1.8)]))
            assert [e.verdict for e in campaign.experiments()] == ["keep", "keep", "keep"]
            (campaign.root / "train.py").write_text(trainer(1.7) + huge)
            tried = campaign.try_worktree("by hand")
            assert isinstance(tried, Experiment) and tried.verdict == "keep"

    def test_what_an_agent_lacks_is_told_before_the_baseline(self, tmp_path: Path) -> None:
        class Lacking(ScriptedAgent):
            ended = 0

            def begin(self, context: AgentContext) -> None:
                raise UserError("no price")

            def end(self) -> None:
                self.ended += 1

        engine, agent = ScriptedEngine(), Lacking([])
        with a_campaign(tmp_path / "c", engine=engine) as campaign, pytest.raises(UserError, match="no price"):
            campaign.run(agent)
        assert engine.ran == [] and agent.ended == 1

    def test_the_baseline_runs_with_every_seed_and_candidates_with_the_first(self, tmp_path: Path) -> None:
        engine = ScriptedEngine()
        with a_campaign(tmp_path / "c", engine=engine) as campaign:
            campaign.run(ScriptedAgent([trainer(1.9), trainer(1.8)]))
        assert engine.ran == [(2.0, 1), (2.0, 2), (1.9, 1), (1.8, 1)]

    def test_seconds_are_accounted_for(self, tmp_path: Path) -> None:
        engine = ScriptedEngine(during=lambda spec: time.sleep(0.3))  # of which the record calls 0.25 training
        with a_campaign(tmp_path / "c", engine=engine) as campaign:
            campaign.run(ScriptedAgent([]), experiments=0)
            begun = time.monotonic()
            campaign.run(ScriptedAgent([trainer(1.9), trainer(1.95), trainer(1.8), "x = ("]))
            passed = time.monotonic() - begun
            found = campaign.experiments()
            mine = sum(e.wall_seconds for e in found[1:])
            assert 3 * 0.3 < mine <= passed
            assert mine > 0.7 * passed  # what a run does between its experiments is somebody's
            wall, trained = sum(e.wall_seconds for e in found), sum(e.train_seconds for e in found)
            assert trained == 5 * 0.25
            status = campaign.status()
            assert status.overhead_fraction == pytest.approx((wall - trained) / wall)
            assert status.experiments_per_hour == pytest.approx(4 * 3600 / mine)

    def test_limits(self, tmp_path: Path) -> None:
        texts = [trainer(1.9 - n / 100) for n in range(20)]
        seen: list[Any] = []
        with a_campaign(tmp_path / "c", program="---\nexperiments: 3\n---\n") as campaign:
            campaign.run(ScriptedAgent(texts), experiments=0, on_event=seen.append)
            assert campaign.status().experiments == 0
            assert campaign.champion.number == 0
            campaign.run(ScriptedAgent(texts), experiments=2, on_event=seen.append)
            assert campaign.status().experiments == 2
            campaign.run(ScriptedAgent(texts), experiments=10, on_event=seen.append)
            assert campaign.status().experiments == 5
            campaign.run(ScriptedAgent(texts), hours=0, on_event=seen.append)
            assert campaign.status().experiments == 5
            (campaign.root / "program.md").write_text("---\nhours: 0.0000001\n---\n")
            campaign.run(ScriptedAgent(texts), on_event=seen.append)
            assert campaign.status().experiments == 5
            (campaign.root / "program.md").write_text("---\nhour: 1\n---\n")
            with pytest.raises(UserError, match="unknown limit 'hour'"):
                campaign.run(ScriptedAgent(texts))
            (campaign.root / "program.md").unlink()
            with pytest.raises(UserError, match="from 0 up"):
                campaign.run(ScriptedAgent(texts), experiments=-1)
        assert [event.reason for event in events_of(events.Stopped, seen)] == [
            "no experiments were asked for", "2 experiments, the limit", "3 experiments, the limit",
            "0 hours, the limit", "1e-07 hours, the limit",
        ]  # fmt: skip

    def test_fixed_constants_stay(self, tmp_path: Path) -> None:
        with a_campaign(tmp_path / "c", program="---\nfixed: [OUTCOME]\n---\n") as campaign:
            campaign.run(ScriptedAgent([trainer(1.9, "crash"), trainer(1.8)]))
            found = campaign.experiments()
            assert [e.verdict for e in found] == ["keep", "invalid", "keep"]
            assert found[1].reason == "changes OUTCOME, which program.md fixes"
            assert found[1].trials == ()
            (campaign.root / "program.md").write_text("---\nfixed: [OUTCOME, OUTCME]\n---\n")
            with pytest.raises(UserError, match=r"fixes OUTCME, and .* no such constant; it has OUTCOME, SCORE"):
                campaign.run(ScriptedAgent([]))

    def test_repeats_are_told_and_not_run(self, tmp_path: Path) -> None:
        engine, seen = ScriptedEngine(), list[Any]()
        again = trainer(1.95).replace("#", "#  the same but for layout ", 1) + "\n\n"
        with a_campaign(tmp_path / "c", engine=engine) as campaign:
            agent = ScriptedAgent([trainer(1.9), trainer(1.95), again, trainer(2.0), trainer(1.9), trainer(1.8)])
            campaign.run(agent, on_event=seen.append)
            assert [(r.earlier.number, r.earlier.verdict) for r in agent.repeats] == [
                (2, "discard"), (0, "keep"), (1, "keep"),
            ]  # fmt: skip
            assert events_of(events.Repeat, seen) == agent.repeats
            assert campaign.status().experiments == 3
            assert len(engine.ran) == 5

    def test_a_crash_may_be_tried_again(self, tmp_path: Path) -> None:
        with a_campaign(tmp_path / "c") as campaign:
            campaign.run(ScriptedAgent([trainer(1.0, "crash"), trainer(1.0, "crash")]))
            assert campaign.status().crashed == 2

    def test_an_agent_that_only_repeats_is_stopped(self, tmp_path: Path) -> None:
        seen: list[Any] = []
        with a_campaign(tmp_path / "c") as campaign:
            agent = ScriptedAgent([trainer(1.9)] * 500)
            campaign.run(agent, on_event=seen.append)
            assert len(agent.repeats) == REPEATS_IN_A_ROW
            assert "50 trainers in a row that have their verdict already" in seen[-1].reason

    def test_unequal_yardsticks_are_an_error_and_leave_no_row(self, tmp_path: Path) -> None:
        with a_campaign(tmp_path / "c") as campaign:
            campaign.run(ScriptedAgent([trainer(1.9)]))
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine(yardstick="b" * 64)) as other:
            with pytest.raises(
                UserError, match="different yardsticks can't be compared: bbbbbbbbbbbb, deaf51e5d620; .* go on with"
            ):
                other.run(ScriptedAgent([trainer(1.9), trainer(1.7)]))
            assert other.status().experiments == 1
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:  # the candidate is pending
            campaign.run(ScriptedAgent([]))
            assert campaign.champion.val_bpb == 1.7

    @pytest.mark.parametrize("outcome", ["crash", "invalid", "nan"])
    def test_a_baseline_that_fails_stops_the_campaign_and_can_be_mended(self, tmp_path: Path, outcome: str) -> None:
        with a_campaign(tmp_path / "c", trainer=trainer(2.0, outcome)) as campaign:
            for _ in range(2):
                with pytest.raises(UserError, match=f"(?s)baseline failed with seed 1.*ended as {outcome}$"):
                    campaign.run(ScriptedAgent([]))
                assert campaign.experiments() == []
            (campaign.root / "train.py").write_text(trainer(2.2))
            git(campaign.root, "commit", "--quiet", "-am", "mended")
            campaign.run(ScriptedAgent([trainer(2.1)]))
            assert [e.val_bpb for e in campaign.experiments()] == [2.2, 2.1]
            assert campaign.experiment(0).commit == git(campaign.root, "rev-parse", "HEAD~1")

    def test_ctrl_c_leaves_the_candidate_pending(self, tmp_path: Path) -> None:
        def interrupt(spec: TrialSpec) -> None:
            if "1.9" in spec.trainer:
                raise KeyboardInterrupt

        with a_campaign(tmp_path / "c", engine=ScriptedEngine(during=interrupt)) as campaign:
            with pytest.raises(KeyboardInterrupt):
                campaign.run(ScriptedAgent([trainer(1.9)]))
            assert campaign.status().experiments == 0
        seen: list[Any] = []
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
            agent = ScriptedAgent([])
            campaign.run(agent, experiments=1, on_event=seen.append)
            assert [e.val_bpb for e in agent.observed] == [1.9]
            assert events_of(events.Proposed, seen) == [events.Proposed(1, "idea 0", "scripted", resumed=True)]

    def test_wall_time_counts_what_ran_before_a_kill(self, tmp_path: Path) -> None:
        def interrupt(spec: TrialSpec) -> None:
            if spec.seed == PRESET.seeds[1]:
                raise KeyboardInterrupt

        campaign = a_campaign(tmp_path / "c", engine=ScriptedEngine(during=interrupt))
        with campaign, pytest.raises(KeyboardInterrupt):
            campaign.run(ScriptedAgent([]))
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
            begun = time.monotonic()
            campaign.run(ScriptedAgent([]))
            now = time.monotonic() - begun
            earlier = campaign.experiment(0).trials[0].wall_seconds
            assert earlier == 0.5
            assert earlier < campaign.experiment(0).wall_seconds < earlier + now

    def test_a_second_writer_is_refused_and_told_of_the_first(self, tmp_path: Path) -> None:
        code = (
            "import sys; sys.path[:0] = sys.argv[2:]\n"
            "from pathlib import Path\nfrom campaigns import *\n"
            "def during(path):\n    print('running', flush=True); input()\n"
            "with Campaign.open(Path(sys.argv[1]), engine=ScriptedEngine(during=during)) as c:\n"
            "    c.run(ScriptedAgent([]))\n"
        )
        with a_campaign(tmp_path / "c") as campaign:
            here = Path(__file__).parents[1]
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(campaign.root), str(here), str(here.parent)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "running\n"
            with pytest.raises(
                UserError, match=rf"another process writes to this campaign: process {process.pid}, since"
            ):
                campaign.run(ScriptedAgent([]))
            with pytest.raises(UserError, match=str(process.pid)):
                campaign.try_worktree("x")
            assert campaign.status().experiments == 0  # reading needs no lock
            process.communicate("\n\n")
            assert process.returncode == 0
            campaign.run(ScriptedAgent([trainer(1.5)]))

    def test_a_persons_edits_stay(self, tmp_path: Path) -> None:
        seen: list[Any] = []
        with a_campaign(tmp_path / "c") as campaign:
            (campaign.root / "train.py").write_text("mine = True\n")
            (campaign.root / "notes.md").write_text("mine")
            campaign.run(ScriptedAgent([trainer(1.9), trainer(1.8)]), on_event=seen.append)
            assert (campaign.root / "train.py").read_text() == "mine = True\n"
            assert campaign.champion.val_bpb == 1.8
            assert git(campaign.root, "show", "HEAD:train.py") == trainer(1.8).strip()
            assert git(campaign.root, "status", "--porcelain").splitlines() == ["M train.py", "?? notes.md"]
            notices = [event.text for event in events_of(events.Notice, seen)]
            assert "neither uses nor changes them" in notices[0]
            assert all("was edited and stays so" in text for text in notices[1:])
            assert len(notices) == 3

    def test_an_index_locked_by_a_person_stops_nothing(self, tmp_path: Path) -> None:
        seen: list[Any] = []
        with a_campaign(tmp_path / "c") as campaign:
            (campaign.root / ".git" / "index.lock").touch()
            campaign.run(ScriptedAgent([trainer(1.9)]), on_event=seen.append)
            assert campaign.champion.val_bpb == 1.9
            assert "index.lock" in events_of(events.Notice, seen)[0].text
            (campaign.root / ".git" / "index.lock").unlink()
            campaign.run(ScriptedAgent([]))
            assert git(campaign.root, "status", "--porcelain") == ""


def test_what_is_proposed_after_the_hours_is_tried_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may think for minutes."""
    later = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later[0])
    monkeypatch.setattr("core.campaign.campaign.time", clock)

    class Slow(ScriptedAgent):
        def propose(self, history: History) -> Proposal | None:
            later[0] += 1800.0
            return super().propose(history)

    seen: list[Any] = []
    with a_campaign(tmp_path / "c") as campaign:
        campaign.run(Slow([trainer(1.9), trainer(1.8), trainer(1.7)]), hours=0.75, on_event=seen.append)
        assert [experiment.val_bpb for experiment in campaign.experiments()] == [2.0, 1.9]
        reason = events_of(events.Stopped, seen)[-1].reason
        assert reason == "0.75 hours, the limit; what scripted still proposed is experiment 2, which the next run tries"
        campaign.run(ScriptedAgent([None] * 3), on_event=seen.append)
        assert [(e.val_bpb, e.hypothesis) for e in campaign.experiments()[1:]] == [(1.9, "idea 0"), (1.8, "idea 1")]


class TestContradictions:
    def grown(self, root: Path) -> tuple[Campaign, list[Experiment]]:
        campaign = a_campaign(root)
        campaign.run(ScriptedAgent([trainer(1.9), trainer(1.95), trainer(1.8)]))
        return campaign, campaign.experiments()

    def test_a_commit_on_the_branch(self, tmp_path: Path) -> None:
        campaign, found = self.grown(tmp_path / "c")
        with campaign:
            (campaign.root / "train.py").write_text(trainer(1.7))
            git(campaign.root, "commit", "--quiet", "-am", "by habit")
            mine = git(campaign.root, "rev-parse", "HEAD")
            for act in (lambda: campaign.run(ScriptedAgent([])), lambda: campaign.try_worktree("lower")):
                with pytest.raises(UserError, match=rf"is at {mine}.*champion is {found[3].commit}") as told:
                    act()
            mend = str(told.value).split("work tree: ")[1].split(", then")[0]
            assert mend == f"git reset --soft {found[3].commit}"
            git(campaign.root, *mend.split()[1:])
            tried = campaign.try_worktree("lower")
            assert isinstance(tried, Experiment)
            assert (tried.verdict, tried.val_bpb) == ("keep", 1.7)
            assert git(campaign.root, "status", "--porcelain") == ""

    def test_a_branch_set_back(self, tmp_path: Path) -> None:
        campaign, found = self.grown(tmp_path / "c")
        with campaign:
            git(campaign.root, "reset", "--quiet", "--hard", found[0].commit)
            with pytest.raises(UserError, match=f"is at {found[0].commit}"):
                campaign.run(ScriptedAgent([]))

    def test_a_branch_moved_while_a_trial_runs(self, tmp_path: Path) -> None:
        campaign, found = self.grown(tmp_path / "c")
        campaign.close()

        def move(spec: TrialSpec) -> None:
            git(campaign.root, "update-ref", f"refs/heads/{campaign.branch}", found[0].commit)

        with Campaign.open(campaign.root, engine=ScriptedEngine(during=move)) as other:
            with pytest.raises(UserError, match=f"is at {found[0].commit}"):
                other.run(ScriptedAgent([None] * 3 + [trainer(1.5)]))
            assert other.status().experiments == 3
            git(other.root, "update-ref", f"refs/heads/{other.branch}", found[3].commit)
        with Campaign.open(campaign.root, engine=ScriptedEngine()) as again:
            again.run(ScriptedAgent([]))
            assert again.champion.val_bpb == 1.5

    def test_refs_that_do_not_fit_the_ledger(self, tmp_path: Path) -> None:
        campaign, found = self.grown(tmp_path / "c")
        with campaign:
            git(campaign.root, "update-ref", "refs/experiments/3", found[2].commit)
            with pytest.raises(UserError, match=f"git update-ref refs/experiments/3 {found[3].commit}"):
                campaign.run(ScriptedAgent([]))
            git(campaign.root, "update-ref", "refs/experiments/3", found[3].commit)
            git(campaign.root, "update-ref", "refs/experiments/4", found[2].commit)
            with pytest.raises(UserError, match="no candidate on the champion.*git update-ref -d refs/experiments/4"):
                campaign.run(ScriptedAgent([]))
            git(campaign.root, "update-ref", "-d", "refs/experiments/4")
            git(campaign.root, "update-ref", "refs/experiments/5", found[2].commit)
            with pytest.raises(UserError, match="the ledger is older than the repository"):
                campaign.run(ScriptedAgent([]))
            git(campaign.root, "update-ref", "-d", "refs/experiments/5")
            campaign.run(ScriptedAgent([]))

    def test_a_branch_that_is_gone(self, tmp_path: Path) -> None:
        campaign, _ = self.grown(tmp_path / "c")
        with campaign:
            git(campaign.root, "checkout", "--quiet", "--detach")
            git(campaign.root, "branch", "--quiet", "-D", campaign.branch)
            with pytest.raises(UserError, match="is gone; fix it with: git branch") as told:
                campaign.run(ScriptedAgent([]))
            git(campaign.root, *str(told.value).split("git ")[1].split())
            campaign.run(ScriptedAgent([]))


def test_reading_a_campaign_loads_no_git_and_no_optuna(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        campaign.run(ScriptedAgent([trainer(1.5)]))
    code = (
        "import sys, pathlib; from core.campaign.campaign import Campaign\n"
        "with Campaign.open(pathlib.Path(sys.argv[1])) as c: c.status(), c.experiments()\n"
        "print([m for m in ('git', 'optuna', 'torch', 'core.trial.supervisor') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c")], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


class TestRefreeze:
    def test_a_campaign_without_an_experiment_takes_another_preset(self, tmp_path: Path) -> None:
        other = presets.load("numpy", {"depth": "1", "seeds": "[7]", "corpus": "apidocs"})
        with Campaign.create(tmp_path / "c", presets.load("numpy"), program="Mine.\n", tag="t") as campaign:
            assert "DEPTH = 2" in (campaign.root / "train.py").read_text()
        assert Campaign.refreeze(tmp_path / "c", other)
        with Campaign.open(tmp_path / "c") as campaign:
            assert campaign.preset == other
            assert campaign.branch == "autoresearch/t"
            assert (campaign.root / "program.md").read_text() == "Mine.\n"
            assert "DEPTH = 1" in (campaign.root / "train.py").read_text()
            assert campaign.repo.text(campaign.repo.head() or "") == (campaign.root / "train.py").read_text()
            assert campaign.ledger.altered() == []

    def test_a_trainer_of_ones_own_stays(self, tmp_path: Path) -> None:
        a_campaign(tmp_path / "c").close()
        changed = dataclasses.replace(PRESET, budget_seconds=9.0)
        assert not Campaign.refreeze(tmp_path / "c", changed)
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
            campaign.run(ScriptedAgent([trainer(1.5)]))
            assert [e.val_bpb for e in campaign.experiments()] == [2.0, 1.5]
        with pytest.raises(UserError, match="has experiments, so its preset stays"):
            Campaign.refreeze(tmp_path / "c", PRESET)

    def test_trials_of_a_baseline_that_was_cut_off_go(self, tmp_path: Path) -> None:
        def interrupt(spec: TrialSpec) -> None:
            if spec.seed == 2:
                raise KeyboardInterrupt

        with a_campaign(tmp_path / "c", engine=ScriptedEngine(during=interrupt)) as campaign:
            with pytest.raises(KeyboardInterrupt):
                campaign.run(ScriptedAgent([]))
            assert len(campaign.ledger.trials(0)) == 1
        Campaign.refreeze(tmp_path / "c", dataclasses.replace(PRESET, seeds=(5,)))
        with Campaign.open(tmp_path / "c", engine=ScriptedEngine()) as campaign:
            campaign.run(ScriptedAgent([]))
            assert [trial.seed for trial in campaign.experiment(0).trials] == [5]

    @pytest.mark.parametrize("killed_at", [1, 2])
    def test_a_kill_leaves_the_one_or_the_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
    ) -> None:
        """Before the new ledger's appearance, and between it and the new preset's."""
        a_campaign(tmp_path / "c").close()
        changed = dataclasses.replace(PRESET, budget_seconds=9.0)
        replace, moves = Path.replace, itertools.count(1)

        def killed(self: Path, target: Path) -> Path:
            if self.name.startswith("next-") and next(moves) == killed_at:
                raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "replace", killed)
            Campaign.refreeze(tmp_path / "c", changed)
        with Campaign.open(tmp_path / "c") as campaign:
            assert campaign.preset == (PRESET if killed_at == 1 else changed)
        Campaign.refreeze(tmp_path / "c", changed)
        with Campaign.open(tmp_path / "c") as campaign:
            assert campaign.preset == changed


def test_a_campaign_is_opened_by_its_path_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with Campaign.create(str(tmp_path / "c"), PRESET, trainer=trainer(2.0), engine=ScriptedEngine()) as campaign:
        assert campaign.root == tmp_path / "c"
    for name in (str(tmp_path / "c"), "~/c"):
        with Campaign.open(name) as campaign:
            assert campaign.root == tmp_path / "c"
    with pytest.raises(UserError, match="holds no campaign"):
        Campaign.open("elsewhere")
