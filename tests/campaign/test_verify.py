"""`autoresearch audit`: what holds passes, and whatever was changed since is named."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from campaigns import POLICIES, Pairs, ScriptedAgent, ScriptedEngine, a_campaign, trainer
from command import call
from support import BRIEF, PRESET, reference_trainer

import backends
from core.agents.base import Agent, History
from core.campaign.campaign import Campaign
from core.campaign.judge.base import Policy
from core.campaign.judge.greedy import LowerWins
from core.campaign.verdict_replay import VerdictReplay
from core.campaign.verify import Check
from core.records import LOSSES, WEIGHTS, Proposal
from core.store import hash_chain


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


TEXTS = [
    trainer(1.9),
    trainer(1.95),
    trainer(1.0, "crash"),
    "x = (\n",
    trainer(1.0, "cheat"),
    trainer(1.8),
    trainer(1.85),
]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A campaign under each policy, with every verdict."""
    made = {}
    for policy in POLICIES.values():
        root = made[policy.name] = tmp_path_factory.mktemp("judged") / policy.name
        with a_campaign(root, policy=policy) as campaign:
            campaign.run(ScriptedAgent(TEXTS))
            verdicts = [e.verdict for e in campaign.experiments()]
        assert verdicts == ["keep", "keep", "discard", "crash", "crash", "invalid", "keep", "discard"]
    return made


def edit(root: Path, *statements: str) -> None:
    """Edits the ledger and computes all seals anew, as somebody who knows the format would."""
    connection = sqlite3.connect(root / ".git/autoresearch/ledger.db")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount == 1
    sealed = connection.execute("SELECT sealed, key FROM seals ORDER BY number").fetchall()
    connection.execute("DELETE FROM seals")
    for table, key in sealed:
        hash_chain.append(connection, table, key)
    for _, sql in triggers:
        connection.execute(sql)
    connection.commit()
    connection.close()


def replayed(root: Path, policy: Policy) -> list[int]:
    """The experiments whose verdicts don't follow from the records."""
    with Campaign.open(root, policy=policy) as campaign:
        assert campaign.ledger.altered() == []
        replay = VerdictReplay(campaign, policy)
        return [one.number for one in campaign.experiments() if replay.fault(one)]


def both(table: str, where: str, field: str, value: str) -> str:
    """The statement that sets a column and the record's field alike."""
    return f"UPDATE {table} SET {field} = {value}, record = json_set(record, '$.{field}', {value}) WHERE {where}"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_verdict_is_replayed(judged: dict[str, Path], policy: Policy) -> None:
    assert replayed(judged[policy.name], policy) == []
    assert [(check.subject, check.fault) for check in checks_of(judged[policy.name], policy)] == [
        (f"experiment {n}", "") for n in range(8)
    ]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (both("trials", "experiment = 2 AND trial = 0", "val_bpb", "1.8"), 2),
        (both("trials", "experiment = 6 AND trial = 0", "val_bpb", "1.97"), 6),
        (both("trials", "experiment = 0 AND trial = 0", "val_bpb", "2.1"), 0),
        (both("trials", "experiment = 2 AND trial = 0", "seed", "7"), 2),
        (both("trials", "experiment = 3", "verdict", "'invalid'"), 3),
        (both("experiments", "number = 2", "verdict", "'crash'"), 2),
        (both("experiments", "number = 7", "verdict", "'invalid'"), 7),
        (both("experiments", "number = 6", "val_bpb", "1.7"), 6),
        (both("experiments", "number = 4", "val_bpb", "1.7"), 4),
        ("UPDATE experiments SET record = json_set(record, '$.champion_bpb', 1.95) WHERE number = 6", 6),
        ("UPDATE experiments SET record = json_set(record, '$.effect', 0.4) WHERE number = 2", 2),
        ("UPDATE experiments SET record = json_set(record, '$.spread', 0.1) WHERE number = 6", 6),
    ],
)
def test_an_edited_row_is_named_where_all_seals_were_computed_anew(
    judged: dict[str, Path], tmp_path: Path, policy: Policy, statement: str, named: int
) -> None:
    root = shutil.copytree(judged[policy.name], tmp_path / "c")
    edit(root, statement)
    assert replayed(root, policy)[0] == named


def test_an_edited_verdict_alone_is_named(judged: dict[str, Path], tmp_path: Path) -> None:
    """What later verdicts rest on is what the evidence gives, not what the row was made to say."""
    for policy in POLICIES.values():
        root = shutil.copytree(judged[policy.name], tmp_path / policy.name)
        edit(root, both("experiments", "number = 2", "val_bpb", "1.2"))
        assert replayed(root, policy) == [2]


def test_a_trial_of_the_champion_that_was_edited_and_a_trial_too_many(judged: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(judged["pairs"], tmp_path / "c")
    edit(root, both("measurements", "purpose = 'compare' AND role = 'champion' AND series = 2", "val_bpb", "1.99"))
    assert replayed(root, Pairs())[0] == 2
    greedy = {check.subject: check.fault for check in checks_of(root, LowerWins())}  # decides after one trial
    assert greedy["experiment 1"] == "its verdict was clear 2 trials before its last one"
    assert next(check.subject for check in checks_of(root, Pairs()) if check.fault) == "experiment 2"


def checks_of(root: Path, policy: Policy) -> list[Check]:
    """Those of the verdicts."""
    with Campaign.open(root, policy=policy) as campaign:
        return [check for check in campaign.verify(scores=False) if check.what == "verdict"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE trials SET val_bpb = 1.0 WHERE experiment = 2 AND trial = 0", "trial 0 of experiment 2"),
        ("UPDATE experiments SET verdict = 'keep' WHERE number = 2", "experiment 2"),
    ],
)
def test_columns_that_differ_from_their_record(
    judged: dict[str, Path], tmp_path: Path, statement: str, named: str
) -> None:
    root = shutil.copytree(judged["greedy"], tmp_path / "c")
    edit(root, statement)
    answer = call("audit", root, "--quick", code=1)
    assert f"FAULT  {named}: columns" in answer.out


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
    assert sum(check["what"] == "audit" for check in answer["checks"]) == sum(len(e.trials) for e in kept)
    # The losses on file are what the audit holds against fresh processes.
    path = root / ".git/autoresearch/experiments/0/0" / LOSSES
    losses = np.load(path)
    np.save(path, losses - np.float32(0.1))
    told = call("audit", root, "--json", code=1).json
    assert [(c["subject"], c["what"]) for c in told["checks"] if c["fault"]] == [("trial 0 of experiment 0", "audit")]
