"""Parity of the reference trainers as a ladder, and the mistake that every rung that can see it must tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance import adapters
from conformance.adapters import Adapter
from conformance.ladder import LADDER, Rung, random_weights

from core.data.scored import Rows


def named(rung: Rung) -> str:
    return rung.name


@pytest.mark.parametrize("rung", LADDER, ids=named)
def test_a_backend_agrees_with_the_reference(rung: Rung, reference: Adapter, other: Adapter, text: Rows):
    distances = rung.measure(reference, other, text)
    assert distances
    assert {part: far for part, far in distances.items() if not far <= rung.tolerance} == {}


@pytest.mark.parametrize("rung", [rung for rung in LADDER if rung.sees_windows], ids=named)
def test_a_window_one_key_wider_fails_the_rung(rung: Rung, reference: Adapter, wider: Adapter, text: Rows):
    assert max(rung.measure(reference, wider, text).values()) > 3 * rung.tolerance


@pytest.mark.parametrize("rung", [rung for rung in LADDER if not rung.sees_windows], ids=named)
def test_a_wrong_window_leaves_the_other_rungs_alone(rung: Rung, reference: Adapter, text: Rows, tmp_path: Path):
    """So that a failing rung tells where to look."""
    wider = adapters.Wider(adapters.adapter(adapters.REFERENCE, tmp_path))
    assert max(rung.measure(reference, wider, text).values()) <= rung.tolerance


def test_the_ladder_measures_weights_of_which_none_is_zero(reference: Adapter):
    assert all(np.all(value != 0) for value in random_weights(reference.shapes(), 1).values())
