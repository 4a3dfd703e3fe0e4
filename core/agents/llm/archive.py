"""Every request to a model and its reply, append-only, in SQLite; and the sums of what they used and cost.

The requests of a conversation repeat their beginning: each message is stored once, with a link to the one before it.
There is one writer, which holds the campaign's lock, and any number of readers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from core.agents.llm.base import Message, Reply, Request, Tool, Usage
from core.records import UserError
from core.store.sqlite import append_only, damaged, other_version, sqlite_as_user_error, transaction

FILE = "exchanges.db"
VERSION = 1
APPLICATION = 0x61727378  # "arsx"
COST = 10**12  # a cost is stored in whole picodollars: exact for whole tokens at a price of six decimals

Outcome = Literal["replied", "outage", "error", "interrupted"]

# Columns that have the names of fields: of an Exchange, and of its Usage.
_FACTS = ("number", "experiment", "provider", "model", "outcome", "detail", "started", "seconds")
_COUNTS = ("input", "output", "cache_read", "cache_write", "cache_write_hour")

# Rows are never changed or deleted. Numbers and texts are in separate tables, so that a sum reads few pages.
_TABLES = """
CREATE TABLE texts (digest BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE messages (digest BLOB PRIMARY KEY, follows BLOB, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE exchanges (
    number INTEGER PRIMARY KEY, experiment INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('replied', 'outage', 'error', 'interrupted')),
    input INTEGER NOT NULL, output INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    cache_write_hour INTEGER NOT NULL, cost INTEGER, started TEXT NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE bodies (
    number INTEGER PRIMARY KEY REFERENCES exchanges (number), system BLOB NOT NULL, tools BLOB NOT NULL,
    last_message BLOB, max_tokens INTEGER NOT NULL, reply BLOB, detail TEXT NOT NULL
);
CREATE INDEX exchanges_of_experiments ON exchanges (experiment, number);
CREATE TRIGGER exchanges_in_order BEFORE INSERT ON exchanges
    WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number) + 1, 0) FROM exchanges)
    BEGIN SELECT RAISE(ABORT, 'exchanges are numbered without a gap'); END;
"""
_SCHEMA = _TABLES + append_only("archive", "texts", "messages", "exchanges", "bodies")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request, and its reply or why there is none."""

    number: int = -1  # of its row; `Archive.record` chooses it
    experiment: int  # that the request helped to propose
    provider: str
    model: str
    request: Request
    reply: Reply | None
    usage: Usage  # of a failed one, what the server reported
    usd: Decimal | None  # None if no price is known
    outcome: Outcome
    detail: str  # why it failed
    started: str  # ISO 8601, UTC
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Sums over exchanges."""

    requests: int
    failed: int
    usage: Usage
    usd: Decimal
    unpriced: int  # requests that used tokens without a known price


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a whole campaign used, in US dollars and tokens. `unpriced` counts the requests whose price is not known."""

    usd: float
    usd_per_experiment: float | None
    usd_per_keep: float | None  # None while nothing was kept
    requests: int
    failed: int
    unpriced: int
    tokens: int
    output_tokens: int
    cache_read_tokens: int


class Archive:
    """An open archive. Methods raise UserError if the file is damaged or locked, or the disk is full.

    `redact` is applied to every text, as JSON, before it is written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, redact: Callable[[str], str]) -> None:
        self.path = path
        self._connection = connection
        self._redact = redact
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, redact: Callable[[str], str] = str, create: bool = False) -> Archive:
        """The archive at `path`. With `create`, a new one if there is none."""
        if not create and not path.exists():
            raise UserError(f"expected an archive of requests at {path}, and there is none")
        with sqlite_as_user_error(path):
            mode = "rwc" if create else "rw"  # rw falls back to reading if the file can't be written
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=30,
                check_same_thread=False,
            )
        archive = cls(path, connection, redact)
        try:
            archive._prepare(create)
        except BaseException:
            connection.close()
            raise
        return archive

    def _prepare(self, create: bool) -> None:
        with sqlite_as_user_error(self.path):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            application = self._connection.execute("PRAGMA application_id").fetchone()[0]
            empty = not self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if (version, application) == (0, 0) and empty and create:
                self._connection.executescript(
                    f"PRAGMA journal_mode = DELETE; BEGIN IMMEDIATE; {_SCHEMA}"
                    f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
                )
            elif (version, application) != (VERSION, APPLICATION):
                foreign = application != APPLICATION
                raise other_version(self.path, "an archive", VERSION, version, foreign=foreign)
            self._connection.execute("PRAGMA synchronous = EXTRA")

    def close(self) -> None:
        self._connection.close()

    # Writing

    def record(self, exchange: Exchange) -> int:
        """Write one exchange under the next number. Returns that number; the exchange is durable then."""
        cost = None if exchange.usd is None else int(exchange.usd * COST)
        if exchange.usd is not None and Decimal(cost or 0) / COST != exchange.usd:
            raise ValueError(f"{exchange.usd} has more decimals than are stored")
        request, reply = exchange.request, exchange.reply
        with self._lock, sqlite_as_user_error(self.path), transaction(self._connection):
            run = self._connection.execute
            number = int(run("SELECT COALESCE(MAX(number) + 1, 0) FROM exchanges").fetchone()[0])
            system = self._put_text(request.system)
            tools = self._put_text([asdict(tool) for tool in request.tools])
            last: bytes | None = None
            for message in request.messages:
                last = self._put_message(message, last)
            counts = (getattr(exchange.usage, name) for name in _COUNTS)
            run(
                f"INSERT INTO exchanges VALUES ({', '.join('?' * 13)})",
                (number, exchange.experiment, exchange.provider, exchange.model, exchange.outcome, *counts, cost,
                 exchange.started, exchange.seconds),
            )  # fmt: skip
            answer: bytes | None = None
            if reply is not None:
                stored = asdict(reply)
                del stored["usage"]  # the table `exchanges` has it
                answer = zlib.compress(self._plain(stored))
            run(
                "INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, system, tools, last, request.max_tokens, answer, self._redact(exchange.detail)),
            )
        return number

    def _put_text(self, value: Any) -> bytes:
        plain = self._plain(value)
        digest = hashlib.sha256(plain).digest()
        row = (digest, zlib.compress(plain))
        self._connection.execute("INSERT INTO texts VALUES (?, ?) ON CONFLICT DO NOTHING", row)
        return digest

    def _put_message(self, message: Message, follows: bytes | None) -> bytes:
        """Store a message unless it is there. Returns its digest, which covers all messages before it too."""
        plain = self._plain(message)
        digest = hashlib.sha256((follows or b"") + hashlib.sha256(plain).digest()).digest()
        known = self._connection.execute("SELECT 1 FROM messages WHERE digest = ?", (digest,)).fetchone()
        if not known:
            self._connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (digest, follows, zlib.compress(plain)))
        return digest

    def _plain(self, value: Any) -> bytes:
        # ASCII, because half a surrogate pair in a model's answer is not valid UTF-8.
        return self._redact(json.dumps(value, separators=(",", ":"))).encode("ascii")

    # Reading

    def count(self) -> int:
        """The number of exchanges, which is also the number of the next one."""
        return int(self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM exchanges")[0][0])

    def totals(self, experiment: int | None = None) -> Spending:
        """Sums over all exchanges, or over those about one experiment."""
        used = " + ".join(_COUNTS)
        sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in _COUNTS)
        where, values = _about(experiment)
        requests, failed, *counts, cost, unpriced = self._rows(
            f"SELECT COUNT(*), COUNT(*) FILTER (WHERE outcome != 'replied'), {sums}, COALESCE(SUM(cost), 0),"
            f" COUNT(*) FILTER (WHERE cost IS NULL AND {used} > 0) FROM exchanges {where}",
            values,
        )[0]
        usage = Usage(**dict(zip(_COUNTS, counts, strict=True)))
        return Spending(requests=requests, failed=failed, usage=usage, usd=Decimal(cost) / COST, unpriced=unpriced)

    def exchanges(self, experiment: int | None = None) -> Iterator[Exchange]:
        """All exchanges, or those about one experiment, in order and with their full texts."""
        where, values = _about(experiment)
        for (number,) in self._rows(f"SELECT number FROM exchanges {where} ORDER BY number", values):
            yield self.exchange(number)

    def exchange(self, number: int) -> Exchange:
        """The exchange with this number, with its full texts. UserError if there is none."""
        rows = self._rows(
            f"SELECT {', '.join((*_FACTS, *_COUNTS))}, cost, system, tools, last_message, max_tokens, reply"
            " FROM exchanges JOIN bodies USING (number) WHERE number = ?",
            (number,),
        )
        if not rows:
            raise UserError(f"{self.path} has {self.count()} exchanges, and none with number {number}")
        *row, cost, system, tools, last, most, answer = rows[0]
        usage = Usage(**dict(zip(_COUNTS, row[len(_FACTS) :], strict=True)))
        reply = None
        if answer is not None:
            stored = self._unpacked(answer)
            reply = Reply(**{**stored, "content": tuple(stored["content"])}, usage=usage)
        request = Request(
            system=self._text(system),
            tools=tuple(Tool(**tool) for tool in self._text(tools)),
            messages=tuple(self._conversation(last)),
            max_tokens=most,
        )
        usd = None if cost is None else Decimal(cost) / COST
        facts = dict(zip(_FACTS, row, strict=False))
        return Exchange(**facts, request=request, reply=reply, usage=usage, usd=usd)

    def _text(self, digest: bytes) -> Any:
        return self._unpacked(self._rows("SELECT content FROM texts WHERE digest = ?", (digest,))[0][0])

    def _conversation(self, last: bytes | None) -> list[Message]:
        rows = self._rows(
            "WITH RECURSIVE back (place, follows, content) AS ("
            " SELECT 0, follows, content FROM messages WHERE digest = ?"
            " UNION ALL SELECT place + 1, messages.follows, messages.content FROM messages"
            " JOIN back ON messages.digest = back.follows)"
            " SELECT content FROM back ORDER BY place DESC",
            (last,),
        )
        return [self._unpacked(row[0]) for row in rows]

    def _unpacked(self, content: bytes) -> Any:
        try:
            return json.loads(zlib.decompress(content))
        except (zlib.error, ValueError) as error:
            raise damaged(self.path, error) from None

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock, sqlite_as_user_error(self.path):
            return self._connection.execute(query, values).fetchall()


def spent(state: Path) -> Spending | None:
    """The sums of a campaign's requests; None if there were none."""
    path = state / FILE
    if not path.exists() or not path.stat().st_size:
        return None
    with closing(Archive.open(path)) as archive:
        found = archive.totals()
    return found if found.requests else None


def costs(state: Path, experiments: int, kept: int) -> Costs | None:
    """What the agents of a campaign spent on models; None if they asked none."""
    found = spent(state)
    if found is None:
        return None
    usd = float(found.usd)
    return Costs(
        usd=usd,
        usd_per_experiment=usd / experiments if experiments else None,
        usd_per_keep=usd / kept if kept else None,
        requests=found.requests,
        failed=found.failed,
        unpriced=found.unpriced,
        tokens=found.usage.total,
        output_tokens=found.usage.output,
        cache_read_tokens=found.usage.cache_read,
    )


def _about(experiment: int | None) -> tuple[str, tuple[int, ...]]:
    """A condition for queries, and its values."""
    return ("", ()) if experiment is None else ("WHERE experiment = ?", (experiment,))
