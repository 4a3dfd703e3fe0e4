"""A hash chain over the ledger's rows: finds each row that was changed after it was written.

Every row gets a link, in the transaction that writes it: a SHA-256 over the last link and the whole row. The chain
shows accidents and edits; who computes all of it anew is not found. On disk, links are the table `seals`.
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


def append(connection: sqlite3.Connection, table: str, key: str) -> None:
    """Adds the link of a row that was just written, within the caller's transaction."""
    last = connection.execute("SELECT digest FROM seals ORDER BY number DESC LIMIT 1").fetchone()
    values = (table, key, _digest(connection, last[0] if last else "", table, key))
    connection.execute("INSERT INTO seals (sealed, key, digest) VALUES (?, ?, ?)", values)


def altered(connection: sqlite3.Connection) -> Iterator[str]:
    """The names of rows that don't match their link, in the order they were written; then of rows without a link."""
    # Bytes that are no longer valid text are a finding here, not an error.
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        before = ""
        for place, (number, table, key, digest) in enumerate(
            connection.execute("SELECT number, sealed, key, digest FROM seals ORDER BY number").fetchall(), 1
        ):
            if number != place or table not in KEYS:
                yield f"seal {place} of the ledger"
                return
            if digest != _digest(connection, before, table, key):
                yield _row_name(connection, table, key)
            before = digest
        for table, column in KEYS.items():
            linked = "SELECT key FROM seals WHERE sealed = ?"
            query = f"SELECT {column} FROM {table} WHERE CAST({column} AS TEXT) NOT IN ({linked})"
            for (key,) in connection.execute(query, (table,)).fetchall():
                yield f"{_row_name(connection, table, str(key))}, which was never sealed"
    finally:
        connection.text_factory = str


def _digest(connection: sqlite3.Connection, before: str, table: str, key: str) -> str:
    row = connection.execute(f"SELECT * FROM {table} WHERE {KEYS[table]} = ?", (key,)).fetchone()
    content = json.dumps([before, table, key, row], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _row_name(connection: sqlite3.Connection, table: str, key: str) -> str:
    if table != "trials":
        return f"{table.removesuffix('s')} {key}"
    row = connection.execute("SELECT experiment, trial FROM trials WHERE rowid = ?", (key,)).fetchone()
    return f"trial {row[1]} of experiment {row[0]}" if row else f"a trial that is gone (row {key})"
