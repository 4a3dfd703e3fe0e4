"""Campaigns whose ledger is of version 2, made as the code of that time made them: its tables, its rows, its seals."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from core.store import hash_chain
from core.store.layout import CampaignFolder
from core.store.schema import APPLICATION
from core.store.sqlite import append_only

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
    experiment INTEGER NOT NULL, trial INTEGER NOT NULL, candidate TEXT NOT NULL, seed INTEGER NOT NULL,
    verdict TEXT NOT NULL, val_bpb REAL, wall_seconds REAL NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (experiment, trial)
);
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, verdict TEXT NOT NULL,
    val_bpb REAL, fingerprint TEXT NOT NULL, wall_seconds REAL NOT NULL, train_seconds REAL NOT NULL,
    trials INTEGER NOT NULL, record TEXT NOT NULL, constants TEXT NOT NULL
);
CREATE INDEX experiments_fingerprint ON experiments (fingerprint);
CREATE INDEX experiments_score ON experiments (val_bpb, number) WHERE val_bpb IS NOT NULL;
CREATE INDEX experiments_kept ON experiments (number) WHERE verdict = 'keep';
CREATE TRIGGER experiments_in_order BEFORE INSERT ON experiments
    WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number) + 1, 0) FROM experiments)
    BEGIN SELECT RAISE(ABORT, 'experiments are numbered without a gap'); END;
CREATE TRIGGER experiments_with_trials BEFORE INSERT ON experiments
    WHEN NEW.trials IS NOT (SELECT COUNT(*) FROM trials WHERE experiment = NEW.number AND candidate = NEW.candidate)
    BEGIN SELECT RAISE(ABORT, 'an experiment is recorded after its trials'); END;
CREATE TRIGGER trials_in_order BEFORE INSERT ON trials
    WHEN NEW.experiment IS NOT (SELECT COALESCE(MAX(number) + 1, 0) FROM experiments)
        OR NEW.trial IS NOT (SELECT COUNT(*) FROM trials WHERE experiment = NEW.experiment)
    BEGIN SELECT RAISE(ABORT, 'trials belong to the next experiment, in order'); END;
CREATE TRIGGER facts_once BEFORE INSERT ON facts WHEN EXISTS (SELECT 1 FROM facts WHERE name = NEW.name)
    BEGIN SELECT RAISE(ABORT, 'a fact is recorded once'); END;
CREATE TABLE measurements (
    number INTEGER PRIMARY KEY, purpose TEXT NOT NULL CHECK (purpose IN ('confirm', 'drift')), series INTEGER NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('baseline', 'champion')),
    experiment INTEGER NOT NULL REFERENCES experiments (number), candidate TEXT NOT NULL, seed INTEGER NOT NULL,
    verdict TEXT NOT NULL, val_bpb REAL, test_bpb REAL, wall_seconds REAL NOT NULL, record TEXT NOT NULL,
    UNIQUE (purpose, series, role, seed)
);
CREATE TRIGGER measurements_in_order BEFORE INSERT ON measurements
    WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number) + 1, 0) FROM measurements)
    BEGIN SELECT RAISE(ABORT, 'measurements are numbered without a gap'); END;
CREATE TRIGGER measurements_of_experiments BEFORE INSERT ON measurements
    WHEN NOT EXISTS (SELECT 1 FROM experiments WHERE number = NEW.experiment AND candidate = NEW.candidate)
    BEGIN SELECT RAISE(ABORT, 'a measurement is of a recorded experiment'); END;
CREATE TRIGGER measurements_once BEFORE INSERT ON measurements
    WHEN EXISTS (SELECT 1 FROM measurements WHERE purpose = NEW.purpose AND series = NEW.series
        AND role = NEW.role AND seed = NEW.seed)
    BEGIN SELECT RAISE(ABORT, 'a seed is measured once in a series'); END;
"""
_SCHEMA = _TABLES + hash_chain.SCHEMA + append_only("ledger", "facts", "trials", "experiments", "measurements", "seals")
_FACTS = {"tag", "preset", "created", "yardstick", "test_yardstick"}
# What a record of that time had no field for.
_LATER = {
    "node", "disturbed", "stalled_seconds", "stop_progress", "base", "deviation", "champion_deviation", "probability",
    "effect", "effect_error", "nodes", "limits", "test_audit",
}  # fmt: skip


def as_version_2(root: Path) -> Path:
    """Writes the ledger of the campaign in `root`, which was just made, as version 2 had it. Returns its path."""
    path = CampaignFolder(root).ledger
    now, old = sqlite3.connect(path), sqlite3.connect(path.with_suffix(".old"), isolation_level=None)
    old.executescript(f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 2; COMMIT;")
    for table, key in now.execute("SELECT sealed, key FROM seals ORDER BY number").fetchall():
        if table == "facts" and key not in _FACTS:
            continue
        columns = [name for _, name, *_ in old.execute(f"PRAGMA table_info({table})")]
        (row,) = now.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {hash_chain.KEYS[table]} = ?", (key,))
        values = [_stripped(value) if name == "record" else value for name, value in zip(columns, row, strict=True)]
        old.execute("BEGIN")
        old.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
        last = old.execute("SELECT last_insert_rowid()").fetchone()[0]
        hash_chain.append(old, table, key if table == "facts" else str(last))
        old.execute("COMMIT")
    now.close()
    old.close()
    return path.with_suffix(".old").replace(path)


def _stripped(record: str) -> str:
    return json.dumps({name: value for name, value in json.loads(record).items() if name not in _LATER})
