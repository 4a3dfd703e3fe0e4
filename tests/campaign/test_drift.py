"""When a device's speed counts as moved."""

from __future__ import annotations

import pytest
from campaigns import a_trial
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.drift import LAST, DriftDetector, Throughput, throughputs


def at(*speeds: float | None, **values: object) -> list[Throughput]:
    return list(throughputs(a_trial(tokens_per_second=speed, **values) for speed in speeds))


@pytest.mark.parametrize(
    ("speeds", "moved"),
    [
        ([100] * 5, None),
        ([100] * 5 + [89] * 2, None),  # the median of the last five is one of the old
        ([100] * 5 + [89] * 3, -0.11),
        ([100] * 5 + [111] * 3, 0.11),
        ([100] * 5 + [90] * 5, None),  # a tenth is not more than a tenth
        ([100, 100, 100, 50, 50] + [100] * 9, None),  # two slow ones early
        ([100] * 9 + [50, 50], None),  # two slow ones lately
        ([100] * 5 + [50] * 5 + [100] * 5, None),  # it came back
        ([100 - n for n in range(15)], -0.10204081632653061),  # 98 -> 88, by little each time
        ([100, 50, 50, 50], None),  # fewer than five
    ],
)
def test_the_median_of_five_against_the_first_five(speeds: list[float], moved: float | None) -> None:
    watch = DriftDetector(at(*speeds))
    found = watch.detect()
    assert (found.share if found is not None else None) == (moved if moved is None else pytest.approx(moved))


def test_only_trials_of_one_cost_are_held_together() -> None:
    for change in (
        {"rows": 8}, {"sequence_length": 64}, {"parameters": 7}, {"flops_per_token": 1.0}, {"device": "cuda"},
        {"choices": {"kernel": "another"}}, {"device_rows": 2},
    ):  # fmt: skip
        assert DriftDetector(at(*[100] * 5) + at(*[50] * 4, **change)).detect() is None
        both = DriftDetector(at(*[100] * 5) + at(*[50] * 5, **change) + at(*[30] * 3, **change))
        found = both.detect()
        assert found is not None
        assert (found.before, found.now) == (50, 30)
    others: list[dict[str, object]] = [{"seed": 9}, {"steps": 3}, {"val_bpb": 9.0}, {"final_loss": 1.0}]
    for same in others:
        assert DriftDetector(at(*[100] * 5) + at(*[50] * 3, **same)).detect() is not None


def test_what_failed_tells_no_speed() -> None:
    slow = at(*[50] * 5, verdict="crash", val_bpb=None) + at(*[50] * 5, verdict="invalid", val_bpb=None) + at(None)
    assert DriftDetector(at(*[100] * 5) + slow).detect() is None


@given(st.lists(st.floats(95, 104), max_size=40))
def test_noise_of_a_few_percent_never_moves_it(speeds: list[float]) -> None:
    watch = DriftDetector()
    for pace in at(*speeds):
        watch.add(pace)
        assert watch.detect() is None


@given(st.lists(st.floats(10, 1000), min_size=LAST, max_size=30))
def test_speeds_in_another_unit_move_alike(speeds: list[float]) -> None:
    one, other = DriftDetector(at(*speeds)).detect(), DriftDetector(at(*(1024 * speed for speed in speeds))).detect()
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.share == pytest.approx(other.share)


def test_the_order_in_which_choices_are_told_is_no_cost() -> None:
    one, other = {"dtype": "a", "kernel": "b"}, {"kernel": "b", "dtype": "a"}
    assert DriftDetector(at(*[100] * 5, choices=one) + at(*[50] * 3, choices=other)).detect() is not None
