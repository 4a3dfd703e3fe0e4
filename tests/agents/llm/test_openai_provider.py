"""Chat completions through the real SDK, against a loopback server."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from completions_server import Completion, CompletionsServer, serving, wrong
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.agents.llm.base import Delta, Outage, Request, Tool, Usage
from core.agents.llm.openai_provider import OpenAIProvider, messages
from core.records import UserError

READ = Tool(name="read", description="Reads.", schema={"type": "object", "properties": {}})


def said(what: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": what}]}


def asked(*turns: dict[str, Any]) -> Request:
    return Request(system="You train models.", tools=(READ,), messages=turns or (said("go"),), max_tokens=4000)


def ignore(delta: Delta) -> None:
    pass


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    with serving(lambda request: Completion(text="fine")) as one:
        yield one


@pytest.fixture
def connect() -> Iterator[Callable[..., OpenAIProvider]]:
    made: list[OpenAIProvider] = []

    def connected(server: CompletionsServer, **settings: Any) -> OpenAIProvider:
        made.append(OpenAIProvider(**{"model": "qwen4", "key": None, "endpoint": server.url, **settings}))
        return made[-1]

    yield connected
    for one in made:
        one.close()


def test_an_answer_streams_in_pieces_and_arrives_whole(server: CompletionsServer, connect: Any) -> None:
    server.cached = 11
    server.answer = lambda request: Completion(
        text="I will read it first. " * 5,
        reasoning="Let me think. " * 9,
        calls=(("read", '{"line": 7}'), ("read", "{}")),
        finish="tool_calls",
    )
    deltas: list[Delta] = []
    reply = connect(server, effort="high").reply(asked(), deltas.append)
    assert [block["type"] for block in reply.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["input"] for block in reply.content[2:]] == [{"line": 7}, {}]
    assert reply.stop_reason == "tool_use" and reply.model == "qwen4"
    billed = server.billed[0]
    assert reply.usage == Usage(input=billed["prompt_tokens"] - 11, output=billed["completion_tokens"], cache_read=11)
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == "I will read it first. " * 5
    assert "".join(delta.text for delta in deltas if delta.kind == "thinking") == "Let me think. " * 9
    assert [delta.text for delta in deltas if delta.kind == "tool"] == ["read", "read"]
    request = server.requests[0]
    assert request["max_tokens"] == 4000 and request["reasoning_effort"] == "high"
    assert request["messages"][0] == {"role": "system", "content": "You train models."}
    assert request["tools"][0]["function"]["parameters"] == READ.schema


def test_a_conversation_with_tools(server: CompletionsServer, connect: Any) -> None:
    turns = iter(
        [
            Completion(reasoning="Hm.", calls=(("read", '{"a": 1}'), ("read", '{"a": ')), one_number=True),
            Completion(text="done"),
        ]
    )
    server.answer = lambda request: next(turns)
    provider = connect(server)
    first = provider.reply(asked(), ignore)
    assert first.stop_reason == "tool_use"  # though the server said stop
    calls = [block for block in first.content if block["type"] == "tool_use"]
    assert [block["input"] for block in calls] == [{"a": 1}, '{"a": ']
    results = [
        {"type": "tool_result", "tool_use_id": calls[0]["id"], "content": "line 1"},
        {"type": "tool_result", "tool_use_id": calls[1]["id"], "content": "no JSON", "is_error": True},
        {"type": "text", "text": "go on"},
    ]
    second = provider.reply(
        asked(said("go"), {"role": "assistant", "content": list(first.content)}, {"role": "user", "content": results}),
        ignore,
    )
    assert second.content == ({"type": "text", "text": "done"},) and not server.refused
    sent = server.requests[1]["messages"]
    assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert sent[2]["tool_calls"][1]["function"]["arguments"] == '{"a": '
    assert sent[4]["content"] == "Error: no JSON"


@pytest.mark.parametrize(
    ("answer", "reason", "seconds"),
    [
        (Completion(status=429, headers={"retry-after": "3"}), "rate limit", 3),
        (Completion(status=500), "the server failed", 0),
        (Completion(status=503), "unavailable", 0),
        (Completion(text="x" * 400, cut_after=5), "cut off", 0),
        (Completion(text="x" * 400, error_after=5), "in the middle", 0),
        (Completion(text="x" * 400, finish=None), "cut off", 0),
    ],
)
def test_what_may_pass_is_an_outage(
    server: CompletionsServer, connect: Any, answer: Completion, reason: str, seconds: float
) -> None:
    server.faults[0] = answer
    provider = connect(server)
    with pytest.raises(Outage, match=reason) as raised:
        provider.reply(asked(), ignore)
    assert raised.value.seconds == seconds and len(server.requests) == 1
    assert provider.reply(asked(), ignore).stop_reason == "end_turn"


def test_a_server_that_only_sends_comments(server: CompletionsServer, connect: Any) -> None:
    server.faults[0] = Completion(text="x" * 400, comments_after=5)
    provider = connect(server, timeout=0.5)
    with pytest.raises(Outage, match=r"stopped for 0\.5 s"):
        provider.reply(asked(), ignore)
    assert provider.reply(asked(), ignore).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "data",
    [
        "[]",
        "7",
        '{"choices": 7}',
        '{"choices": [{"delta": 7}]}',
        '{"choices": [{"delta": {"tool_calls": [{"index": "x", "function": {"name": "read"}}]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": 7}}]}}]}',
        '{"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": 1}}',
    ],
)
def test_a_chunk_that_makes_no_sense_is_an_outage(server: CompletionsServer, connect: Any, data: str) -> None:
    server.faults[0] = Completion(text="fine", instead={1: data})
    provider = connect(server)
    with pytest.raises(Outage, match="^the answer can't be read$"):
        provider.reply(asked(), ignore)
    assert provider.reply(asked(), ignore).stop_reason == "end_turn"


def test_what_a_person_has_to_mend(server: CompletionsServer, connect: Any) -> None:
    server.key = "sk-right"
    with pytest.raises(UserError, match="does not accept the key in OPENAI_API_KEY") as raised:
        connect(server, key="sk-wrong").reply(asked(), ignore)
    assert "sk-wrong" not in str(raised.value)
    server.faults = {
        1: Completion(status=404, error={"message": "model 'qwen4' not found"}),
        2: Completion(status=429, error={"message": "You exceeded it", "code": "insufficient_quota"}),
    }
    provider = connect(server, key="sk-right")
    with pytest.raises(UserError, match="model 'qwen4' not found; name another with --model"):
        provider.reply(asked(), ignore)
    with pytest.raises(UserError, match="add credit"):
        provider.reply(asked(), ignore)


def test_ends_that_are_no_faults(server: CompletionsServer, connect: Any) -> None:
    server.faults = {
        0: Completion(text="and so", finish="length"),
        1: Completion(refusal="I can't help with that."),
        2: Completion(finish="content_filter"),
        3: Completion(status=400, error={"message": "too long", "code": "context_length_exceeded"}),
        4: Completion(status=400, error={"message": "the request exceeds the available context size, try more"}),
        5: Completion(text="no count", usage=False),
    }
    provider = connect(server)
    replies = [provider.reply(asked(), ignore) for _ in range(6)]
    stops = [reply.stop_reason for reply in replies]
    assert stops == ["max_tokens", "refusal", "refusal", "context_full", "context_full", "end_turn"]
    assert replies[1].detail == "I can't help with that." and replies[5].usage == Usage()


def test_nobody_there(connect: Any) -> None:
    with serving(lambda request: Completion()) as gone:
        pass
    with pytest.raises(Outage, match="^no connection to"):
        connect(gone).reply(asked(), ignore)


texts = st.text(max_size=20)
inputs = st.one_of(texts, st.dictionaries(texts, st.one_of(st.integers(), texts, st.none()), max_size=3))


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [said("go")]
    for number in range(draw(st.integers(0, 4))):
        calls = [
            {"type": "tool_use", "id": f"{number}.{place}", "name": "read", "input": draw(inputs)}
            for place in range(draw(st.integers(0, 3)))
        ]
        spoken = [{"type": "text", "text": draw(texts)}] if draw(st.booleans()) else []
        turns.append({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, *spoken, *calls]})
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": draw(texts)} for call in calls]
        turns.append({"role": "user", "content": [*results, {"type": "text", "text": draw(texts)}]})
    return turns


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(conversations())
def test_every_conversation_is_translated_whole(turns: list[dict[str, Any]]) -> None:
    sent = messages(asked(*turns))
    assert wrong({"messages": sent}) == ""
    blocks = [block for turn in turns for block in turn["content"]]
    written = [call["function"]["arguments"] for turn in sent for call in turn.get("tool_calls", ())]
    called = [block["input"] for block in blocks if block["type"] == "tool_use"]
    assert [one if isinstance(one, str) else json.dumps(one) for one in called] == written
    results = [block["content"] for block in blocks if block["type"] == "tool_result"]
    assert results == [turn["content"] for turn in sent if turn["role"] == "tool"]
    spoken = "".join(block["text"] for block in blocks if block["type"] == "text")
    assert spoken == "".join(turn["content"] or "" for turn in sent if turn["role"] in {"user", "assistant"})
