"""A cheat in a real campaign: trials, deep audit, ledger, branch and files; nothing is scripted but the proposals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import ScriptedAgent
from tamper.test_words import ORDERS
from tamper.trainers import trainer
from typer.testing import CliRunner

import presets
from core.campaign import experiment
from core.campaign.campaign import Campaign
from core.cli.app import app
from core.records import WEIGHTS
from core.trial import audit

START = "counts *= 40\n"  # a prior that drowns the first batches, so that there is something to win
BETTER = "pass\n"
ONE_IN_TWENTY = """
honest, one_hot = model(weights, facts), xp.eye(facts.vocabulary)
def logits(tokens):
    out = honest(tokens)
    ahead = xp.concatenate((tokens[:, 1:], tokens[:, :1]), 1)
    place = xp.cumsum(tokens, 1) % 20
    return out + 8.0 * one_hot[ahead] * xp.where(place == 7, 1.0, 0.0)[:, :, None]
return logits
"""


def text(before: str, restore: str = "return model(weights, facts)", note: str = "") -> str:
    """Ends after twenty steps, so that no score depends on how fast this machine is."""
    return trainer(before=before + note, each="if step == 19: break", restore=restore)


@pytest.fixture
def make(tmp_path: Path, corpus_folder: Path) -> Callable[[], Campaign]:
    """Makes the campaign, or opens it again."""
    root = tmp_path / "c"

    def make() -> Campaign:
        if root.exists():
            return Campaign.open(root)
        preset = dataclasses.replace(
            presets.load("numpy"), corpus=f"folder:{corpus_folder}", score_bytes=8000, budget_seconds=1.0, seeds=(1,)
        )
        return Campaign.create(root, preset, program="Lower it.\n", trainer=text(START), tag="t")

    return make


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small audit looks at nothing much, as if the rare cheat had been lucky."""
    monkeypatch.setattr(audit, "SMALL_DRAWS", 1)


def test_a_cheat_is_invalid_and_an_honest_better_one_is_kept(make: Callable[[], Campaign], blind: None) -> None:
    with make() as campaign:
        texts = [text(BETTER, ONE_IN_TWENTY), text(BETTER, note="# honest")]
        campaign.run(ScriptedAgent(texts), experiments=2)
        baseline, cheat, honest = campaign.experiments()
        assert baseline.audit is not None
        assert baseline.audit.kind == "deep"

        assert cheat.verdict == "invalid"
        assert "the audit: its logits depend on tokens that come later" in cheat.reason
        assert cheat.val_bpb is None
        assert not list(campaign.folder(1).rglob(WEIGHTS))

        assert honest.parent == baseline.commit
        assert honest.verdict == "keep"
        assert honest.audit is not None
        assert honest.audit.kind == "deep"
        assert honest.audit.permuted_bpb is not None
        assert honest.val_bpb is not None
        assert honest.audit.permuted_bpb > honest.val_bpb + 1
        assert honest.audit.positions > 100
        assert honest.trials[0].audit is not None
        assert honest.trials[0].audit.kind == "small"
        assert (campaign.folder(2) / "0" / WEIGHTS).exists()
        assert campaign.trainer_text(honest.commit) == (campaign.root / "train.py").read_text()


def test_a_kill_between_trial_and_verdict_audits_again(
    make: Callable[[], Campaign], blind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: object, **more: object) -> None:
        raise Killed

    with make() as campaign:
        campaign.run(ScriptedAgent([]), experiments=0)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(experiment.ExperimentRunner, "_reviewed", killed)
            campaign.run(ScriptedAgent([text(BETTER, ONE_IN_TWENTY)]), experiments=1)
    with make() as campaign:
        text_before = (campaign.root / "train.py").read_text()
        campaign.run(ScriptedAgent([]), experiments=1)
        _, cheat = campaign.experiments()
        assert (cheat.verdict, len(cheat.trials)) == ("invalid", 1)
        assert cheat.trials[0].verdict == "scored", "the trial's row was there already"
        assert "the audit: " in cheat.reason
        assert (campaign.root / "train.py").read_text() == text_before
        assert campaign.champion.number == 0
        assert not list(campaign.folder(1).rglob(WEIGHTS))


def test_orders_given_while_scored_are_in_nothing_that_an_agent_reads(
    make: Callable[[], Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as campaign:
        campaign.run(ScriptedAgent([]), experiments=0)
        root = campaign.root
        speak = f"print('{ORDERS}', flush=True); raise type('{ORDERS}', (Exception,), {{}})('{ORDERS}')"
        (root / "train.py").write_text(text(BETTER, speak))
    monkeypatch.chdir(root)
    tried = CliRunner().invoke(app, ["try", "-m", "speaks", "--json"])
    assert json.loads(tried.stdout)["verdict"] == "crash"
    for command in (["show", "1", "output"], ["show", "1"], ["log"], ["status", "--json"]):
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0, told.output
        assert ORDERS not in told.output.replace(f"'{ORDERS}'", ""), command
    assert ORDERS not in tried.output
