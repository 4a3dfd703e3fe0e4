"""A chain of digests over the ledger's rows: a byte that was changed later shows, and in which row.

Each row gets a seal in the transaction that writes it: a SHA-256 over the seal before and all of the row. It guards
against accidents and second thoughts, not against whoever writes the whole chain anew.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator

SCHEMA = """
CREATE TABLE seals (number INTEGER PRIMARY KEY, sealed TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL,
    UNIQUE (sealed, key));
"""
KEYS = {"facts": "name", "trials": "rowid", "experiments": "number", "measurements": "number"}


def seal(connection: sqlite3.Connection, table: str, key: str) -> None:
    """Seals a row that was just written, within the caller's transaction."""
    last = connection.execute("SELECT digest FROM seals ORDER BY number DESC LIMIT 1").fetchone()
    values = (table, key, _digest(connection, last[0] if last else "", table, key))
    connection.execute("INSERT INTO seals (sealed, key, digest) VALUES (?, ?, ?)", values)


def broken(connection: sqlite3.Connection) -> Iterator[str]:
    """What does not fit its seal, in words: rows in the order in which they were written, then rows without a seal."""
    # Bytes that are no text any more are what is looked for here, not an error.
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield from _broken(connection)
    finally:
        connection.text_factory = str


def _broken(connection: sqlite3.Connection) -> Iterator[str]:
    before = ""
    for place, (number, table, key, digest) in enumerate(
        connection.execute("SELECT number, sealed, key, digest FROM seals ORDER BY number").fetchall(), 1
    ):
        if number != place or table not in KEYS:
            yield f"seal {place} of the ledger"
            return
        if digest != _digest(connection, before, table, key):
            yield _named(connection, table, key)
        before = digest
    for table, column in KEYS.items():
        unsealed = (
            f"SELECT {column} FROM {table} WHERE CAST({column} AS TEXT) NOT IN (SELECT key FROM seals WHERE sealed = ?)"
        )
        for (key,) in connection.execute(unsealed, (table,)).fetchall():
            yield f"{_named(connection, table, str(key))}, which was never sealed"


def _digest(connection: sqlite3.Connection, before: str, table: str, key: str) -> str:
    row = connection.execute(f"SELECT * FROM {table} WHERE {KEYS[table]} = ?", (key,)).fetchone()
    content = json.dumps([before, table, key, row], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _named(connection: sqlite3.Connection, table: str, key: str) -> str:
    if table != "trials":
        return f"{table.removesuffix('s')} {key}"
    row = connection.execute("SELECT experiment, trial FROM trials WHERE rowid = ?", (key,)).fetchone()
    return f"trial {row[1]} of experiment {row[0]}" if row else f"a trial that is gone (row {key})"
