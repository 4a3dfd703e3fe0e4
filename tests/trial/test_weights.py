"""The file of weights: read in parts, counted whole, and put in another order without a value lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import trainer_text

from core.trial import weights
from core.trial.child.client import as_arrays
from core.trial.process import TrialFailed

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure


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


def test_a_number_alone_comes_back_without_an_axis(run: Run) -> None:
    after = 'trial.finish({"counts": counts, "scale": np.array(2.5), "steps": np.int64(3)})'
    check = 'assert (weights["scale"].shape, weights["steps"].shape, weights["scale"] * 2) == ((), (), 5.0)'
    trial = run(trainer_text(after=after).replace("    table =", f"    {check}\n    table ="))
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert trial.parameters == 256 * 256 + 2


UNFIT = [
    ("[counts]", "weights are a mapping from names to arrays, not list"),
    ("{3: counts}", "a weight's name is text, not 3"),
    ("{'a.b': None}", "weight 'a.b' is object, not float16/32/64, an integer or bool: convert it"),
    ("{'c': counts.astype(complex)}", "weight 'c' is complex128, not float16/32/64"),
    ("{'ragged': [[1], [1, 2]]}", "weight 'ragged' is no NumPy array: setting an array element"),
    ("{'far': type('Far', (), {'__array__': lambda *a, **k: 1 / 0})()}", "weight 'far' is no NumPy array: division"),
]


@pytest.mark.parametrize(("given", "reason"), UNFIT)
def test_a_weight_that_no_file_can_hold_is_named(given: str, reason: str) -> None:
    with pytest.raises(TypeError) as raised:
        as_arrays(eval(given, {"counts": np.ones((2, 2))}))  # noqa: S307
    assert str(raised.value).startswith(reason)


def test_weights_are_not_copied_and_an_odd_layout_is_straightened() -> None:
    plain, turned = np.ones((3, 4)), np.arange(12.0).reshape(3, 4).T
    arrays = as_arrays({"plain": plain, "turned": turned})
    assert arrays["plain"] is plain
    assert arrays["turned"].flags["C_CONTIGUOUS"]
    assert (arrays["turned"] == turned).all()


REHEARSE = 'trial.rehearse({"counts": np.ones((256, 256), np.float32)}, restore)'


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (
            "table[tokens][..., :200]",
            "ValueError: restore gives logits of shape [1, 32, 200] for 1 x 32 tokens, not [1, 32, 256]",
        ),
        ("table[tokens][:, -1]", "ValueError: restore gives logits of shape [1, 256] for 1 x 32 tokens"),
        ("table[tokens] @ np.ones(3)", "ValueError: matmul: "),
        ('weights["conuts"]', "KeyError: 'conuts'"),
    ],
)
def test_a_restore_that_does_not_fit_fails_before_the_clock_starts(run: Run, logits: str, reason: str) -> None:
    trial = run(trainer_text(before=REHEARSE).replace("table[tokens]", logits))
    assert trial.verdict == "crash"
    assert trial.reason.startswith(reason)
    assert (trial.steps, trial.train_seconds) == (0, 0)


def test_a_rehearsal_leaves_the_weights_alone_and_has_the_batches_length(run: Run) -> None:
    before = 'counts = np.ones((256, 256), np.float32); next(trial.warmup(2, 48)); trial.rehearse({"c": counts}, spoil)'
    spoil = """
def spoil(weights, facts):
    assert facts.sequence_length == 48
    weights["c"][:] = np.nan
    return lambda tokens: np.zeros((*tokens.shape, 256))
"""
    trial = run(trainer_text(before=before + "; assert (counts == 1).all()") + spoil)
    assert (trial.verdict, trial.reason) == ("scored", "")
