"""Slots: arrays pass through the file, and a file cut short by the other side is an error, not a crash."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from core.trial.shared_arrays import SharedArray, map_shared_array


def test_what_is_written_is_mapped_and_what_is_mapped_is_read(tmp_path: Path) -> None:
    slot = SharedArray(tmp_path / "slot", 2 * 6 * 4)
    ids_BT = np.arange(6, dtype=np.int32).reshape(2, 3)
    slot.write(ids_BT, -ids_BT)
    assert (map_shared_array(str(slot.path), "r", (2, 2, 3), np.int32) == np.stack([ids_BT, -ids_BT])).all()
    mapped = map_shared_array(str(slot.path), "r+", (3, 4), np.float32)
    mapped[...] = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert (slot.read((3, 4)) == mapped).all()
    slot.close()


def test_a_slot_cut_short_is_an_error(tmp_path: Path) -> None:
    slot = SharedArray(tmp_path / "slot", 64)
    os.truncate(slot.path, 8)
    with pytest.raises(OSError, match="cut short"):
        slot.read((16,))
    slot.close()


def test_a_slot_is_never_laid_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "slot").write_text("somebody's")
    with pytest.raises(FileExistsError):
        SharedArray(tmp_path / "slot", 4)
    assert (tmp_path / "slot").read_text() == "somebody's"
