"""The replies of a recorded campaign, again and without a network."""

from pathlib import Path
from typing import Any

import pytest

from core.agents.llm.archive import Archive, Exchange
from core.agents.llm.base import Reply, Request, Tool, Usage
from core.agents.llm.replay import ReplayClient, difference
from core.records import UserError

READ = Tool(name="read", description="Reads.", schema={"type": "object"})


def asked(*texts: str, system: str = "You train models.", tools: tuple[Tool, ...] = (READ,)) -> Request:
    messages = tuple({"role": "user", "content": [{"type": "text", "text": text}]} for text in texts)
    return Request(system=system, tools=tools, messages=messages, max_tokens=1000)


def answer(text: str) -> Reply:
    return Reply(
        content=({"type": "text", "text": text},), stop_reason="end_turn", usage=Usage(input=3, output=4), model="m"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Experiment 1 with two replies and a failure between them, experiment 3 with one."""
    archive = Archive.open(tmp_path / "exchanges.db", create=True)
    rows: list[tuple[int, Request, Reply | None]] = [
        (1, asked("a"), answer("A")),
        (1, asked("a", "b"), None),
        (3, asked("x"), answer("X")),
        (1, asked("a", "b"), answer("B")),
    ]
    for experiment, request, reply in rows:
        archive.record(
            Exchange(
                experiment=experiment,
                provider="anthropic",
                model="m",
                request=request,
                reply=reply,
                usage=reply.usage if reply else Usage(),
                usd=None,
                outcome="replied" if reply else "outage",
                detail="",
                started="",
                seconds=0.0,
            )
        )
    archive.close()
    return tmp_path / "exchanges.db"


def test_replies_come_in_their_order_for_each_experiment(path: Path) -> None:
    got: list[Any] = []
    recorded = ReplayClient(Archive.open(path), lambda *difference: got.append(difference))
    assert recorded.ask(asked("a"), 1) == answer("A")
    assert recorded.ask(asked("x"), 3) == answer("X")
    assert recorded.ask(asked("a", "b"), 1) == answer("B")
    assert got == []
    recorded.close()


def test_a_conversation_that_was_begun_again_is_gone_through_once(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "exchanges.db", create=True)
    for place, request in enumerate([asked("a"), asked("a", "b"), asked("a"), asked("a", "B"), asked("a", "B", "c")]):
        archive.record(
            Exchange(
                experiment=7,
                provider="anthropic",
                model="m",
                request=request,
                reply=answer(str(place)),
                usage=Usage(),
                usd=None,
                outcome="replied",
                detail="",
                started="",
                seconds=0.0,
            )
        )
    recorded = ReplayClient(archive)
    asks = [asked("a"), asked("a", "B"), asked("a", "B", "c")]
    replies = [recorded.ask(request, 7) for request in asks]
    assert [reply.content[0]["text"] for reply in replies] == ["2", "3", "4"]
    recorded.close()


def test_another_request_gets_the_reply_and_the_difference_is_told(path: Path) -> None:
    got: list[tuple[int, str]] = []
    recorded = ReplayClient(Archive.open(path), lambda experiment, text: got.append((experiment, text)))
    assert recorded.ask(asked("a, changed"), 1) == answer("A")
    assert got[0][0] == 1 and got[0][1].startswith("request 1: message 1 was ") and "changed" in got[0][1]
    assert len(got[0][1]) < 200 and "\n" not in got[0][1]
    recorded.close()


def test_the_end_of_the_recording_is_told(path: Path) -> None:
    recorded = ReplayClient(Archive.open(path))
    recorded.ask(asked("x"), 3)
    with pytest.raises(UserError, match="holds 1 reply for experiment 3, and one more was asked for"):
        recorded.ask(asked("x"), 3)
    with pytest.raises(UserError, match="holds 0 replies for experiment 2"):
        recorded.ask(asked("x"), 2)
    recorded.close()


def test_the_first_difference_is_named() -> None:
    one = asked("a", "b")
    assert difference(one, asked("a", "b")) == ""
    assert "system prompt was 'You train models.', is 'You train cats.'" in difference(
        one, asked("a", "b", system="You train cats.")
    )
    other = Tool(name="write", description="", schema={})
    assert difference(one, asked("a", "b", tools=(other,))) == "the tools was 'read', is 'write'"
    changed = Tool(name="read", description="Else.", schema={})
    assert "description or schema" in difference(one, asked("a", "b", tools=(changed,)))
    assert difference(one, asked("a", "B")).startswith("message 2 was ")
    assert difference(asked("1.53 gain -0.01, 12 s"), asked("1.6 gain +0.2, 9.5 s")) == ""
    assert difference(asked("keep 1.53"), asked("discard 1.53")).startswith("message 1 was ")
    assert difference(one, asked("a")) == "2 messages were recorded, 1 are asked"
