"""The archive of requests and replies: what comes back, what it sums to, and what a kill leaves."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.agents.llm.archive import Archive, Exchange, Spending
from core.agents.llm.base import Reply, Request, Tool, Usage
from core.records import UserError

READ = Tool(name="read", description="Reads.", schema={"type": "object"})


def message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def request(*messages: dict[str, Any], system: str = "You train models.") -> Request:
    return Request(system=system, tools=(READ,), messages=messages, max_tokens=1000)


def reply(text: str, usage: Usage) -> Reply:
    return Reply(content=({"type": "text", "text": text},), stop_reason="end_turn", usage=usage, model="claude")


def record(archive: Archive, asked: Request, answer: Reply | None = None, **fields: Any) -> int:
    usage = answer.usage if answer else Usage()
    values: dict[str, Any] = dict(
        experiment=1,
        provider="anthropic",
        model="claude",
        request=asked,
        reply=answer,
        usage=usage,
        usd=None,
        outcome="replied" if answer else "outage",
        detail="" if answer else "overloaded",
        started="2026-11-25T03:00:00+00:00",
        seconds=1.5,
    )
    return archive.record(Exchange(**{**values, **fields}))


def test_what_went_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True)
    first = request(message("user", "go"))
    usage = Usage(input=10, output=20, cache_read=30, cache_write=40, cache_write_hour=50)
    answer = reply("fine", usage)
    assert record(archive, first, answer, usd=Decimal("0.000000000001"), experiment=3) == 0
    second = request(message("user", "go"), message("assistant", "fine"), message("user", "on"))
    assert record(archive, second, experiment=4, detail="cut off", usage=Usage(input=7)) == 1
    archive.close()

    archive = Archive.open(path)
    stored = list(archive.exchanges())
    assert stored[0] == Exchange(
        number=0,
        experiment=3,
        provider="anthropic",
        model="claude",
        request=first,
        reply=answer,
        usage=usage,
        usd=Decimal("0.000000000001"),
        outcome="replied",
        detail="",
        started="2026-11-25T03:00:00+00:00",
        seconds=1.5,
    )
    assert (stored[1].request, stored[1].reply, stored[1].detail) == (second, None, "cut off")
    assert list(archive.exchanges(4)) == stored[1:]
    with pytest.raises(UserError, match="none with number 2"):
        archive.exchange(2)
    archive.close()


def test_sums_are_exact_of_all_and_of_one_experiment(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "exchanges.db", create=True)
    assert archive.totals() == Spending(requests=0, failed=0, usage=Usage(), usd=Decimal(0), unpriced=0)
    asked = request(message("user", "go"))
    for number in range(30):
        usage = Usage(input=number, output=2)
        record(archive, asked, reply("a", usage), usd=Decimal("0.1") * number, experiment=number // 10)
    record(archive, asked, experiment=9)  # failed before anything was used
    record(archive, asked, reply("b", Usage(output=5)), experiment=9)  # with no known price
    assert archive.totals() == Spending(
        requests=32, failed=1, usage=Usage(input=435, output=65), usd=Decimal("43.5"), unpriced=1
    )
    assert archive.totals(9).usage == Usage(output=5)
    assert archive.totals(1).usd == Decimal("14.5")
    assert archive.totals(77).requests == 0
    archive.close()


def test_a_conversation_is_stored_once(tmp_path: Path) -> None:
    """Fifty requests that each repeat the one before: their text would be 50 times as long."""
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True)
    noise = random.Random(5)
    messages = []
    for turn in range(50):
        messages.append(message("user", "".join(noise.choices("0123456789abcdef", k=8000)) + str(turn)))
        record(archive, request(*messages, system="s" * 20_000), reply("ok", Usage(input=1)))
    assert archive.exchange(49).request.messages == tuple(messages)
    archive.close()
    written = sum(len(json.dumps(one)) for one in messages)
    assert path.stat().st_size < written


def test_nothing_is_changed_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True)
    record(archive, request(message("user", "go")), reply("a", Usage(input=1)))
    archive.close()
    connection = sqlite3.connect(path)
    for table in ("texts", "messages", "exchanges", "bodies"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(f"DELETE FROM {table}")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE exchanges SET cost = 0")
    connection.close()


def test_texts_are_redacted_before_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True, redact=lambda text: text.replace("secret", "[key]"))
    asked = request(message("user", "the secret"), system="a secret")
    record(archive, asked, reply("secret", Usage()), detail="secret")
    stored = archive.exchange(0)
    assert stored.request.system == "a [key]" and stored.detail == "[key]"
    assert stored.reply is not None and stored.reply.content[0]["text"] == "[key]"
    archive.close()


def test_a_reader_beside_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        reader = Archive.open(path)
        while not done.is_set():
            seen.append(reader.totals().requests)
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(20):
        record(archive, request(message("user", str(turn))), reply("a", Usage(input=1)))
    done.set()
    thread.join()
    assert seen == sorted(seen) and archive.totals().requests == 20
    archive.close()


KILLED = """
import sys
from pathlib import Path
from core.agents.llm.archive import Archive, Exchange
from core.agents.llm.base import Request, Usage
archive = Archive.open(Path(sys.argv[1]), create=True)
print("open", flush=True)
text = "x" * 50_000
while True:
    number = archive.count()
    messages = tuple({"role": "user", "content": [{"type": "text", "text": f"{text}{n}"}]} for n in range(number + 1))
    archive.record(Exchange(
        experiment=1, provider="p", model="m", request=Request(system="", tools=(), messages=messages, max_tokens=1),
        reply=None, usage=Usage(input=1), usd=None, outcome="outage", detail="", started="", seconds=0.0,
    ))
    print(number, flush=True)
"""


def test_a_kill_loses_at_most_the_row_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    got = 0
    for after in (1, 3, 5):
        command = [sys.executable, "-P", "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            for _ in range(after):
                got = int(process.stdout.readline()) + 1
            process.kill()
            got = max([got, *(int(line) + 1 for line in process.stdout.read().split("\n")[:-1])])
        archive = Archive.open(path)
        assert archive.count() in {got, got + 1}  # one may have been written and not yet reported
        for exchange in archive.exchanges():
            assert len(exchange.request.messages) == exchange.number + 1
        archive.close()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none"):
        Archive.open(tmp_path / "missing.db")
    (tmp_path / "text.db").write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        Archive.open(tmp_path / "text.db", create=True)
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE a (b)")
    connection.close()
    with pytest.raises(UserError, match="of another application"):
        Archive.open(tmp_path / "other.db", create=True)
    (tmp_path / "empty.db").touch()  # what a kill leaves before the first transaction
    Archive.open(tmp_path / "empty.db", create=True).close()


texts = st.text(st.characters(codec=None), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
blocks = st.dictionaries(texts, values, max_size=3)
conversations = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.lists(blocks, max_size=2)}),
    max_size=4,
)


def test_a_damaged_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.db"
    archive = Archive.open(path, create=True)
    record(archive, request(message("user", "go")), reply("fine", Usage(input=1)))
    archive.close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TRIGGER messages_no_update; UPDATE messages SET content = x'00'")
    connection.close()
    archive = Archive.open(path)
    with pytest.raises(UserError, match=r"exchanges\.db is damaged: .*restore it from a copy"):
        archive.exchange(0)
    archive.close()


@settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(conversations, texts, st.lists(blocks, max_size=2), st.integers(0, 10**17))
def test_any_exchange_comes_back_as_it_was(
    tmp_path: Path, turns: list[dict[str, Any]], system: str, content: list[dict[str, Any]], cost: int
) -> None:
    archive = Archive.open(tmp_path / "exchanges.db", create=True)
    asked = request(*turns, system=system)
    usage = Usage(input=cost % 1000)
    answer = Reply(content=tuple(content), stop_reason="refusal", usage=usage, model="m", detail=system)
    usd = Decimal(cost) / 10**12
    stored = archive.exchange(record(archive, asked, answer, usd=usd))
    assert (stored.request, stored.reply, stored.usd) == (asked, answer, usd)
    archive.close()
