"""Fetching ahead of time: nothing for a CPU; a failure is told with the last line of what went wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support import PRESET

from core.records import UserError
from core.trial.fetch import fetch


def test_there_is_nothing_to_fetch_for_counts(tmp_path: Path) -> None:
    assert fetch(PRESET, tmp_path) is None
    assert fetch(dataclasses.replace(PRESET, device="auto"), tmp_path) is None


def test_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("raise SystemExit('no route to host')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"could not fetch what it needs: .*no route to host"):
        fetch(dataclasses.replace(PRESET, device="auto"), tmp_path)
