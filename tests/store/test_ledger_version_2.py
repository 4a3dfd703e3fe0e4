"""A ledger of version 2 opens, goes on in its own tables, and says what they can't hold."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, a_trial, facts_of, trainer
from command import call
from old_ledgers import as_version_2

from core.campaign.campaign import Campaign
from core.campaign.transfer import scaled_preset
from core.records import VAL_BPB, Measurement, UserError
from core.store.ledger import Ledger

TEXTS = [trainer(score) for score in (1.9, 1.95, 1.8, 1.85)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of version 2 with a baseline and two experiments."""
    root = tmp_path_factory.mktemp("old") / "c"
    with a_campaign(root) as campaign:
        campaign.run(ScriptedAgent(TEXTS[:2]))
    as_version_2(root)
    return root


@pytest.fixture
def ledger(two: Path, tmp_path: Path):
    path = tmp_path / "ledger.db"
    path.write_bytes((two / ".git/autoresearch/ledger.db").read_bytes())
    opened = Ledger.open(path)
    yield opened
    opened.close()


def tables(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    finally:
        connection.close()


def test_it_reads_as_it_was(ledger: Ledger) -> None:
    assert ledger.version == 2
    assert [e.verdict for e in ledger.experiments()] == ["keep", "keep", "discard"]
    first = ledger.experiments()[0].trials[0]
    assert (first.node, first.disturbed, first.stalled_seconds) == ("", "", None)
    assert ledger.totals().stopped == 0 and ledger.effects(200) == []
    assert ledger.altered() == []


def test_a_campaign_goes_on_in_its_own_tables(two: Path, tmp_path: Path) -> None:
    import shutil

    root, reference = shutil.copytree(two, tmp_path / "c"), tmp_path / "new"
    path = root / ".git/autoresearch/ledger.db"
    before = tables(path)
    with a_campaign(reference) as campaign:
        campaign.run(ScriptedAgent(TEXTS))
        campaign.confirm(2)
        expected = facts_of(campaign)
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        assert (campaign.policy, campaign.metric) == ("greedy 1", VAL_BPB)
        campaign.run(ScriptedAgent(TEXTS))
        campaign.confirm(2)
        assert facts_of(campaign) == expected
        assert [check for check in campaign.verify() if check.fault] == []
        assert campaign.ledger.version == 2 and not campaign.ledger.facts().keys() & {"policy", "metric", "device_kind"}
    assert tables(path) == before
    for command in ("status", "log"):
        assert "1.8" in call(command, root).out


def trial_of(purpose: str = "confirm", role: str = "champion", seed: int = 9) -> Callable[[Ledger], None]:
    def record(ledger: Ledger) -> None:
        champion = ledger.champion()
        assert champion is not None
        ledger.record_measurement(
            Measurement(
                purpose=purpose, series=1, role=role, experiment=champion.number, commit=champion.commit,
                trial=a_trial(seed=seed),
            )
        )  # fmt: skip

    return record


def twice(ledger: Ledger) -> None:
    trial_of()(ledger)
    trial_of()(ledger)


def experiment(**values: object) -> Callable[[Ledger], None]:
    def record(ledger: Ledger) -> None:
        last = ledger.last()
        assert last is not None
        following = dataclasses.replace(last, number=3, commit="c3", trials=(), **values)  # type: ignore[arg-type]
        ledger.record_experiment(following, {})

    return record


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda ledger: ledger.record_trial(4, 0, "c4", a_trial()), "trials of several open experiments"),
        (lambda ledger: ledger.record_trial(3, 0, "c3", a_trial(verdict="stopped")), "a trial that was stopped"),
        (experiment(verdict="stopped"), "the verdict stopped"),
        (experiment(base="another"), "built on another commit than the champion"),
        (trial_of(purpose="compare"), "a trial of the champion to compare"),
        (trial_of(role="without-1"), "a trial of the without-1 to confirm"),
        (twice, "a second trial of the champion with seed 9"),
    ],
)
def test_what_it_cannot_hold_is_said(ledger: Ledger, write: Callable[[Ledger], None], what: str) -> None:
    with pytest.raises(UserError, match=f"is of version 2, which can't hold .*{what}; start a new campaign"):
        write(ledger)
    assert ledger.count() == 3 and ledger.altered() == []


def test_studies_are_kept_as_facts(two: Path, tmp_path: Path) -> None:
    root = shutil.copytree(two, tmp_path / "c")
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        before = campaign.ledger.seeds()
        preset = scaled_preset(campaign.preset, None, {"budget_seconds": "0.6"})
        first = campaign.ablate(2, trials=2), campaign.transfer(preset, 2)
        assert (first[0].trials, len(first[1].pairs)) == (2, 2)
        whole = campaign.ablate(2)
        assert [change.pairs for change in whole.changes] == [2] and campaign.transfer(preset, 2) == first[1]
        rows = campaign.ledger.measurements("ablate", campaign.champion.number)
        assert {one.role for one in rows} == {"champion", "without 1"} and len(rows) == 4
        assert campaign.ledger.seeds() - before == {one.trial.seed for one in rows} | {p.seed for p in first[1].pairs}
        assert [check for check in campaign.verify() if check.fault] == []
