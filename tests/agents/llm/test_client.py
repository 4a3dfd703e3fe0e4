"""A client before a server that fails in every way: what it waits for, spends and writes down."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import messages_server as served
import pytest
from messages_server import Answer, MessagesServer, serving, text, thinking, tool

from core.agents.llm import prices
from core.agents.llm.anthropic_provider import AnthropicProvider
from core.agents.llm.archive import Archive
from core.agents.llm.base import LimitReached, Outage, Reply, Request, TimeOver, Tool
from core.agents.llm.budget import SpendingBudget
from core.agents.llm.client import ApiClient
from core.agents.llm.redact import Redactor
from core.agents.llm.transcript import Transcript
from core.records import UserError

MODEL = "claude-opus-5-5"
READ = Tool(name="read", description="Reads.", schema={"type": "object"})


@dataclass
class OneClient:
    """A client with a clock of its own, and the lines about its waits."""

    client: ApiClient
    folder: Path
    waits: list[str]
    notices: list[str]
    slept: list[float] = field(default_factory=list)
    now: float = 0.0

    def everything(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with serving(lambda request: [text("fine")]) as one:
        yield one


@pytest.fixture
def client_of(tmp_path: Path, server: MessagesServer) -> Iterator[Callable[..., OneClient]]:
    made: list[OneClient] = []

    def make(**settings: Any) -> OneClient:
        redact = Redactor([served.KEY])
        provider = AnthropicProvider(
            model=MODEL, key=served.KEY, endpoint=server.url, timeout=settings.pop("timeout", 20.0)
        )
        archive = Archive.open(tmp_path / "exchanges.db", redact=redact, create=True)
        limits = {name: settings.pop(name, None) for name in ("max_usd", "max_tokens")}
        waits, notices = list[str](), list[str]()

        def sleep(seconds: float) -> None:
            one.slept.append(seconds)
            one.now += seconds

        client = ApiClient(
            provider,
            archive,
            Transcript(tmp_path / "transcripts", redact),
            redact,
            SpendingBudget(price=settings.pop("price", prices.known(MODEL)), **limits),
            on_wait=waits.append,
            on_notice=notices.append,
            clock=lambda: one.now,
            sleep=sleep,
            noise=random.Random(3),
            **settings,
        )
        one = OneClient(client, tmp_path, waits, notices)
        made.append(one)
        return one

    yield make
    for one in made:
        one.client.close()


def said(what: str) -> dict[str, Any]:
    return {"role": "user", "content": [text(what)]}


def asked(*turns: dict[str, Any], max_tokens: int = 4000) -> Request:
    return Request(
        system="You train models. " * 200, tools=(READ,), messages=turns or (said("go"),), max_tokens=max_tokens
    )


def billed(server: MessagesServer) -> Decimal:
    """What the server's own account comes to at the published price of the model, in USD."""
    return sum(map(in_usd, server.billed), Decimal(0))


def in_usd(usage: dict[str, int]) -> Decimal:
    """An answer's account."""
    hour = usage["ephemeral_1h_input_tokens"]
    total = Decimal(4 * usage["input_tokens"] + 20 * usage["output_tokens"] + 8 * hour)
    total += Decimal("0.2") * usage["cache_read_input_tokens"]
    total += 5 * (usage["cache_creation_input_tokens"] - hour)
    return total / 1_000_000


def converse(one: OneClient, turns: int, experiment: int = 1) -> list[Reply]:
    messages = [said("A brief. " * 500)]
    replies = []
    for _ in range(turns):
        reply = one.client.ask(asked(*messages), experiment)
        replies.append(reply)
        calls = [block for block in reply.content if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "line " * 50} for call in calls]
        messages += [{"role": "assistant", "content": list(reply.content)}, {"role": "user", "content": results}]
    return replies


def test_every_fault_in_one_conversation_ends_right_and_is_paid_to_the_cent(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    server.answer = lambda request: [thinking("Hm. " * 30), text("Look."), tool("read", {"line": len(request)})]
    server.faults = {
        1: served.rate_limited(2),
        2: served.overloaded(),
        4: served.server_error(),
        6: served.cut(text("0123456789" * 4000), after=9),
        7: served.overloaded_in_stream(after=4),
        9: Answer(blocks=(tool("read", '{"line": '),)),
        11: Answer(blocks=(text("0123456789abcdef" * 131_072), tool("read", {}))),
    }
    server.piece = 2000
    one = client_of()
    replies = converse(one, 8)
    assert [reply.stop_reason for reply in replies] == ["tool_use"] * 8 and not server.refused
    assert len(server.requests) == 13

    totals = one.client.archive.totals()
    assert (totals.requests, totals.failed, totals.unpriced) == (13, 5, 0)
    stored = list(one.client.archive.exchanges())
    begun = [exchange for exchange in stored if exchange.usage.total]
    broken = 0
    for exchange, got in zip(begun, server.billed, strict=True):
        assert exchange.usd is not None
        if exchange.reply is not None:
            assert (exchange.usd, exchange.usage.output) == (in_usd(got), got["output_tokens"])
        else:
            broken += 1
            assert exchange.usage.input == got["input_tokens"]
            assert in_usd(got) <= exchange.usd and got["output_tokens"] > 20  # the server reported one at most
            assert got["output_tokens"] <= exchange.usage.output <= 2 * got["output_tokens"] + 1
    assert broken == 2 and totals.usd == sum(exchange.usd or 0 for exchange in stored)
    assert [exchange.reply for exchange in stored if exchange.reply] == replies
    assert [exchange.outcome for exchange in stored].count("outage") == 5
    assert all(
        exchange.usage.input + exchange.usage.cache_read > 0 for exchange in stored[6:8]
    )  # broken off, and billed

    assert one.slept[0] == 2.0 and one.waits[0] == "rate limit (429); again in 2 s"
    assert len(one.waits) == 5 and "overloaded" in one.waits[1]
    assert one.notices == []  # it answered at once when the run began
    transcript = one.client.transcript.path(1).read_text(encoding="utf-8")
    for part in ("> Hm. Hm.", "**→ read** `line=", "*the answer was cut off", "*rate limit (429)", "*again in 2 s*"):
        assert part in transcript
    one.client.close()
    assert served.KEY.encode() not in one.everything()


def test_a_server_that_stays_away_is_an_outage_that_grows_and_is_over_with_the_first_answer(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    one = client_of()
    server.stop()
    seconds, attempts = [], list[int]()
    for _ in range(7):
        begun = one.now
        with pytest.raises(Outage, match="no connection to") as raised:
            one.client.ask(asked(), 1)
        assert one.now - begun <= 20
        seconds.append(raised.value.seconds)
        attempts.append(one.client.archive.count() - sum(attempts))
    assert seconds == [30, 60, 120, 240, 480, 600, 600]
    assert len(one.notices) == attempts[0] - 1 and "Connection refused; again" in one.notices[0]
    assert attempts[0] >= 4 and attempts[1:] == [1] * 6  # from the second on nobody waits for it
    assert len(one.slept) == attempts[0] - 1
    assert all(0.5 * 2**place <= wait <= 2**place for place, wait in enumerate(one.slept[:4]))
    assert all(wait <= 8 for wait in one.slept)
    server.start()
    assert one.client.ask(asked(), 1).stop_reason == "end_turn"
    server.stop()
    with pytest.raises(Outage) as raised:
        one.client.ask(asked(), 1)
    assert raised.value.seconds == 30
    assert one.client.archive.totals().usd == billed(server)


def test_a_server_that_asks_for_an_hour_is_an_outage_at_once(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    server.faults[0] = served.rate_limited(3600)
    one = client_of()
    with pytest.raises(Outage, match="rate limit") as raised:
        one.client.ask(asked(), 1)
    assert raised.value.seconds == 3600 and one.slept == [] and len(server.requests) == 1


def test_a_server_that_was_silent_for_long_is_not_asked_again_at_once(
    server: MessagesServer, client_of: Callable[..., OneClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence counts as waiting."""
    one = client_of()

    def silent(request: Request, on_delta: object) -> Reply:
        one.now += 300.0
        raise Outage("no answer", 0.0)

    monkeypatch.setattr(one.client._provider, "reply", silent)
    with pytest.raises(Outage, match="no answer"):
        one.client.ask(asked(), 1)
    assert one.now == 300.0 and one.slept == [] and one.client.archive.count() == 1


def test_an_answer_that_streams_when_the_run_is_over_is_cut_off(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    server.answer = lambda request: [text("word " * 2000)]
    left = iter([5.0, 3.0, 1.0])
    one = client_of(seconds_left=lambda: next(left, 0.0))
    with pytest.raises(TimeOver):
        one.client.ask(asked(), 1)
    stored = one.client.archive.exchange(0)
    assert (stored.outcome, stored.reply, stored.detail) == ("interrupted", None, "the run's time is over")
    assert stored.usage.output == 1 + 4 * server.piece // 2  # of the four pieces that came
    assert len(server.requests) == 1
    assert "*the run's time is over · " in one.client.transcript.path(1).read_text(encoding="utf-8")


def test_ends_that_are_answers(server: MessagesServer, client_of: Callable[..., OneClient]) -> None:
    server.faults = {0: served.refusal(), 1: served.out_of_tokens(), 2: served.context_full()}
    one = client_of()
    assert [one.client.ask(asked(), 1).stop_reason for _ in range(3)] == ["refusal", "max_tokens", "context_full"]
    assert one.client.archive.totals().failed == 0
    assert "refused: frontier_llm" in one.client.transcript.path(1).read_text(encoding="utf-8")


def test_what_a_person_has_to_mend_is_recorded_and_raised(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    server.faults[0] = Answer(
        blocks=(text(f"x-api-key: {served.KEY} is malformed"),), status=400, error="invalid_request_error"
    )
    one = client_of()
    with pytest.raises(UserError, match=r"x-api-key: \[key\] is malformed"):
        one.client.ask(asked(), 1)
    stored = one.client.archive.exchange(0)
    assert (stored.outcome, stored.reply) == ("error", None) and served.KEY not in stored.detail
    one.client.close()
    assert served.KEY.encode() not in one.everything()


def test_an_interrupt_in_the_middle_of_an_answer_is_recorded_with_what_it_cost(
    server: MessagesServer, client_of: Callable[..., OneClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = client_of()

    def interrupt(delta: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one.client.transcript, "delta", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one.client.ask(asked(), 1)
    stored = one.client.archive.exchange(0)
    assert (stored.outcome, stored.reply) == ("interrupted", None)
    assert stored.usage.input + stored.usage.cache_write_hour > 0
    assert stored.usage.output == 1 + math.ceil(len("fine") / 2)
    assert stored.usd == prices.known(MODEL).cost(stored.usage)  # type: ignore[union-attr]
    monkeypatch.undo()
    assert one.client.ask(asked(), 1).stop_reason == "end_turn"


def test_money_ends_before_it_is_spent(server: MessagesServer, client_of: Callable[..., OneClient]) -> None:
    server.answer = lambda request: [text("word " * (request["max_tokens"] * 4 // 5 - 40)), tool("read", {})]
    server.piece = 4000
    one = client_of(max_usd=Decimal("0.30"))
    with pytest.raises(LimitReached, match=r"--max-cost 0\.3: \$0\.2\d+ is spent"):
        converse(one, 100)
    asked_for = [request["max_tokens"] for request in server.requests]
    assert asked_for[0] == 4000 and asked_for[-1] < 4000  # the last one was cut to what was left
    assert Decimal("0.2") < billed(server) <= Decimal("0.30")
    assert one.client.archive.totals().usd == billed(server)


def test_tokens_end_before_they_are_used(server: MessagesServer, client_of: Callable[..., OneClient]) -> None:
    server.answer = lambda request: [text("word " * 500), tool("read", {})]
    one = client_of(max_tokens=20_000, price=None)
    with pytest.raises(LimitReached, match="--max-tokens 20,000"):
        converse(one, 100)
    totals = one.client.archive.totals()
    assert 10_000 < totals.usage.total <= 20_000
    assert totals.unpriced == totals.requests > 2


def test_answers_that_break_off_count_against_the_limit(
    server: MessagesServer, client_of: Callable[..., OneClient]
) -> None:
    """The server tells of one token of output, and has generated thousands."""
    server.faults = {number: served.cut(text("word " * 2000), after=150) for number in range(100)}
    one = client_of(max_tokens=20_000)
    reached = False
    for _ in range(20):
        try:
            one.client.ask(asked(), 1)
        except Outage:
            continue
        except LimitReached:
            reached = True
            break
    assert reached and len(server.requests) < 10
    assert 15_000 < one.client.archive.totals().usage.total <= 20_000  # what the archive holds is what was counted
