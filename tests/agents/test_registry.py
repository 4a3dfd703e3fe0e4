"""Which agents there are, by name and by entry point, and what each refuses."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from command import call

from core import agents
from core.agents.base import Agent, History
from core.agents.hybrid import Hybrid
from core.agents.search import SearchAgent
from core.records import Proposal, UserError


class Eager(Agent):
    """Somebody else's agent."""

    name = "eager"

    def __init__(self, pace: str = "slow") -> None:
        self.pace = pace

    def propose(self, history: History) -> Proposal | None:
        return None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("eager", f"{__name__}:Eager", agents.GROUP),
        EntryPoint("gone", "no_such_module:Agent", agents.GROUP),
    ]
    monkeypatch.setattr(agents, "entry_points", lambda group: points if group == agents.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", _load)


def _load(point: EntryPoint) -> Any:
    if point.name == "gone":
        raise ModuleNotFoundError("No module named 'no_such_module'")
    return Eager


@pytest.mark.usefixtures("installed")
def test_other_peoples_agents_are_found_by_entry_point_and_get_their_own_settings() -> None:
    assert {"search", "api", "command", "hybrid", "replay", "eager", "gone"} == set(agents.names())
    agent = agents.make("eager", pace="fast")
    assert isinstance(agent, Eager) and agent.pace == "fast"
    with pytest.raises(UserError, match=r"agent gone: no_such_module:Agent can't be loaded: No module named"):
        agents.make("gone")
    with pytest.raises(UserError, match="agent eager does not take --model; it takes --pace"):
        agents.make("eager", model="x")


def test_an_option_that_an_agent_does_not_take_is_an_error() -> None:
    assert isinstance(agents.make("search", seed=3), SearchAgent)
    with pytest.raises(UserError, match="agent search does not take --max-cost, --model; it takes --seed"):
        agents.make("search", max_cost=1.0, model="x")
    with pytest.raises(UserError, match="agent command needs --command"):
        agents.make("command")
    with pytest.raises(UserError, match="there is no agent 'serach'; there are api, command, hybrid, replay, search"):
        agents.make("serach")


def test_a_mistaken_option_leaves_no_folder(tmp_path: Any) -> None:
    answer = call("run", tmp_path / "night", "--preset", "numpy", "--model", "x", code=2)
    assert answer.err.endswith("autoresearch: agent search does not take --model; it takes --seed\n")
    assert not (tmp_path / "night").exists()


def test_hybrid_takes_a_coding_agent_where_a_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def thinker(name: str, **options: Any) -> Agent:
        asked.append(name)
        return Eager()

    monkeypatch.setattr(agents, "thinker", thinker)
    assert isinstance(agents.make("hybrid", command="true"), Hybrid)
    assert isinstance(agents.make("hybrid", model="x"), Hybrid)
    assert asked == ["command", "api"]
