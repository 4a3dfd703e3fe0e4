"""`autoresearch audit`: what holds passes, and whatever was changed since is named."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, trainer
from command import call
from support import BRIEF, PRESET, reference_trainer

import backends
from core.agents.base import Agent, History
from core.campaign.campaign import Campaign
from core.records import LOSSES, WEIGHTS, Proposal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "c"
    with a_campaign(path) as campaign:
        campaign.run(ScriptedAgent([trainer(1.9), trainer(1.95), trainer(1.0, "crash"), trainer(1.8)]))
    return path


def faults(root: Path) -> list[tuple[str, str]]:
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        return [(check.subject, check.what) for check in campaign.verify() if check.fault]


def test_a_campaign_that_holds(root: Path) -> None:
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        checks = list(campaign.verify())
    assert [check for check in checks if check.fault] == []
    told = [(check.subject, check.what) for check in checks]
    for row in (
        "trial 0 of experiment 0",
        "trial 1 of experiment 0",
        "trial 0 of experiment 1",
        "trial 0 of experiment 4",
    ):
        assert [what for subject, what in told if subject == row] == ["weights", "score", "audit"]
    assert ("experiment 3", "record") in told


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_byte_of_a_champions_weights(root: Path, place: int) -> None:
    path = root / ".git/autoresearch/experiments/1/0" / WEIGHTS
    changed = bytearray(path.read_bytes())
    changed[place] ^= 1
    path.write_bytes(changed)
    assert faults(root) == [("trial 0 of experiment 1", "weights")]
    answer = call("audit", root, "--quick", code=1)
    assert "FAULT  trial 0 of experiment 1: weights" in answer.out


def test_weights_that_are_gone(root: Path) -> None:
    (root / ".git/autoresearch/experiments/4/0" / WEIGHTS).unlink()
    assert faults(root) == [("trial 0 of experiment 4", "weights")]


def test_weights_that_score_something_else(root: Path) -> None:
    with Campaign.open(root, engine=ScriptedEngine(drifted=0.01)) as campaign:
        first = next(check for check in campaign.verify() if check.fault)
    assert (first.subject, first.what) == ("trial 0 of experiment 0", "score")
    assert first.fault == "the weights score 2.010000 bpb, the record says 2.000000"


def test_a_ref_that_was_moved_and_a_branch_that_was(root: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    git("update-ref", "refs/experiments/2", "refs/experiments/1")
    assert ("experiment 2", "record") in faults(root)
    git("update-ref", "refs/heads/autoresearch/t", "refs/experiments/1")
    assert ("branch autoresearch/t", "champion") in faults(root)


def test_a_damaged_object(root: Path) -> None:
    objects = sorted((root / ".git/objects").glob("??/*"), key=lambda path: path.stat().st_size)
    objects[-1].chmod(0o600)
    objects[-1].write_bytes(objects[-1].read_bytes()[:-4])
    assert ("repository", "git fsck") in faults(root)


class LessSmoothing(Agent):
    """Proposes the reference trainer with another constant, once."""

    name = "once"

    def propose(self, history: History) -> Proposal | None:
        text = backends.trainer_path("numpy").read_text(encoding="utf-8")
        text = text.replace("SMOOTHING = 0.5", "SMOOTHING = 0.1")
        return Proposal(text=text, hypothesis="less smoothing", agent=self.name) if len(history) == 1 else None


def test_real_trials_hold_and_a_changed_claim_does_not(tmp_path: Path, cache: Path, corpus_folder: Path) -> None:
    root = tmp_path / "real"
    preset = dataclasses.replace(PRESET, corpus=f"folder:{corpus_folder}", seeds=(1,))
    with Campaign.create(root, preset, trainer=reference_trainer(BRIEF), tag="t") as campaign:
        campaign.run(LessSmoothing())
        kept = [e for e in campaign.experiments() if e.verdict == "keep"]
        assert all(e.audit is not None and e.audit.kind == "deep" for e in kept)
    answer = call("audit", root, "--json").json
    assert answer["holds"]
    assert sum(check["what"] == "audit" for check in answer["checks"]) == len(kept)
    # The losses on file are what the audit holds against fresh processes.
    path = root / ".git/autoresearch/experiments/0/0" / LOSSES
    losses = np.load(path)
    np.save(path, losses - np.float32(0.1))
    told = call("audit", root, "--json", code=1).json
    assert [(c["subject"], c["what"]) for c in told["checks"] if c["fault"]] == [("trial 0 of experiment 0", "audit")]
