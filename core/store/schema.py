"""The ledger's tables: rows in order, none ever changed or deleted. Triggers hold whoever writes to that.

An experiment is open from its first trial until it has its row. Several may be open at once; their rows come in order.
A ledger of version 2 keeps its tables: one open experiment, no `base`, measurements of two purposes and two roles only.
"""

from __future__ import annotations

from core.store import hash_chain
from core.store.sqlite import append_only

VERSION = 3
READABLE = (2, VERSION)
APPLICATION = 0x61727363  # "arsc"; `file` and SQLite's tools show whose database it is

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
    experiment INTEGER NOT NULL, trial INTEGER NOT NULL, candidate TEXT NOT NULL, seed INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('scored', 'stopped', 'crash', 'invalid')), val_bpb REAL,
    wall_seconds REAL NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (experiment, trial)
);
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, base TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('keep', 'discard', 'stopped', 'crash', 'invalid')),
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
    WHEN NEW.trials IS NOT (SELECT COUNT(*) FROM trials WHERE experiment = NEW.number)
        OR EXISTS (SELECT 1 FROM trials WHERE experiment = NEW.number AND candidate IS NOT NEW.candidate)
    BEGIN SELECT RAISE(ABORT, 'an experiment is recorded after its trials'); END;
CREATE TRIGGER trials_of_open BEFORE INSERT ON trials
    WHEN NEW.experiment < (SELECT COALESCE(MAX(number) + 1, 0) FROM experiments)
    BEGIN SELECT RAISE(ABORT, 'trials belong to open experiments, which have no row yet'); END;
CREATE TRIGGER trials_in_order BEFORE INSERT ON trials
    WHEN NEW.trial IS NOT (SELECT COUNT(*) FROM trials WHERE experiment = NEW.experiment)
    BEGIN SELECT RAISE(ABORT, 'trials of an experiment are numbered without a gap'); END;
CREATE TRIGGER trials_of_one_candidate BEFORE INSERT ON trials
    WHEN EXISTS (SELECT 1 FROM trials WHERE experiment = NEW.experiment AND candidate IS NOT NEW.candidate)
    BEGIN SELECT RAISE(ABORT, 'trials of an experiment run one candidate'); END;
CREATE TRIGGER facts_once BEFORE INSERT ON facts WHEN EXISTS (SELECT 1 FROM facts WHERE name = NEW.name)
    BEGIN SELECT RAISE(ABORT, 'a fact is recorded once'); END;
CREATE TABLE measurements (
    number INTEGER PRIMARY KEY, purpose TEXT NOT NULL CHECK (purpose <> ''), series INTEGER NOT NULL,
    role TEXT NOT NULL CHECK (role <> ''),
    experiment INTEGER NOT NULL REFERENCES experiments (number), candidate TEXT NOT NULL, seed INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('scored', 'stopped', 'crash', 'invalid')), val_bpb REAL, test_bpb REAL,
    wall_seconds REAL NOT NULL, record TEXT NOT NULL
);
CREATE INDEX measurements_series ON measurements (purpose, series, number);
CREATE INDEX measurements_experiment ON measurements (experiment, purpose, number);
CREATE TRIGGER measurements_in_order BEFORE INSERT ON measurements
    WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number) + 1, 0) FROM measurements)
    BEGIN SELECT RAISE(ABORT, 'measurements are numbered without a gap'); END;
CREATE TRIGGER measurements_of_experiments BEFORE INSERT ON measurements
    WHEN NOT EXISTS (SELECT 1 FROM experiments WHERE number = NEW.experiment
        AND (candidate = NEW.candidate OR NEW.role NOT IN ('baseline', 'champion')))
    BEGIN SELECT RAISE(ABORT, 'a measurement is of a recorded experiment'); END;
"""
SCHEMA = _TABLES + hash_chain.SCHEMA + append_only("ledger", "facts", "trials", "experiments", "measurements", "seals")
