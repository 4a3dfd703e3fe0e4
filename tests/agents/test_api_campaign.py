"""Whole campaigns of the api agent, through the real SDK against a loopback server that fails in every way it can."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import completions_server
import pytest
from campaigns import ScriptedEngine, a_campaign, events_of, facts_of
from completions_server import Completion
from messages_server import (
    KEY,
    Answer,
    MessagesServer,
    context_full,
    cut,
    out_of_tokens,
    overloaded,
    overloaded_in_stream,
    rate_limited,
    refusal,
    server_error,
    text,
    tool,
)
from served_model import NUMBER, SCORE, Planner, billed, exchanges, files_with_the_key

from core.agents import registry
from core.agents.hybrid import Hybrid
from core.agents.llm import prices
from core.agents.search.agent import SearchAgent
from core.campaign.campaign import Campaign
from core.events import Notice, Stopped, Working
from core.records import Trial, UserError

# keep, discard, crash, keep, invalid, discard, keep, ... each on the champion of its time
PLAN = (-0.1, 0.05, "crash", -0.2, "cheat", 0.01, -0.05, 0.2)
VERDICTS = ["keep", "keep", "discard", "crash", "keep", "invalid", "discard", "keep", "discard"]
SCORES = [2.0, 1.9, 1.95, None, 1.7, None, 1.71, 1.65, 1.85]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setattr("core.agents.llm.client._BACKOFF", 0.01)
    server = MessagesServer(Planner(PLAN))
    server.start()
    yield server
    server.stop()


def run(campaign: Campaign, server: MessagesServer, count: int, **options: object) -> list[object]:
    told: list[object] = []
    agent = registry.make("api", endpoint=server.url, **options)
    campaign.run(agent, experiments=count, on_event=told.append)
    return told


FAULTS = {
    "429": {1: rate_limited(0.01), 4: rate_limited()},
    "529": {0: overloaded(), 1: overloaded(), 5: overloaded()},
    "500": {2: server_error(), 7: server_error(503)},
    "a cut stream": {0: cut(), 3: cut(after=1), 8: cut(tool("edit", {"old": "SCORE", "new": "x" * 900}), after=9)},
    "an error in the stream": {1: overloaded_in_stream()},
    "malformed tool input": {
        1: Answer(blocks=(tool("edit", '{"old": "SCORE = 2.0", "new": "SC'),)),
        5: Answer(blocks=(tool("edit", '["a list"]'), tool("edit", {"olde": 1}), tool("sudo", {}))),
    },
    "a refusal": {1: refusal(), 6: refusal()},
    "out of tokens": {0: out_of_tokens(), 5: out_of_tokens(tool("edit", '{"old": "SCO'))},
    "a full context": {1: context_full(), 5: context_full()},
    "no tool": {0: Answer(blocks=(text("What shall I do?"),)), 1: Answer(blocks=())},
    "a 2 MB answer": {1: Answer(blocks=(text("word " * 200_000), tool("edit", {"old": "x" * 1_000_000, "new": ""})))},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_campaign_ends_right_whatever_the_server_does(tmp_path: Path, server: MessagesServer, fault: str) -> None:
    server.faults = FAULTS[fault]
    server.piece = 10_000
    with a_campaign(tmp_path / "c") as campaign:
        told = run(campaign, server, 4)
        found = campaign.experiments()
        champion = campaign.champion
    assert [one.verdict for one in found] == VERDICTS[:5]
    assert [one.val_bpb for one in found] == SCORES[:5]
    assert champion.number == 4 and {one.agent for one in found[1:]} == {"api:claude-opus-5-5"}
    assert server.refused == []
    assert len(server.requests) > 12  # three a proposal, and what went wrong
    assert events_of(Stopped, told)[-1].reason == "4 experiments, the limit"
    assert files_with_the_key(tmp_path) == []
    assert len(exchanges(tmp_path / "c")) == len(server.requests)


def test_eight_verdicts_of_every_kind_with_their_cost_and_transcripts(tmp_path: Path, server: MessagesServer) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        run(campaign, server, 8)
        found = campaign.experiments()
        assert campaign.champion.number == 7
    assert [(one.verdict, one.val_bpb) for one in found] == list(zip(VERDICTS, SCORES, strict=True))
    assert found[1].hypothesis == "plan 1: -0.1"
    price = prices.known("claude-opus-5-5")
    assert price is not None
    counted = billed(server)
    recorded = exchanges(tmp_path / "c")
    assert [one.usage for one in recorded] == counted and len(counted) == 24
    assert sum((one.usd or Decimal(0) for one in recorded), Decimal(0)) == sum(map(price.cost, counted), Decimal(0)) > 0
    # A first request reads what all proposals share: system prompt, tools, and the block with program.md.
    shared = server.requests[3]["messages"][0]["content"][0]
    assert "# program.md" in shared["text"] and shared["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert counted[3].cache_read == counted[0].cache_write_hour > 2_000 and counted[3].cache_write_hour == 0
    # What was sent before is read from the cache: all but what a proposal's first request brings anew.
    assert sum(one.cache_read for one in counted) > 2 * sum(one.input + one.cache_write for one in counted)
    transcripts = sorted((tmp_path / "c" / ".git" / "autoresearch" / "agents" / "transcripts").glob("*.md"))
    assert [path.name for path in transcripts] == [f"{number:05d}.md" for number in range(1, 9)]
    first = transcripts[0].read_text(encoding="utf-8")
    for part in (
        "> What is there?",
        "I read the trainer.",
        "**→ read_trainer**",
        "**← read_trainer** result",
        "**→ propose**",
    ):
        assert part in first


def test_while_the_server_is_away_the_search_goes_on(
    tmp_path: Path, server: MessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.agents.llm.client.PATIENCE", 0.0)
    clock = SimpleNamespace(now=0.0)
    stops = {2: server.stop, 5: server.start}  # experiments in the middle of whose trial that happens

    class Engine(ScriptedEngine):
        def run_trial(self, spec, *named):  # type: ignore[no-untyped-def, override]
            stops.pop(int(spec.into.parent.name), lambda: None)()
            clock.now += 10.0
            return super().run_trial(spec, *named)

    with a_campaign(tmp_path / "c", engine=Engine()) as campaign:
        told: list[object] = []
        thinker = registry.thinker("api", endpoint=server.url)
        agent = Hybrid(thinker, SearchAgent(0), after_keep=0, after_rest=0, alone=False, clock=lambda: clock.now)
        campaign.run(agent, experiments=8, on_event=told.append)
        found = campaign.experiments()
    who = "".join("T" if one.agent.startswith("api:") else "s" for one in found[1:])
    assert who == "TTsssTTT"  # asked again after 30 s
    best = min(one.val_bpb for one in found if one.val_bpb is not None and one.verdict == "keep")
    assert [one for one in found if one.verdict == "keep"][-1].val_bpb == best
    notices = [event.text for event in events_of(Notice, told)]
    assert any("is away (no connection to" in notice for notice in notices)
    assert any("is back after" in notice for notice in notices)
    assert not stops and server.refused == []


def test_a_limit_on_cost_ends_the_run_before_it_is_passed(tmp_path: Path, server: MessagesServer) -> None:
    with a_campaign(tmp_path / "c", program="---\nmax_cost: 0.15\n---\nLower it.\n") as campaign:
        told = run(campaign, server, 100, max_cost=3.0)
        assert 0 < campaign.status().experiments < 100
    assert sum((one.usd or Decimal(0) for one in exchanges(tmp_path / "c")), Decimal(0)) <= Decimal("0.15")
    reason = events_of(Stopped, told)[-1].reason
    assert reason.startswith("api:claude-opus-5-5 may use no more: --max-cost 0.15: $0.")


def test_a_model_behind_chat_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.agents.llm.client._BACKOFF", 0.01)

    def answer(request: dict[str, Any]) -> Completion:
        written = [str(turn["content"]) for turn in request["messages"]]
        number = next(int(found[1]) for one in written if (found := NUMBER.search(one)))
        tools = [turn["content"] for turn in request["messages"] if turn["role"] == "tool"]
        seen = next((found for one in tools if (found := SCORE.search(one))), None)
        calls: tuple[tuple[str, dict[str, str]], ...]
        if any("replaced at" in one for one in tools):
            calls = (("propose", {"hypothesis": f"plan {number}"}),)
        elif seen is None:
            calls = (("read_trainer", {}), ("diff", {}))
        else:
            score = round(float(seen[1]) + float(PLAN[number - 1]), 6)
            calls = (("edit", {"old": f"SCORE = {seen[1]}  #", "new": f"SCORE = {score!r}  #"}),)
        return Completion(calls=tuple((name, json.dumps(given)) for name, given in calls), finish="tool_calls")

    faults = {
        1: Completion(calls=(("edit", '{"old": "SC'),), finish="tool_calls"),
        2: Completion(text="I would edit", finish="length"),
        3: Completion(text="Shall I?"),
        6: Completion(status=503),
        7: Completion(text="and then", cut_after=2),
    }
    with a_campaign(tmp_path / "c") as campaign, completions_server.serving(answer, faults=faults) as local:
        agent = registry.make("api", provider="openai", endpoint=local.url, model="small", price="0 0")
        campaign.run(agent, experiments=2)
        found = campaign.experiments()
    assert [(one.verdict, one.val_bpb, one.agent) for one in found[1:]] == [
        ("keep", 1.9, "api:small"),
        ("discard", 1.95, "api:small"),
    ]
    assert local.refused == [] and len(local.requests) == 11
    told = [str(turn["content"]) for turn in local.requests[4]["messages"]]
    assert any("edit: expected a JSON object" in one for one in told)
    assert any("cut off at 16000 tokens" in one for one in told)
    assert "Nothing happens without a tool" in told[-1]


# Run again with no network


def test_a_replay_needs_no_server_and_comes_to_the_same(tmp_path: Path, server: MessagesServer) -> None:
    server.faults = {1: overloaded(), 3: refusal(), 5: cut(), 9: Answer(blocks=(tool("edit", '{"old'),))}
    with a_campaign(tmp_path / "c") as campaign:
        run(campaign, server, 6)
        asked = len(server.requests)
        # Others propose too: by hand, and the search.
        (tmp_path / "c" / "train.py").write_text(campaign.trainer_text(campaign.champion.commit).replace("1.7", "1.6"))
        campaign.try_worktree("by hand")
        campaign.run(registry.make("search"), experiments=1)
        run(campaign, server, 1)
        first = facts_of(campaign)
    server.stop()
    with a_campaign(tmp_path / "again") as campaign:
        told: list[object] = []
        campaign.run(registry.make("replay", replay=tmp_path / "c"), on_event=told.append)
        assert facts_of(campaign) == first
    assert asked < len(server.requests) <= asked + 4
    assert events_of(Notice, told) == []
    assert "replay has nothing more to propose" in events_of(Stopped, told)[-1].reason


def test_a_campaign_that_was_interrupted_while_the_model_thought_goes_on_and_is_replayed(
    tmp_path: Path, server: MessagesServer
) -> None:
    def interrupting(event: object) -> None:
        if isinstance(event, Working) and event.what == "edits" and len(campaign.experiments()) == 2:
            raise KeyboardInterrupt

    with a_campaign(tmp_path / "c") as campaign:
        with pytest.raises(KeyboardInterrupt):
            campaign.run(registry.make("api", endpoint=server.url), experiments=3, on_event=interrupting)
        assert len(campaign.experiments()) == 2
        run(campaign, server, 2)
        first = facts_of(campaign)
    assert [one[3] for one in first] == VERDICTS[:4]
    server.stop()
    with a_campaign(tmp_path / "again") as campaign:
        told: list[object] = []
        replay = registry.make("replay", replay=tmp_path / "c")
        campaign.run(replay, experiments=2, on_event=told.append)
        campaign.run(registry.make("replay", replay=tmp_path / "c"), on_event=told.append)  # goes on where it was
        assert facts_of(campaign) == first
    assert events_of(Notice, told) == []


def test_a_replay_on_another_baseline_says_so_and_takes_recorded_trainers_where_edits_do_not_fit(
    tmp_path: Path, server: MessagesServer
) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        run(campaign, server, 3)
        recorded = [campaign.trainer_text(one.commit) for one in campaign.experiments()]
    server.stop()
    with a_campaign(tmp_path / "again", score=3.0) as campaign:
        told: list[object] = []
        campaign.run(registry.make("replay", replay=tmp_path / "c"), on_event=told.append)
        found = campaign.experiments()
        texts = [campaign.trainer_text(one.commit) for one in found]
    assert [one.verdict for one in found] == ["keep", "keep", "discard", "crash"]
    assert texts[1:3] == recorded[1:3]  # "SCORE = 2.0" is not in the other baseline
    notices = [event.text for event in events_of(Notice, told)]
    assert "the baseline's train.py is not that of" in notices[0]
    assert sum("requests are not those of the record" in notice for notice in notices) == 1
    assert any(notice.startswith("experiment 1 of") and "trainer is tried as it was" in notice for notice in notices)


def test_a_replay_with_other_scores_says_once_where_it_diverges(tmp_path: Path, server: MessagesServer) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        run(campaign, server, 2)
        assert [one.verdict for one in campaign.experiments()] == VERDICTS[:3]
        campaign.run(registry.make("search"), experiments=3)
    server.stop()

    def luck(shift: Callable[[Trial], float]) -> list[str]:
        def scored(into: Path, trial: Trial) -> Trial:
            assert trial.val_bpb is not None
            return replace(trial, val_bpb=trial.val_bpb + shift(trial))

        root = tmp_path / f"again{len(list(tmp_path.iterdir()))}"
        with a_campaign(root, engine=ScriptedEngine(record=scored)) as campaign:
            told: list[object] = []
            campaign.run(registry.make("replay", replay=tmp_path / "c"), experiments=4, on_event=told.append)
            return [event.text for event in events_of(Notice, told)]

    assert luck(lambda trial: 0.123456) == []  # other digits, the same verdicts and champions
    # Experiment 1 is kept no more.
    told = luck(lambda trial: 0.5 if trial.val_bpb == 1.9 else 0.0)
    (notice,) = [one for one in told if "diverges" in one]
    assert notice.startswith(f"from experiment 1 of {tmp_path / 'c'} on, this replay diverges from the record: discard")
    assert "and keep in the record" in notice


def test_a_replay_of_nothing_or_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        registry.make("replay", replay=tmp_path)
    with a_campaign(tmp_path / "c") as campaign:
        with pytest.raises(UserError, match="has no baseline yet"):
            registry.make("replay", replay=tmp_path / "c")
        campaign.run(registry.make("search"), experiments=0)
        with pytest.raises(UserError, match="can't be its own replay"):
            campaign.run(registry.make("replay", replay=tmp_path / "c"))
