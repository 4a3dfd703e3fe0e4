"""A model restored from recorded weights: the logits it gives, and that it scores as its record says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import PRESET, trainer_text

from core.data import Dataset
from core.records import Facts, UserError
from core.trial.model import open_model
from core.trial.spec import read_facts

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure


def test_logits_and_score_of_a_finished_trial(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    trial = run(trainer_text(), steps=20)
    folder = tmp_path / "trial" / "1"
    facts = read_facts(folder)
    counts = load_file(folder / "weights.safetensors")["counts"]
    tokens_BT = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    positions_N2 = np.array([[0, 2], [1, 0]], np.int32)
    with open_model(trainer_text(), folder / "weights.safetensors", facts, PRESET) as model:
        logits_NV = model.logits(tokens_BT, positions_N2)
        score = model.score(dataset.scored("val", PRESET.score_bytes))
    expected_NV = np.log(counts[[3, 4]] / counts[[3, 4]].sum(1, keepdims=True))
    np.testing.assert_allclose(logits_NV, expected_NV, rtol=1e-6)
    assert score.val_bpb == trial.val_bpb
    assert score.yardstick == trial.yardstick


def test_missing_weights_are_told(tmp_path: Path) -> None:
    facts = Facts(vocabulary=256, bos=255, seed=1, backend="numpy", device="cpu", sequence_length=8)
    with (
        pytest.raises(UserError, match="there are no weights at .*: restore them from a copy"),
        open_model("", tmp_path / "w", facts, PRESET),
    ):
        pass


def test_a_restore_that_fails_is_told(run: Run, tmp_path: Path) -> None:
    run(trainer_text())
    folder = tmp_path / "trial" / "1"
    facts = read_facts(folder)
    broken = "def restore(weights, facts):\n    raise LookupError('no layer 7')\n"
    with (
        pytest.raises(UserError, match=r"LookupError \(line 2 of train\.py\)"),
        open_model(broken, folder / "weights.safetensors", facts, PRESET),
    ):
        pass
