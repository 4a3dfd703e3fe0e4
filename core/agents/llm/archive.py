"""Every request to a model and its reply, append-only, in SQLite. Sums what they cost; interprets nothing.

A conversation repeats what came before: each message is stored once, after the one that it follows. One writer, as
the campaign's lock sees to it; readers at any time. A row is durable when `record` returns.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from core.agents.llm.base import Message, Reply, Request, Tool, Usage
from core.agents.llm.tables import APPLICATION, SCHEMA, VERSION
from core.records import UserError
from core.store.sqlite import damaged, other_version, told, transaction

FILE = "exchanges.db"
COST = 10**12  # a cost is stored as whole picodollars: what a price of six decimals makes of whole tokens

Outcome = Literal["replied", "outage", "error", "interrupted"]

_COUNTS = ("input", "output", "cache_read", "cache_write", "cache_write_hour")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and what came of it."""

    number: int
    experiment: int  # whose proposal was worked on
    provider: str
    model: str
    request: Request
    reply: Reply | None
    usage: Usage  # of a failed one, as far as the server told
    usd: Decimal | None  # None where no price is known
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
    unpriced: int  # requests that used tokens for which no price was known


class Archive:
    """An open archive. Methods raise UserError where the file is damaged, locked or the disk is full.

    `scrub` is applied to every text before it is written, as JSON.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, scrub: Callable[[str], str]) -> None:
        self.path = path
        self._connection = connection
        self._scrub = scrub
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, scrub: Callable[[str], str] = str, create: bool = False) -> Archive:
        """The archive at `path`; with `create` a new one if there is none."""
        if not create and not path.exists():
            raise UserError(f"expected an archive of requests at {path}, and there is none")
        with told(path):
            mode = "rwc" if create else "rw"  # rw falls back to reading where the file can't be written
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=30,
                check_same_thread=False,
            )
        archive = cls(path, connection, scrub)
        try:
            archive._prepare(create)
        except BaseException:
            connection.close()
            raise
        return archive

    def _prepare(self, create: bool) -> None:
        with told(self.path):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            application = self._connection.execute("PRAGMA application_id").fetchone()[0]
            empty = not self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if (version, application) == (0, 0) and empty and create:
                self._connection.executescript(
                    f"PRAGMA journal_mode = DELETE; BEGIN IMMEDIATE; {SCHEMA}"
                    f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
                )
            elif (version, application) != (VERSION, APPLICATION):
                foreign = application != APPLICATION
                raise other_version(self.path, "an archive", VERSION, version, foreign=foreign)
            self._connection.execute("PRAGMA synchronous = EXTRA")

    def close(self) -> None:
        self._connection.close()

    # Writing

    def record(
        self,
        *,
        experiment: int,
        provider: str,
        model: str,
        request: Request,
        reply: Reply | None,
        usage: Usage,
        usd: Decimal | None,
        outcome: Outcome,
        detail: str,
        started: str,
        seconds: float,
    ) -> int:
        """One exchange; its number. Durable when this returns."""
        cost = None if usd is None else int(usd * COST)
        if usd is not None and Decimal(cost or 0) / COST != usd:
            raise ValueError(f"{usd} is finer than is counted")
        with self._lock, told(self.path), transaction(self._connection):
            run = self._connection.execute
            number = int(run("SELECT COALESCE(MAX(number) + 1, 0) FROM exchanges").fetchone()[0])
            system = self._put_text(request.system)
            tools = self._put_text([asdict(tool) for tool in request.tools])
            last: bytes | None = None
            for message in request.messages:
                last = self._put_message(message, last)
            counts = tuple(getattr(usage, name) for name in _COUNTS)
            run(
                f"INSERT INTO exchanges VALUES ({', '.join('?' * 13)})",
                (number, experiment, provider, model, outcome, *counts, cost, started, seconds),
            )
            packed = None if reply is None else self._packed(_reply_json(reply))[1]
            run(
                "INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, system, tools, last, request.max_tokens, packed, self._scrub(detail)),
            )
        return number

    def _put_text(self, value: Any) -> bytes:
        digest, content = self._packed(value)
        self._connection.execute("INSERT INTO texts VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, content))
        return digest

    def _put_message(self, message: Message, follows: bytes | None) -> bytes:
        """Its digest is also that of all before it."""
        plain = self._plain(message)
        digest = hashlib.sha256((follows or b"") + hashlib.sha256(plain).digest()).digest()
        known = self._connection.execute("SELECT 1 FROM messages WHERE digest = ?", (digest,)).fetchone()
        if not known:
            self._connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (digest, follows, zlib.compress(plain)))
        return digest

    def _packed(self, value: Any) -> tuple[bytes, bytes]:
        plain = self._plain(value)
        return hashlib.sha256(plain).digest(), zlib.compress(plain)

    def _plain(self, value: Any) -> bytes:
        # In ASCII, as half a surrogate pair in a model's answer is no UTF-8.
        return self._scrub(json.dumps(value, separators=(",", ":"))).encode("ascii")

    # Reading

    def count(self) -> int:
        """How many exchanges are recorded; also the number of the next one."""
        return int(self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM exchanges")[0][0])

    def totals(self, since: int = 0) -> Spending:
        """Of the exchanges with that number or a higher one."""
        return self._sums("WHERE number >= ?", (since,))[0][1]

    def of_experiment(self, experiment: int) -> Spending:
        return self._sums("WHERE experiment = ?", (experiment,))[0][1]

    def by_experiment(self) -> dict[int, Spending]:
        """Of each that was worked on."""
        return dict(self._sums("GROUP BY experiment ORDER BY experiment", ()))

    def exchanges(self, *, since: int = 0, experiment: int | None = None) -> Iterator[Exchange]:
        """In order, with their full texts: of all, or of those about one experiment."""
        where, values = ("", (since,)) if experiment is None else ("AND experiment = ?", (since, experiment))
        numbers = self._rows(f"SELECT number FROM exchanges WHERE number >= ? {where} ORDER BY number", values)
        for (number,) in numbers:
            yield self.exchange(number)

    def exchange(self, number: int) -> Exchange:
        rows = self._rows(
            "SELECT experiment, provider, model, outcome, input, output, cache_read, cache_write, cache_write_hour,"
            " cost, started, seconds, system, tools, last_message, max_tokens, reply, detail"
            " FROM exchanges JOIN bodies USING (number) WHERE number = ?",
            (number,),
        )
        if not rows:
            raise UserError(f"{self.path} has {self.count()} exchanges, and none with number {number}")
        row = rows[0]
        usage = Usage(**dict(zip(_COUNTS, row[4:9], strict=True)))
        request = Request(
            system=self._text(row[12]),
            tools=tuple(Tool(**tool) for tool in self._text(row[13])),
            messages=tuple(self._conversation(row[14])),
            max_tokens=row[15],
        )
        return Exchange(
            number=number,
            experiment=row[0],
            provider=row[1],
            model=row[2],
            request=request,
            reply=None if row[16] is None else _reply(self._unpacked(row[16]), usage),
            usage=usage,
            usd=None if row[9] is None else Decimal(row[9]) / COST,
            outcome=row[3],
            detail=row[17],
            started=row[10],
            seconds=row[11],
        )

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
        except zlib.error as error:
            raise damaged(self.path, error) from None

    def _sums(self, which: str, values: tuple[object, ...]) -> list[tuple[int, Spending]]:
        used = " + ".join(_COUNTS)
        sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in _COUNTS)
        rows = self._rows(
            f"SELECT MAX(experiment), COUNT(*), COUNT(*) FILTER (WHERE outcome != 'replied'), {sums},"
            f" COALESCE(SUM(cost), 0), COUNT(*) FILTER (WHERE cost IS NULL AND {used} > 0) FROM exchanges {which}",
            values,
        )
        return [
            (
                row[0],
                Spending(
                    requests=row[1],
                    failed=row[2],
                    usage=Usage(**dict(zip(_COUNTS, row[3:8], strict=True))),
                    usd=Decimal(row[8]) / COST,
                    unpriced=row[9],
                ),
            )
            for row in rows
        ]

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock, told(self.path):
            return self._connection.execute(query, values).fetchall()


def spent(state: Path, experiment: int | None = None) -> Spending | None:
    """What the agents of a campaign spent on models, or on one experiment's proposal; None if they asked none.

    `state` is the folder of what they keep.
    """
    path = state / FILE
    if not path.exists() or not path.stat().st_size:
        return None
    archive = Archive.open(path)
    try:
        found = archive.totals() if experiment is None else archive.of_experiment(experiment)
    finally:
        archive.close()
    return found if found.requests else None


def _reply_json(reply: Reply) -> dict[str, Any]:
    return {
        "content": list(reply.content),
        "stop_reason": reply.stop_reason,
        "model": reply.model,
        "detail": reply.detail,
    }


def _reply(stored: dict[str, Any], usage: Usage) -> Reply:
    return Reply(**{**stored, "content": tuple(stored["content"])}, usage=usage)
