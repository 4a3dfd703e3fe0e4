"""The archive's tables: rows in order, none ever changed or deleted, and SQLite's errors in a user's words."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.records import UserError

VERSION = 1
APPLICATION = 0x61727378  # "arsx"

# The numbers stand apart from the texts, so that a sum reads few pages.
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
_NAMES = ("texts", "messages", "exchanges", "bodies")
SCHEMA = _TABLES + "".join(
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END;\n"
    for table in _NAMES
    for verb in ("UPDATE", "DELETE")
)

_MENDS = {
    "database or disk is full": "free some space and run the same command again",
    "database is locked": "another program holds it; end that one and run the same command again",
    "attempt to write a readonly database": "it can't be written; see the file's permissions",
}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors in a user's words. A violated trigger is a bug and passes as it is."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        mend = _MENDS.get(str(error), "see that its folder exists and can be written")
        raise UserError(f"{path}: {error}; {mend}") from None
    except (sqlite3.DatabaseError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}; restore it from a copy of the campaign's folder") from None
