"""What a score's claims are held against: places, order, draws and differences, as facts that can be computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.scored import Rows
from core.trial import audit_math


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Places, the length of a row and how many rows are asked at once."""
    length = draw(st.integers(1, 9))
    places = draw(st.lists(st.integers(0, 12 * length - 1), unique=True, max_size=60))
    return places, length, draw(st.integers(1, 8))


def stream_rows(count: int, length: int) -> Rows:
    """Rows whose ids are their places in the stream, so that a token tells where it stands."""
    stream = np.arange(count * length + 1, dtype=np.int32)
    inputs, targets = stream[:-1].reshape(count, length), stream[1:].reshape(count, length)
    return Rows(inputs, targets, np.ones_like(targets))


@settings(max_examples=300, deadline=None)
@given(questions())
def test_a_reader_that_keeps_every_token_never_knows_an_answer(asked: tuple[list[int], int, int]) -> None:
    places, length, at_once = asked
    rows = stream_rows(13, length)
    answered: list[int] = []
    shown: set[int] = set()
    for batch in audit_math.batches(np.array(places, np.int64), length, at_once):
        assert 0 < len(batch) <= at_once
        assert len(set((batch // length).tolist())) == len(batch), "a row twice in a batch"
        for place in batch.tolist():
            row, time = divmod(place, length)
            shown |= set(rows.inputs_BT[row, : time + 1].tolist())
        # The answers of a batch come after all of it was shown.
        assert not shown & set(rows.targets_BT.reshape(-1)[batch].tolist())
        answered += batch.tolist()
    assert sorted(answered) == sorted(places)


def test_what_follows_a_place_is_random_and_what_leads_to_it_is_not() -> None:
    rows = stream_rows(50, 20)
    places = np.arange(50) * 20 + 7
    asked = audit_math.replaced(rows, places, 1001, np.random.default_rng(0))
    assert asked.dtype == np.int32
    assert (asked[:, :8] == rows.inputs_BT[:, :8]).all()
    assert (asked[:, 8:] == rows.inputs_BT[:, 8:]).mean() < 0.02
    assert ((asked >= 0) & (asked < 1001)).all()


def test_draws_take_counted_places_alike_and_by_gain() -> None:
    random = np.random.default_rng(1)
    claimed = np.full(10_000, 3.0, np.float32)
    reference = np.full(10_000, 3.0, np.float32)
    counted = np.arange(10_000) % 2 == 0
    claimed[:100] = 1.0  # 50 counted places gain 2 nats
    claimed[9000:] = 9.0  # a place that is worse is no negative gain
    drawn = audit_math.draw(claimed, reference, counted, 400, 30, random)
    assert len(drawn.uniform) == 400
    assert len(np.unique(drawn.uniform)) == 400
    assert counted[drawn.places].all()
    assert drawn.gain == pytest.approx(2 * 50 / 5000)
    assert set(drawn.weighted.tolist()) <= set(range(0, 100, 2))
    assert (np.diff(drawn.places) > 0).all()
    assert abs(drawn.uniform.mean() - 5000) < 4 * 2887 / math.sqrt(400)
    nowhere = audit_math.draw(reference, reference, counted, 5, 7, random)
    assert (nowhere.gain, nowhere.weighted_draws) == (0.0, 7)
    assert len(audit_math.draw(claimed, reference, np.arange(10_000) < 3, 8, 8, random).uniform) == 3


@pytest.mark.parametrize(("hidden", "gain"), [(0.01, 1.0), (0.01, 0.1), (0.2, 2.0)])
def test_a_gain_of_the_size_looked_for_is_missed_once_in_a_hundred(hidden: float, gain: float) -> None:
    """Of 4000 places some fake 2 nats each, `hidden` a token in all; the others honestly gain the rest."""
    count, trials = 4000, 2000
    faked = np.zeros(count, bool)
    faked[: round(hidden * count / 2)] = True
    reference = np.full(count, 5.0, np.float32)
    gains = np.where(faked, 2.0, (gain * count - 2 * faked.sum()) / (~faked).sum())
    claimed = (reference - gains).astype(np.float32)
    counted = np.ones(count, bool)
    draws = audit_math.draws_needed(gain, hidden)
    missed = sum(
        not faked[audit_math.draw(claimed, reference, counted, 1, draws, np.random.default_rng(seed)).weighted].any()
        for seed in range(trials)
    )
    assert abs(missed - 0.01 * trials) < 4 * math.sqrt(0.01 * trials)


def test_a_place_that_beats_no_reference_can_still_profit_less_than_a_nat() -> None:
    """Whoever gives up a share of its mass, and claims the reference's loss there, gains that share elsewhere."""
    random = np.random.default_rng(2)
    honest = random.dirichlet(np.full(50, 0.3), 40_000)
    tokens = (honest.cumsum(1) < random.random((40_000, 1))).sum(1).clip(max=49)
    reference = -np.log(honest[np.arange(40_000), tokens])
    for kept in (0.99, 0.9, 0.5):
        order = np.argsort(-honest, axis=1)
        before = np.take_along_axis(honest, order, 1).cumsum(1) - np.take_along_axis(honest, order, 1)
        inside = np.zeros_like(honest, bool)
        np.put_along_axis(inside, order, before < kept, 1)
        mass = (honest * inside).sum(1)
        given_up = ~inside[np.arange(40_000), tokens]
        claimed = np.where(given_up, reference, reference + np.log(mass))
        profit = (reference - claimed).mean()
        assert 0 < profit < audit_math.TRADED * given_up.mean() + 0.005


def test_needed_and_hidden_are_each_others_inverse() -> None:
    for gain, noise in ((1.0, 0.003), (0.08, 0.003), (2.5, 0.1)):
        draws = audit_math.draws_needed(gain, noise)
        drawn = audit_math.Drawn(np.arange(10**6), np.arange(1), draws, gain)
        assert audit_math.hidden_nats(drawn, 0.0, 0.0) == pytest.approx(noise, rel=0.02)
    assert audit_math.draws_needed(0.0, 0.01) == audit_math.draws_needed(0.01, 0.1) == 1
    few = audit_math.Drawn(np.arange(100), np.arange(1), 10**6, 0.01)
    assert audit_math.hidden_nats(few, 0.0, 0.0) == pytest.approx(0.045, abs=0.001)
    assert audit_math.hidden_nats(few, -0.01, 0.001) == pytest.approx(0.045 + 0.01 + 0.00233, abs=0.001)


@pytest.mark.parametrize("count", [8, 128, 1024])
def test_rounding_is_no_bias_and_a_shift_is_one(count: int) -> None:
    accused = 0
    for seed in range(2000):
        differences = np.random.default_rng(seed).normal(0.0, 0.003, count)
        error = differences.std(ddof=1) / math.sqrt(count)
        accused += audit_math.biased(differences.mean(), error, count, 0.02)
        shifted = differences - 0.015
        assert audit_math.biased(shifted.mean(), error, count, 0.02) or count == 8
    assert accused == 0
    assert audit_math.biased(0.2, 0.0, 8, 0.25)


def test_losses_are_those_of_a_log_softmax_in_float64() -> None:
    logits = np.random.default_rng(3).normal(0, 30, (200, 70)).astype(np.float32)
    logits[0] += 1000  # would overflow without the shift
    logits[1, 5] = -np.inf
    targets = np.random.default_rng(4).integers(6, 70, 200).astype(np.int32)
    wide = logits.astype(np.longdouble) - logits.max(1, keepdims=True)
    expected = np.log(np.exp(wide).sum(1)) - wide[np.arange(200), targets]
    np.testing.assert_allclose(audit_math.losses_from(logits, targets), expected.astype(float), rtol=1e-9, atol=1e-9)


def test_unigram_losses_know_frequencies_of_what_counts() -> None:
    targets = np.array([[5, 5, 5, 7], [7, 9, 5, 0]], np.int32)
    counts = np.array([[1, 1, 1, 2], [2, 3, 1, 0]], np.int32)
    found = audit_math.unigram_losses(Rows(targets, targets, counts))
    assert found.dtype == np.float32
    expected = -np.log(np.array([4, 4, 4, 2, 2, 1, 4, 1]) / 7)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_tolerance_belongs_to_a_dtype_and_the_coarsest_to_one_unknown() -> None:
    assert audit_math.tolerance("float32") < audit_math.tolerance("float16") < audit_math.tolerance("bfloat16")
    assert audit_math.tolerance("") == audit_math.tolerance("int4") == audit_math.tolerance("bfloat16")
