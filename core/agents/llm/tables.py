"""The archive's tables: rows in order, none ever changed or deleted."""

from __future__ import annotations

from core.store.sqlite import append_only

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
SCHEMA = _TABLES + append_only("archive", "texts", "messages", "exchanges", "bodies")
