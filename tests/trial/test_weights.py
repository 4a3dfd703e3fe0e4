"""The file of weights: read in parts, counted whole, and put in another order without a value lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.trial import weights
from core.trial.process import TrialFailed


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PART_BYTES", 100)


SHAPES = {
    "scalar": (),
    "empty": (0, 3),
    "short": (2,),
    "long": (1001,),
    "matrix": (37, 5),
    "wide": (3, 400),
    "4": (2, 3, 4, 5),
}


def test_every_value_is_counted_and_looked_at(small_parts: None, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    arrays = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    save_file(arrays, path)
    assert weights.inspect(path).parameters == sum(array.size for array in arrays.values())
    for name, array in arrays.items():
        for place in {0, array.size // 2, array.size - 1} if array.size else ():
            flat = np.ones(array.size, np.float32)
            flat[place] = np.nan
            save_file({**arrays, name: flat.reshape(array.shape)}, path)
            with pytest.raises(TrialFailed, match=f"weight '{name}' is not finite"):
                weights.inspect(path)


def test_a_change_after_the_inspection_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(8, np.float32)}, path)
    seen = weights.inspect(path)
    weights.check_unchanged(seen)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(TrialFailed, match="changed while they were scored"):
        weights.check_unchanged(seen)
    path.unlink()
    save_file({"a": np.ones(8, np.float32)}, path)
    with pytest.raises(TrialFailed, match="changed while they were scored"):
        weights.check_unchanged(seen)


def test_another_order_keeps_every_value_and_what_may_be_a_size(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    random = np.random.default_rng(0)
    arrays = {
        "matrix": random.normal(size=(20, 30)).astype(np.float32),
        "ids": np.arange(64, dtype=np.int32),
        "few": np.arange(15, dtype=np.float32),
    }
    save_file(arrays, path)
    for kinds, moved in (("fiu", {"matrix", "ids"}), ("f", {"matrix"})):
        other = load_file(weights.permuted(path, tmp_path / kinds, random, kinds))
        for name, array in arrays.items():
            assert other[name].dtype == array.dtype
            assert (np.sort(other[name], axis=None) == np.sort(array, axis=None)).all()
            assert (not np.array_equal(other[name], array)) == (name in moved)
