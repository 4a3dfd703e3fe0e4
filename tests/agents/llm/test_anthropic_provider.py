"""Claude through the real SDK, against a loopback server that checks, counts and misbehaves as the service does."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import messages_server as served
import pytest
from messages_server import Answer, MessagesServer, serving, text, thinking, tool

from core.agents.llm.anthropic_provider import AnthropicProvider
from core.agents.llm.base import Delta, Outage, Reply, Request, Tool, Usage
from core.records import UserError

READ = Tool(
    name="read",
    description="Reads the trainer.",
    schema={"type": "object", "properties": {"line": {"type": "integer"}}},
)


def asked(*messages: dict[str, Any], system: str = "You train models.", max_tokens: int = 4000) -> Request:
    return Request(system=system, tools=(READ,), messages=messages or (said("go"),), max_tokens=max_tokens)


def said(what: str) -> dict[str, Any]:
    return {"role": "user", "content": [text(what)]}


def results(reply: Reply, content: str = "ok") -> dict[str, Any]:
    calls = [block["id"] for block in reply.content if block["type"] == "tool_use"]
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call, "content": content} for call in calls],
    }


def answered(reply: Reply) -> dict[str, Any]:
    return {"role": "assistant", "content": list(reply.content)}


def ignore(delta: Delta) -> None:
    pass


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with serving(lambda request: [text("fine")]) as one:
        yield one


@pytest.fixture
def connect() -> Iterator[Callable[..., AnthropicProvider]]:
    made: list[AnthropicProvider] = []

    def connected(server: MessagesServer, **settings: Any) -> AnthropicProvider:
        settings = {"model": "claude-opus-5-5", "key": served.KEY, "endpoint": server.url, **settings}
        made.append(AnthropicProvider(**settings))
        return made[-1]

    yield connected
    for one in made:
        one.close()


def test_an_answer_streams_in_pieces_and_arrives_whole(server: MessagesServer, connect: Any) -> None:
    said_all = "All work and no play. " * 40
    server.answer = lambda request: [thinking("Hm. " * 50), text(said_all), tool("read", {"line": 7, "why": "é\n"})]
    deltas: list[Delta] = []
    reply = connect(server).reply(asked(), deltas.append)
    assert [block["type"] for block in reply.content] == ["thinking", "text", "tool_use"]
    assert reply.content[1] == {"type": "text", "text": said_all}
    assert reply.content[2]["name"] == "read" and reply.content[2]["input"] == {"line": 7, "why": "é\n"}
    assert reply.stop_reason == "tool_use" and reply.model == "claude-opus-5-5"
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == said_all
    assert len([delta for delta in deltas if delta.kind == "text"]) > 5
    assert [delta.text for delta in deltas if delta.kind == "tool"] == ["read"]
    assert json.loads("".join(delta.text for delta in deltas if delta.kind == "input")) == {"line": 7, "why": "é\n"}


def test_thinking_goes_back_as_it_came(server: MessagesServer, connect: Any) -> None:
    turns = iter([[thinking("I should look."), tool("read", {})], [text("done")]])
    server.answer = lambda request: next(turns)
    provider = connect(server)
    first = provider.reply(asked(), ignore)
    second = provider.reply(asked(said("go"), answered(first), results(first)), ignore)
    assert second.content == ({"type": "text", "text": "done"},)
    assert not server.refused

    changed = {"role": "assistant", "content": [{**first.content[0], "thinking": "I should not."}, *first.content[1:]]}
    with pytest.raises(UserError, match="Invalid `signature`"):
        provider.reply(asked(said("go"), changed, results(first)), ignore)
    with pytest.raises(UserError, match="must be passed back"):
        without = {"role": "assistant", "content": list(first.content[1:])}
        provider.reply(asked(said("go"), without, results(first)), ignore)


def test_a_conversation_is_read_from_the_cache(server: MessagesServer, connect: Any) -> None:
    server.answer = lambda request: [thinking("..."), tool("read", {})]
    provider = connect(server)
    messages = [said("A brief of what was tried. " * 400)]
    replies = []
    for turn in range(5):
        reply = provider.reply(asked(*messages, system="You train models. " * 300), ignore)
        replies.append(reply)
        messages += [answered(reply), results(reply, f"{turn} " * 300)]
    got = [
        {
            "input_tokens": reply.usage.input,
            "output_tokens": reply.usage.output,
            "cache_read_input_tokens": reply.usage.cache_read,
            "cache_creation_input_tokens": reply.usage.cache_write + reply.usage.cache_write_hour,
            "ephemeral_1h_input_tokens": reply.usage.cache_write_hour,
        }
        for reply in replies
    ]
    assert got == server.billed
    assert replies[0].usage.cache_write_hour > 1000 and replies[0].usage.cache_read == 0
    for before, reply in itertools.pairwise(replies):
        assert reply.usage.cache_read == before.usage.total - before.usage.output  # all that was sent before
        assert reply.usage.input == 0 and reply.usage.cache_write_hour == 0
    assert not server.refused


@pytest.mark.parametrize(
    ("answer", "reason", "seconds"),
    [
        (served.rate_limited(17), r"^rate limit \(429\)$", 17),
        (served.rate_limited(99_999_999), r"^rate limit \(429\)$", 3600),
        (served.rate_limited(), r"^rate limit \(429\)$", 0),
        (served.overloaded(), r"^the server is overloaded \(529\)$", 0),
        (served.server_error(500), r"^the server failed \(500\)$", 0),
        (served.server_error(502), r"can't be reached behind its gateway \(502\)$", 0),
        (served.cut(after=6), "^the answer was cut off$", 0),
        (Answer(blocks=(text("x" * 900),), end_after=6), "^the answer was cut off$", 0),
        (Answer(blocks=(text("x" * 900),), end_after=1), "^the answer was cut off$", 0),
        (served.overloaded_in_stream(), "^the server is overloaded, in the middle of its answer$", 0),
    ],
)
def test_what_may_pass_is_an_outage(
    server: MessagesServer, connect: Any, answer: Answer, reason: str, seconds: float
) -> None:
    server.faults[0] = answer
    provider = connect(server)
    with pytest.raises(Outage, match=reason) as raised:
        provider.reply(asked(), ignore)
    assert raised.value.seconds == seconds
    assert len(server.requests) == 1  # the SDK tried once
    if answer.status == 200:
        assert provider.so_far == Usage(input=server.billed[0]["input_tokens"], output=1)
    else:
        assert provider.so_far == Usage()
    assert provider.reply(asked(), ignore).content == ({"type": "text", "text": "fine"},)


def test_a_server_that_is_away_and_comes_back(server: MessagesServer, connect: Any) -> None:
    provider = connect(server)
    assert provider.reply(asked(), ignore).stop_reason == "end_turn"
    server.stop()
    for _ in range(2):
        with pytest.raises(Outage, match=f"^no connection to {server.url}: Connection refused$"):
            provider.reply(asked(), ignore)
    server.start()
    assert provider.reply(asked(), ignore).stop_reason == "end_turn"


def test_a_server_that_says_nothing(server: MessagesServer, connect: Any) -> None:
    server.faults[0] = Answer(stall=True)
    server.faults[1] = Answer(blocks=(text("x" * 900),), pause=2.0)
    provider = connect(server, timeout=0.3)
    with pytest.raises(Outage, match="^no answer from"):
        provider.reply(asked(), ignore)
    with pytest.raises(Outage, match=r"stopped for 0\.3 s|no answer from"):
        provider.reply(asked(), ignore)


@pytest.mark.parametrize("after", [1, 6])
def test_a_server_that_only_pings(server: MessagesServer, connect: Any, after: int) -> None:
    server.faults[0] = Answer(blocks=(text("x" * 900),), pings_after=after)
    provider = connect(server, timeout=0.5)
    with pytest.raises(Outage, match=r"stopped for 0\.5 s"):
        provider.reply(asked(), ignore)
    assert provider.reply(asked(), ignore).content == ({"type": "text", "text": "fine"},)


def test_a_slow_answer_is_no_silence(server: MessagesServer, connect: Any) -> None:
    """It takes longer than the time-out altogether."""
    server.faults[0] = Answer(blocks=(text("x" * 600),), pause=0.15)
    assert connect(server, timeout=1.5).reply(asked(), ignore).content == ({"type": "text", "text": "x" * 600},)


@pytest.mark.parametrize(
    "instead",
    [
        {2: '{"type": "content_block_stop", "index": 0}'},  # deltas of a block that never began
        {3: "[]"},
        {3: "7"},
        {3: '{"type": "content_block_delta", "index": 0}'},
        {3: '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}'},
        {3: '{"type": "content_block_delta", "index": 9, "delta": {"type": "signature_delta", "signature": "s"}}'},
        {0: '{"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": "many"}}}'},
        {2: '{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t"}}'},
        {2: '{"type": "content_block_start", "index": [], "content_block": {"type": "text", "text": ""}}'},
        {5: '{"type": "message_delta"}'},
    ],
)
def test_an_event_that_makes_no_sense_is_an_outage(server: MessagesServer, connect: Any, instead: Any) -> None:
    server.faults[0] = Answer(blocks=(text("once"),), instead=instead)
    provider = connect(server)
    with pytest.raises(Outage, match="^the answer can't be read$"):
        provider.reply(asked(), ignore)
    assert provider.reply(asked(), ignore).content == ({"type": "text", "text": "fine"},)


def test_an_error_of_who_is_told_the_pieces_is_no_outage(server: MessagesServer, connect: Any) -> None:
    def fail(delta: Delta) -> None:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        connect(server).reply(asked(), fail)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=401, error="authentication_error"), "does not accept the key in ANTHROPIC_API_KEY"),
        (Answer(status=403, error="permission_error"), "does not let this key use claude-opus-5-5"),
        (Answer(status=404, error="not_found_error"), "knows no model claude-opus-5-5.*--model.*--endpoint"),
        (
            Answer(blocks=(text("Your credit balance is too low"),), status=400, error="invalid_request_error"),
            "add credit",
        ),
        (Answer(blocks=(text("tools: bad"),), status=400, error="invalid_request_error"), r"\(400\): tools: bad$"),
    ],
)
def test_what_a_person_has_to_mend(server: MessagesServer, connect: Any, answer: Answer, message: str) -> None:
    server.faults[0] = answer
    with pytest.raises(UserError, match=message) as raised:
        connect(server).reply(asked(), ignore)
    assert "\n" not in str(raised.value) and served.KEY not in str(raised.value)


def test_a_wrong_key_is_not_shown(server: MessagesServer, connect: Any) -> None:
    with pytest.raises(UserError, match="does not accept the key") as raised:
        connect(server, key="sk-ant-wrong").reply(asked(), ignore)
    assert "sk-ant-wrong" not in str(raised.value)
    with pytest.raises(UserError, match="key in ANTHROPIC_AUTH_TOKEN"):
        connect(server, key=None, token="wrong").reply(asked(), ignore)
    assert connect(server, key=None, token=served.KEY).reply(asked(), ignore).stop_reason == "end_turn"


def test_ends_that_are_no_faults(server: MessagesServer, connect: Any) -> None:
    too_long = "prompt is too long: 1,200,000 tokens > 1,000,000 maximum"
    server.faults = {
        0: served.refusal("frontier_llm"),
        1: served.out_of_tokens(),
        2: served.context_full(),
        3: Answer(blocks=(text(too_long),), status=400, error="invalid_request_error"),
        4: Answer(status=413, error="request_too_large"),
    }
    provider = connect(server)
    replies = [provider.reply(asked(), ignore) for _ in range(5)]
    assert [reply.stop_reason for reply in replies] == [
        "refusal",
        "max_tokens",
        "context_full",
        "context_full",
        "context_full",
    ]
    assert replies[0].content == () and replies[0].detail == "frontier_llm"
    assert replies[3].usage == Usage()


@pytest.mark.parametrize("raw", ['{"line": ', '{"line": 7}}', "[1, 2]", '{"line": "\\x"}', '"' * 9, "[" * 100_000])
def test_a_malformed_tool_input_is_handed_on_as_it_came(server: MessagesServer, connect: Any, raw: str) -> None:
    server.faults[0] = Answer(blocks=(tool("read", raw),))
    server.piece = 10_000
    provider = connect(server)
    reply = provider.reply(asked(), ignore)
    assert reply.content[0]["input"] == raw and reply.stop_reason == "tool_use"
    provider.reply(asked(said("go"), answered(reply), results(reply, "that was no JSON")), ignore)
    assert server.requests[1]["messages"][1]["content"][0]["input"] == {"INVALID_JSON": raw}
    assert not server.refused


def test_an_answer_of_two_megabytes(server: MessagesServer, connect: Any) -> None:
    whole = "0123456789abcdef" * 131_072
    server.answer = lambda request: [text(whole), tool("read", {"line": whole})]
    server.piece = 500
    reply = connect(server).reply(asked(), ignore)
    assert reply.content[0]["text"] == whole and reply.content[1]["input"] == {"line": whole}


@pytest.mark.parametrize(
    ("model", "settings", "sent"),
    [
        ("claude-opus-5-5", {}, {"thinking": {"type": "adaptive", "display": "summarized"}}),
        (
            "claude-fable-5-2",
            {"effort": "xhigh"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
        ),
        (
            "claude-haiku-4-5-20251001",
            {"thinking_budget": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"}},
        ),
        ("claude-haiku-4-5", {"thinking_budget": 9000}, {"thinking": {"budget_tokens": 3999}}),
        ("claude-sonnet-4-5", {}, {}),
        ("claude-opus-4-5-20251101", {"effort": "high"}, {"output_config": {"effort": "high"}}),
        ("qwen4-coder", {}, {}),
    ],
)
@pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-5' is deprecated:DeprecationWarning")
def test_each_model_is_told_to_think_in_its_own_way(
    server: MessagesServer, connect: Any, model: str, settings: dict[str, Any], sent: dict[str, Any]
) -> None:
    connect(server, model=model, **settings).reply(asked(), ignore)
    request = server.requests[0]
    assert {"thinking", "output_config"} & set(request) == set(sent)
    for name, value in sent.items():
        assert request[name].items() >= value.items()
    assert not server.refused


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("claude-opus-5-5", {"thinking_budget": 4000}, "set the effort"),
        ("claude-haiku-4-5", {"effort": "high"}, "set a thinking budget"),
        ("claude-opus-4-6", {"effort": "xhigh"}, "it takes low, medium, high, max"),
        ("claude-haiku-4-5", {"thinking_budget": 100}, "1024 tokens or more"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_it_is_sent(
    server: MessagesServer, connect: Any, model: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        connect(server, model=model, **settings)


def test_an_address_with_another_kind_of_server(server: MessagesServer, connect: Any) -> None:
    server.faults[0] = Answer(page="<html>It works!</html>")
    with pytest.raises(UserError, match=f"{server.url} answers, but not as the Messages API does"):
        connect(server).reply(asked(), ignore)


def test_half_a_character_goes_there_and_back(server: MessagesServer, connect: Any) -> None:
    """JSON can hold one half of a surrogate pair, UTF-8 can't."""
    server.faults[0] = Answer(blocks=(text("\ud83d!"), tool("read", '{"line": "\\ud83d"}')))
    provider = connect(server)
    first = provider.reply(asked(), ignore)
    assert first.content[0]["text"] == "\ufffd!" and first.content[1]["input"] == {"line": "\ufffd"}
    provider.reply(asked(said("go"), answered(first), results(first, "\ud83d")), ignore)
    assert not server.refused


def test_empty_text_is_not_sent_back(server: MessagesServer, connect: Any) -> None:
    turns = iter([[text(""), tool("read", {})], [text("done")]])
    server.answer = lambda request: next(turns)
    provider = connect(server)
    first = provider.reply(asked(), ignore)
    provider.reply(asked(said("go"), answered(first), results(first)), ignore)
    assert [block["type"] for block in server.requests[1]["messages"][1]["content"]] == ["tool_use"]
