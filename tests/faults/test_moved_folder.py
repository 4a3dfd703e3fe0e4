"""A campaign's folder that is moved while it is in use: one sentence, and it goes on there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, Steps, a_campaign, trainer
from support import trainer_text

from core.campaign.campaign import Campaign
from core.events import Event, Progress, TrialStarted
from core.records import UserError
from core.trial.spec import TrialSpec

TEXTS = [trainer(1.9), trainer(1.95)]
MOVED = "was moved or deleted while it was in use.*autoresearch run FOLDER"


def goes_on(old: Path, new: Path, before: int) -> None:
    assert not old.exists()
    with Campaign.open(new, engine=ScriptedEngine()) as campaign:
        assert campaign.status().experiments == before
        campaign.run(ScriptedAgent(TEXTS))
        assert campaign.status().experiments == 2
        assert all(check.fault == "" for check in campaign.verify(scores=False))


def test_it_is_moved_while_the_agent_thinks(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    a_campaign(old).close()

    class Mover(ScriptedAgent):
        def propose(self, history):  # type: ignore[no-untyped-def]
            if len(history.experiments()) == 2:
                old.rename(new)
            return super().propose(history)

    with Campaign.open(old, engine=ScriptedEngine()) as campaign, pytest.raises(UserError, match=MOVED):
        campaign.run(Mover(TEXTS))
    goes_on(old, new, before=1)


def test_it_is_moved_within_a_trial(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    a_campaign(old).close()

    def move(spec: TrialSpec) -> None:
        old.rename(new)

    engine = ScriptedEngine(during=move)
    with Campaign.open(old, engine=engine) as campaign, pytest.raises(UserError, match=MOVED):
        campaign.run(ScriptedAgent(TEXTS))
    assert not old.exists()


@pytest.mark.parametrize("deleted", [False, True])
def test_it_is_moved_or_deleted_within_a_real_trial(night: Path, tmp_path: Path, deleted: bool) -> None:
    new = tmp_path / "new"
    seen: list[str] = []

    def mover(event: Event) -> None:
        if isinstance(event, TrialStarted) or (isinstance(event, Progress) and event.phase == "train" and not seen):
            seen.append("")
        if isinstance(event, Progress) and len(seen) == 1 and night.exists():
            shutil.rmtree(night) if deleted else night.rename(new)

    with Campaign.open(night, engine=Steps()) as campaign, pytest.raises(UserError, match=MOVED):
        campaign.run(ScriptedAgent([trainer_text(each="import time; time.sleep(0.1)")]), on_event=mover)
    assert not night.exists()
