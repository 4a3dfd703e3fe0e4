"""Shared arrays: they pass through the file, and a file cut short by the other side is an error, not a crash."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from core.trial.shared_arrays import SharedArray, map_shared_array


def test_what_is_written_is_mapped_and_what_is_mapped_is_read(tmp_path: Path) -> None:
    array = SharedArray(tmp_path / "array", 2 * 6 * 4)
    ids_BT = np.arange(6, dtype=np.int32).reshape(2, 3)
    array.write(ids_BT, -ids_BT)
    assert (map_shared_array(str(array.path), "r", (2, 2, 3), np.int32) == np.stack([ids_BT, -ids_BT])).all()
    mapped = map_shared_array(str(array.path), "r+", (3, 4), np.float32)
    mapped[...] = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert (array.read((3, 4)) == mapped).all()
    array.close()


def test_a_shared_array_cut_short_is_an_error(tmp_path: Path) -> None:
    array = SharedArray(tmp_path / "array", 64)
    os.truncate(array.path, 8)
    with pytest.raises(OSError, match="cut short"):
        array.read((16,))
    array.close()


def test_a_shared_array_is_never_laid_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "array").write_text("somebody's")
    with pytest.raises(FileExistsError):
        SharedArray(tmp_path / "array", 4)
    assert (tmp_path / "array").read_text() == "somebody's"
