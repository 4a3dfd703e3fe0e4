"""Limits, and the prices of simplicity and speed, in a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from campaigns import a_trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from view_records import an_experiment

from core.campaign.judge.limits import TOLERATED, Bonus, bonus, borne, breach, ruling, speed, unmeasured
from core.records import Experiment
from core.store.program import BPB_PER_LINE, Limits
from core.trainer.fingerprint import NODES_PER_LINE

LARGE = a_trial(peak_memory_mb=14_300.0, parameters=61_200_000, tokens_per_second=31_200.0, startup_seconds=95.25)


def nodes(lines: float) -> int:
    return round(4000 + lines * NODES_PER_LINE)


def lines_less(count: float, **values: Any) -> Bonus:
    """The bonus of a candidate with so many lines of code less."""
    return bonus(values.pop("limits", Limits()), nodes=nodes(-count), champion_nodes=nodes(0), **values)


def kept(candidate: Bonus, gain: float, deviation: float = 0.002) -> bool:
    """Without any hurdle: the worth of a gain is the gain."""
    return candidate.keeps(gain, deviation, gain)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(), ""),
        (Limits(memory_mb=12_000.0), "uses 14,300 MB, program.md allows 12,000"),
        (Limits(memory_mb=14_300.0), ""),
        (Limits(memory_mb=14_299.8), "uses 14,300.00 MB, program.md allows 14,299.80"),
        (Limits(parameters=50_000_000), "has 61,200,000 parameters, program.md allows 50,000,000"),
        (Limits(tokens_per_second=40_000.0), "trains 31,200 tokens/s, program.md asks for 40,000"),
        (Limits(tokens_per_second=31_200.0), ""),
        (Limits(startup_seconds=60.0), "takes 95.2 s to start, program.md allows 60.0"),
        (
            Limits(memory_mb=12_000.0, startup_seconds=60.0),
            "uses 14,300 MB, program.md allows 12,000; takes 95.2 s to start, program.md allows 60.0",
        ),
    ],
)
def test_what_breaks_a_limit_is_said_with_both_numbers(limits: Limits, said: str) -> None:
    assert breach([LARGE], limits) == said


def test_the_belief_is_held_against_a_limit_of_bpb_and_the_median_against_the_others() -> None:
    limits = Limits(val_bpb=1.05, startup_seconds=60.0)
    trials = [a_trial(val_bpb=1.04, startup_seconds=seconds) for seconds in (400.0, 20.0, 30.0)]
    assert breach(trials, limits) == ""
    assert breach(trials, limits, val_bpb=1.0712) == "reaches 1.0712 bpb, program.md allows 1.0500"
    assert breach(trials[:1], limits) == "takes 400.0 s to start, program.md allows 60.0"


def test_a_number_that_no_trial_measured_breaks_nothing_and_is_named() -> None:
    limits = Limits(memory_mb=12_000.0, parameters=5)
    trial = a_trial(peak_memory_mb=None, parameters=None)
    assert breach([trial], limits) == "" and unmeasured([trial], limits) == ["memory_mb", "parameters"]
    assert unmeasured([LARGE], limits) == unmeasured([], limits) == []


def test_within_the_limits_beats_beyond_them() -> None:
    limits = Limits(memory_mb=12_000.0)
    small, large, larger = (a_trial(peak_memory_mb=size) for size in (11_000.0, 14_300.0, 16_000.0))
    assert ruling([small], [small], limits) is None
    assert ruling([large], [small], limits) == ("discard", "uses 14,300 MB, program.md allows 12,000")
    assert ruling([small], [large], limits) == (
        "keep", "within program.md's limits; the champion uses 14,300 MB, program.md allows 12,000"
    )  # fmt: skip
    assert ruling([large], [a_trial(peak_memory_mb=14_200.0)], limits) is None, "as large but for the noise"
    assert ruling([larger], [large], limits) == (
        "discard", "uses 16,000 MB, program.md allows 12,000; the champion breaks that less"
    )  # fmt: skip


def test_a_champion_far_above_a_limit_of_bpb_is_improved_step_by_step() -> None:
    limits = Limits(val_bpb=1.05)
    assert ruling([a_trial()], [a_trial()], limits, val_bpb=1.10, champion_bpb=1.20) is None
    found = ruling([a_trial()], [a_trial()], limits, val_bpb=1.04, champion_bpb=1.20)
    assert found is not None and found[0] == "keep"


def test_upstreams_examples_of_simplicity() -> None:
    """Its program.md: 0.001 that adds 20 lines is probably not worth it; 0.001 from deleting code is, and so is ~0."""
    adds, deletes = lines_less(-20), lines_less(20)
    assert not kept(adds, 0.001) and kept(adds, 0.0012)
    assert adds.reason("gain 0.0010", 0.001, 0.0002, kept=False) == (
        "the gain does not pay for its lines: gain 0.0010; 20 lines more, which cost 0.0010"
    )
    assert kept(deletes, 0.001) and kept(deletes, -0.0003)
    assert deletes.reason("0.0003 worse", -0.0003, 0.002, kept=True) == (
        "equal within the noise, and simpler: 0.0003 worse; 20 lines less, worth 0.0010"
    )


def test_a_gain_that_decides_is_told_first() -> None:
    assert lines_less(0).reason("gain 0.0052", 0.0052, 0.002, kept=True) == "gain 0.0052"
    assert lines_less(-12).reason("gain 0.0052", 0.0052, 0.002, kept=True) == (
        "gain 0.0052; 12 lines more, which cost 0.0006"
    )
    assert lines_less(1).reason("0.0040 worse", -0.004, 0.002, kept=False) == "0.0040 worse; 1 line less, worth 0.0001"


@pytest.mark.parametrize(
    ("candidate", "gain", "is_kept"),
    [
        (lines_less(1), 0.0, True),
        (lines_less(0), 0.0, False),
        (lines_less(0.5, noise=0.004), -0.0001, False),  # less than a line has no tolerance
        (lines_less(30), -0.0014, True),  # their price is 0.0015
        (lines_less(30), -0.0016, False),
        (lines_less(30, noise=0.004), -0.0016, True),  # the tolerance bears it
        (lines_less(30, noise=0.004), -0.0024, False),  # plainly worse: not equal within the noise
        (lines_less(300), -0.01, True),  # paid in full
        (lines_less(300, limits=Limits(bpb_per_line=0.0), noise=0.01), -0.001, False),
    ],
)
def test_equal_within_noise_and_simpler(candidate: Bonus, gain: float, is_kept: bool) -> None:
    assert kept(candidate, gain) is is_kept


def test_a_hurdle_holds_for_a_gain_and_is_paid_by_lines() -> None:
    hurdle = 0.0005
    assert not lines_less(0).keeps(0.0004, 0.002, 0.0004 - hurdle)
    assert lines_less(5).keeps(0.0004, 0.002, 0.0004 - hurdle)


def test_a_weight_on_speed() -> None:
    limits = Limits(bpb_per_doubled_speed=0.01)
    faster = bonus(limits, speed=20_600.0, champion_speed=10_000.0)
    assert faster.speed == faster.price == faster.most == pytest.approx(0.01)
    assert kept(faster, -0.009) and not kept(faster, -0.011)
    assert faster.reason("0.0020 worse", -0.002, 0.001, kept=True) == (
        "kept for its speed: 0.0020 worse; 2.06x the champion's tokens/s, worth 0.0100"
    )
    slower = bonus(limits, speed=5_000.0, champion_speed=10_000.0)
    assert not kept(slower, 0.002)
    assert slower.reason("gain 0.0020", 0.002, 0.001, kept=False).startswith(
        "the gain does not pay for its speed: gain 0.0020; 0.50x the champion's tokens/s, which cost 0.00"
    )
    assert [bonus(limits, speed=same, champion_speed=10_000.0).speed for same in (9_750.0, 10_250.0, None)] == [0, 0, 0]


def test_speed_is_the_median_of_trials_that_scored() -> None:
    rates = [a_trial(tokens_per_second=rate) for rate in (10.0, 30.0, 20.0)]
    assert speed([*rates, a_trial(verdict="crash", val_bpb=None, tokens_per_second=1.0)]) == 20.0
    assert speed([]) is None


LOSS, NOISE = 0.001, 0.01


def baseline() -> list[Experiment]:
    return [an_experiment(0, "keep", val_bpb=1.5, nodes=4000)]


def keep(lineage: list[Experiment], gain: float, less: int, limits: Limits) -> None:
    """Appends a kept experiment with so much gain, as it was believed, and so many nodes less."""
    nodes = (lineage[-1].nodes or 0) - less
    record = limits.to_record()
    made = an_experiment(len(lineage), "keep", val_bpb=1.5 - gain, champion_bpb=1.5, nodes=nodes, limits=record)
    lineage.append(made)


def test_a_loss_below_the_noise_is_not_borne_twenty_times() -> None:
    """Each removal costs LOSS, as the belief says, for a single line: only as many pass as the tolerance bears."""
    lineage = baseline()
    for _ in range(20):
        if kept(lines_less(1, noise=NOISE, lineage=lineage), -LOSS):
            keep(lineage, -LOSS, round(NODES_PER_LINE), Limits())
    assert len(lineage) == 1 + 2
    assert borne(lineage) <= TOLERATED * NOISE


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(-0.01, 0.01), st.integers(-400, 400)), max_size=16),
    st.floats(0.0003, 0.03),
    st.floats(0.0, 0.001),
)
def test_a_lineage_expects_to_lose_no_more_than_its_lines_are_worth_and_the_tolerance(
    steps: list[tuple[float, int]], noise: float, price: float
) -> None:
    limits, lineage, lost, paid = Limits(bpb_per_line=price), baseline(), 0.0, 0.0
    for gain, less in steps:
        size = lineage[-1].nodes or 0
        found = bonus(limits, nodes=size - less, champion_nodes=size, noise=noise, lineage=lineage)
        if kept(found, gain, noise):
            keep(lineage, gain, less, limits)
            lost, paid = lost - gain, paid + price * less / NODES_PER_LINE
    assert lost <= paid + TOLERATED * noise + 1e-9


@settings(deadline=None)
@given(less=st.floats(-200, 200), ratio=st.floats(0.25, 4), gain=st.floats(-0.05, 0.05))
def test_the_price_is_one_sum(less: float, ratio: float, gain: float) -> None:
    limits = Limits(bpb_per_doubled_speed=0.02)
    found = lines_less(less, limits=limits, speed=1000 * ratio, champion_speed=1000.0)
    assert found.price == pytest.approx(BPB_PER_LINE * found.lines + found.speed)
    assert kept(found, gain) == (gain + found.price > 0)
