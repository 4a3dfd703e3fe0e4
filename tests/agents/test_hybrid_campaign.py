"""Whole campaigns of the hybrid, with a model through the real SDK: turns over several runs, and what is spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import a_campaign, events_of
from messages_server import KEY, MessagesServer
from served_model import Planner, exchanges, files_with_the_key

from core.agents import registry
from core.agents.hybrid import TUNED_AFTER_KEEP, TUNED_AFTER_REST
from core.events import Notice, Stopped
from core.records import Experiment


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    server = MessagesServer(Planner((-0.1, "crash", -0.2, 0.05)))
    server.start()
    yield server
    server.stop()


def who(found: list[Experiment]) -> str:
    """M for each experiment of the model, s for each of the search."""
    return "".join("M" if one.agent.startswith("api:") else "s" for one in found[1:])


def expected(found: list[Experiment]) -> str:
    """Whose turn each was, counted from the verdicts."""
    turns, left = "", 0
    for one in found[1:]:
        turns += "s" if left else "M"
        left = left - 1 if left else TUNED_AFTER_KEEP if one.verdict == "keep" else TUNED_AFTER_REST
    return turns


def test_turns_go_on_in_the_next_run_and_the_search_alone_when_the_tokens_are_spent(
    tmp_path: Path, server: MessagesServer
) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        campaign.run(registry.make("hybrid", endpoint=server.url), experiments=6)
        campaign.run(registry.make("hybrid", endpoint=server.url), experiments=8)
        found = campaign.experiments()
        turns = who(found)
        assert turns == expected(found)
        assert turns.startswith("Msss") and turns.count("M") >= 4
        asked = len(exchanges(tmp_path / "c"))
        told: list[object] = []
        campaign.run(registry.make("hybrid", endpoint=server.url, max_tokens=10), experiments=6, on_event=told.append)
        found = campaign.experiments()
        assert campaign.champion.val_bpb == min(one.val_bpb for one in found if one.val_bpb is not None)
    assert who(found)[14:] == "ssssss"
    assert len(exchanges(tmp_path / "c")) == asked
    notices = [event.text for event in events_of(Notice, told)]
    assert any("may use no more: --max-tokens 10" in one and "the search goes on alone" in one for one in notices)
    assert events_of(Stopped, told)[-1].reason == "6 experiments, the limit"
    assert files_with_the_key(tmp_path / "c") == []
