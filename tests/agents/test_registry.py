"""Agents by name: which options each takes, and what is missing for those that need something."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from command import call

from core.agents import registry
from core.agents.api.agent import ApiAgent
from core.agents.base import Agent, History
from core.agents.hybrid import Hybrid
from core.agents.search.agent import SearchAgent
from core.records import Proposal, UserError

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY")
LOCAL = {"provider": "openai", "endpoint": "http://127.0.0.1:1/v1", "model": "small"}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_names_that_are_known() -> None:
    assert {"api", "hybrid", "replay", "search"} <= set(registry.names())
    with pytest.raises(UserError, match=r"there is no agent 'apy': did you mean api\? There are .*api, .*search"):
        registry.make("apy")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("search", {"model": "m"}, "agent search takes no --model; it takes --seed"),
        ("search", {"max_cost": 1.0, "command": "x"}, "agent search takes no --max-cost, --command; it takes --seed"),
        ("api", {**LOCAL, "timeout": "soon"}, "timeout: expected seconds, not 'soon'"),
        ("api", {"command": "claude"}, r"agent api takes no --command; it takes --model, --provider, .*--lessons"),
        ("hybrid", {"replay": Path()}, "agent api takes no --replay; it takes --model"),
        ("replay", {}, "agent replay needs --replay"),
        ("replay", {"replay": Path(), "seed": 1}, "agent replay takes no --seed; it takes --replay"),
        ("api", {"provider": "azure"}, "there is no provider 'azure': there are anthropic, openai"),
        (
            "api",
            {**LOCAL, "effort": "extreme"},
            "--effort: expected one of low, medium, high, xhigh, max, not 'extreme'",
        ),
        ("api", {**LOCAL, "max_cost": 0.0}, "--max-cost: expected a number above 0, not 0.0"),
        ("api", {**LOCAL, "max_cost": float("nan")}, "--max-cost: expected a number above 0"),
        ("api", {**LOCAL, "max_tokens": -5}, "--max-tokens: expected a number above 0, not -5"),
        ("api", {**LOCAL, "max_cost": 1.0}, "--max-cost needs to know what small costs.*--price"),
        ("api", {**LOCAL, "price": "cheap"}, "cheap"),
        ("api", {**LOCAL, "model": None}, "name one with --model"),
        ("api", {**LOCAL, "lessons": Path("no/such/folder/lessons.md")}, "--lessons: .*is no folder"),
    ],
)
def test_an_option_that_an_agent_does_not_take_is_named(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        registry.make(name, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--seed", "1", "--agent-set", "seed=2"], "--agent-set seed: it has its own option, use --seed"),
        (["--agent-set", "max_cost=5"], "--agent-set max_cost: it has its own option, use --max-cost"),
        (["--agent-set", "name=foo"], "agent search takes no --name"),
        (["--agent-set", "a=1", "--agent-set", "a=2"], "--agent-set a: it was given twice, as '1' and '2'"),
        (["--agent-set", "a"], "--agent-set: expected KEY=VALUE, not 'a'"),
    ],
)
def test_a_wrong_agent_set_is_told_in_a_line(tmp_path: Path, given: list[str], said: str) -> None:
    assert said in call("run", tmp_path / "night", *given, code=2).err
    assert not (tmp_path / "night").exists()


def test_without_a_key_one_line_says_what_works_and_nothing_is_made(tmp_path: Path) -> None:
    answer = call("run", tmp_path / "night", "--preset", "numpy", "--agent", "api", code=2)
    (line,) = answer.err.strip().splitlines()
    for part in (
        "ANTHROPIC_API_KEY",
        "--agent search",
        "--agent command",
        "--provider openai --endpoint http://localhost",
    ):
        assert part in line
    assert not (tmp_path / "night").exists()


def test_a_thinker_alone_has_the_search_as_its_stand_in() -> None:
    made = registry.make("api", seed=3, **LOCAL)
    assert isinstance(made, Hybrid) and made.name == "api:small"
    assert isinstance(registry.thinker("api", **LOCAL), ApiAgent)
    assert isinstance(registry.make("search", seed=1), SearchAgent)


class Eager(Agent):
    """Somebody else's agent."""

    name = "eager"

    def __init__(self, pace: str = "slow") -> None:
        self.pace = pace

    def propose(self, history: History) -> Proposal | None:
        return None


def _load(point: EntryPoint) -> Any:
    if point.name == "gone":
        raise ModuleNotFoundError("No module named 'no_such_module'")
    return Eager


def test_other_peoples_agents_are_found_by_entry_point_and_get_their_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [EntryPoint(name, f"no_such_module:{name}", registry.GROUP) for name in ("eager", "gone")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", _load)
    assert {"search", "api", "command", "hybrid", "replay", "eager", "gone"} == set(registry.names())
    agent = registry.make("eager", pace="fast")
    assert isinstance(agent, Eager) and agent.pace == "fast"
    with pytest.raises(UserError, match=r"agent gone: no_such_module:gone can't be loaded: No module named"):
        registry.make("gone")
    with pytest.raises(UserError, match="agent eager takes no --model; it takes --pace"):
        registry.make("eager", model="x")


def test_hybrid_takes_a_coding_agent_where_a_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def thinker(name: str, **options: Any) -> Agent:
        asked.append(name)
        return Eager()

    monkeypatch.setattr(registry, "thinker", thinker)
    assert isinstance(registry.make("hybrid", command="true"), Hybrid)
    assert isinstance(registry.make("hybrid", model="x"), Hybrid)
    assert asked == ["command", "api"]
