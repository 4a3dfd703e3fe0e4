"""The ledger's hash chain: whatever byte of a row is changed, the row is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, a_campaign, trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.store.ledger import Ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sealed") / "c"
    with a_campaign(root) as campaign:
        campaign.run(ScriptedAgent([trainer(1.9), trainer(1.95), trainer(1.8)]))
    return root / ".git" / "autoresearch" / "ledger.db"


def altered_after(ledger: Path, into: Path, change: Callable[[sqlite3.Connection], object]) -> list[str]:
    shutil.copyfile(ledger, into)
    with sqlite3.connect(into) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        change(connection)
    connection.close()
    changed = Ledger.open(into)
    try:
        return changed.altered()
    finally:
        changed.close()


CHANGES = {
    "UPDATE trials SET val_bpb = val_bpb + 1e-15 WHERE experiment = 3": ["trial 0 of experiment 3"],
    "UPDATE trials SET record = replace(record, '\"seed\":2', '\"seed\":3')": ["trial 1 of experiment 0"],
    "UPDATE experiments SET record = replace(record, 'idea 1', 'idea 7')": ["experiment 2"],
    "UPDATE experiments SET verdict = 'keep' WHERE number = 2": ["experiment 2"],
    "UPDATE facts SET value = 'other' WHERE name = 'tag'": ["fact tag"],
    "DELETE FROM trials WHERE experiment = 3": ["a trial that is gone (row 5)"],
    "UPDATE seals SET digest = lower(hex(zeroblob(32))) WHERE number = 2": ["fact preset", "fact created"],
    "DELETE FROM seals WHERE number = 5": ["seal 5 of the ledger"],
    "INSERT INTO facts VALUES ('more', 'x')": ["fact more, which was never sealed"],
}


@pytest.mark.parametrize("statement", CHANGES)
def test_a_changed_row_is_named(ledger: Path, tmp_path: Path, statement: str) -> None:
    found = altered_after(ledger, tmp_path / "ledger.db", lambda connection: connection.execute(statement))
    assert found == CHANGES[statement]


def test_nothing_is_altered_where_nothing_was_changed(ledger: Path, tmp_path: Path) -> None:
    assert altered_after(ledger, tmp_path / "ledger.db", lambda connection: None) == []


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_of_a_record(ledger: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = ledger.read_bytes()
    key = data.draw(st.sampled_from([b'"val_bpb":1.9', b'"val_bpb":1.95', b'"val_bpb":1.8', b'"champion_bpb":2.0']))
    places = [place for place in range(len(whole)) if whole.startswith(key, place)]
    at = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, len(key) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[at] ^= 1 << bit
    path = tmp_path / "changed.db"
    path.write_bytes(changed)
    opened = Ledger.open(path)
    try:
        found = opened.altered()
    finally:
        opened.close()
    assert len(found) == 1
    assert "experiment" in found[0]
