"""Records as lines and tables."""

import io
from typing import Any

import pytest
from campaigns import a_trial, an_audit
from rich.console import Console, RenderableType
from rich.text import Text
from view_records import SPREAD, an_experiment

from core.campaign.confirm import Confirmation
from core.campaign.status import Status
from core.cli.render import tables
from core.records import Experiment
from core.store.ledger import DisturbedTrial


def printed(*parts: RenderableType, width: int = 200) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    for part in parts:
        console.print(part)
    return file.getvalue()


def test_columns_of_header_and_rows_stand_under_each_other() -> None:
    header = tables.header().plain
    row = tables.row(an_experiment(12, "keep", val_bpb=1.5, champion_bpb=1.5125)).plain
    for name, cell in (("#", "12"), ("val_bpb", "1.5000"), ("gain", "+0.0125"), ("steps", "10")):
        assert header.index(name) + len(name) == row.index(cell) + len(cell)
    assert header.index("hypothesis") == row.index("idea 12")


def test_a_worse_score_has_a_minus_and_a_crash_has_no_numbers() -> None:
    worse = tables.row(an_experiment(1, "discard", val_bpb=1.52, champion_bpb=1.5)).plain
    assert "-0.0200" in worse
    crash = tables.row(an_experiment(2, "crash", reason="the loss is nan at step 3")).plain
    assert crash.split()[:4] == ["2", "crash", "-", "-"]
    assert crash.endswith("idea 2 [the loss is nan at step 3]")


def test_what_others_wrote_is_never_read_as_markup() -> None:
    hostile = "[red]wide[/red] [link=file:///]x[/link] [/]"
    experiment = an_experiment(1, "keep", val_bpb=1.0, hypothesis=hostile, reason=hostile)
    trial = a_trial(verdict="crash", reason=hostile, val_bpb=None, choices={"kernel": hostile})
    text = printed(tables.row(experiment), tables.verdict(experiment), tables.trial(trial))
    assert text.count(hostile) == 5


def test_a_line_is_whole_where_there_is_no_terminal_and_cut_where_there_is() -> None:
    long = tables.row(an_experiment(1, "keep", val_bpb=1.0, hypothesis="word " * 60))
    pipe, screen = io.StringIO(), io.StringIO()
    tables.emit(Console(file=pipe, width=80), long)
    tables.emit(Console(file=screen, width=80, force_terminal=True, color_system=None), long)
    assert pipe.getvalue().rstrip("\n") == long.plain
    assert screen.getvalue().count("\n") == 1
    assert len(screen.getvalue().rstrip("\n")) <= 80


def test_a_narrow_terminal_shows_fewer_columns_and_cuts_no_number() -> None:
    kept = an_experiment(12, "keep", val_bpb=1.5, champion_bpb=1.5125, wall_seconds=12345.6)
    for width in (80, 100):
        head, line = tables.header(width).plain, tables.row(kept, width).plain
        assert ("seconds" in head, "12345.6" in line, "steps" in head) == (width == 100,) * 3
        assert head.index("hypothesis") == line.index("idea 12")
        assert "+0.0125  0.0080" in line
    assert tables.header(80).plain.index("hypothesis") <= 44


def test_what_was_kept_within_the_spread_is_called_so() -> None:
    lucky = an_experiment(3, "keep", val_bpb=1.495, champion_bpb=1.5)
    assert lucky.spread == SPREAD > 0.005
    assert tables.row(lucky, 80).plain.endswith("[within the spread] idea 3")
    told = printed(tables.verdict(lucky))
    assert told.startswith("keep, within the spread  experiment 3")
    assert "(spread of the baseline's seeds 0.0080): the gain is within it and may be luck" in told
    for number, verdict, best in ((4, "keep", 1.51), (5, "discard", 1.5), (0, "keep", None)):
        clear = an_experiment(number, verdict, val_bpb=1.5, champion_bpb=best)  # type: ignore[arg-type]
        assert "within" not in tables.row(clear).plain + printed(tables.verdict(clear))


def a_belief(**values: object) -> Experiment:
    base: dict[str, Any] = {
        "val_bpb": 1.7315, "deviation": 0.00107, "champion_bpb": 1.7438, "champion_deviation": 0.0009,
        "probability": 0.934, "effect": 0.0141, "effect_error": 0.0013, "spread": None,
    }  # fmt: skip
    return an_experiment(7, **{"verdict": "keep", **base, **values})


@pytest.mark.parametrize(
    ("width", "cells"),
    [
        (59, ["7", "keep", "1.7315", "+0.0123"]),
        (69, ["7", "keep", "1.7315", "+-", "0.0021", "+0.0123"]),
        (80, ["7", "keep", "1.7315", "+-", "0.0021", "+0.0123", "93", "%"]),
        (120, ["7", "keep", "1.7315", "+-", "0.0021", "+0.0123", "93", "%", "1", "10", "25.0"]),
    ],
)
def test_a_row_of_beliefs_has_the_interval_and_the_chance(width: int, cells: list[str]) -> None:
    head, line = (
        part.plain for part in (tables.header(width, beliefs=True), tables.row(a_belief(), width, beliefs=True))
    )
    assert line.split() == [*cells, "idea", "7"]
    assert head.index("hypothesis") == line.index("idea 7")
    assert ("+- (95 %)" in head, "better" in head, "spread" in head) == (width >= 60, width >= 70, False)


def test_a_belief_is_told_with_its_interval_and_with_what_was_measured() -> None:
    told = printed(tables.verdict(a_belief(reason="gain 0.0123")), width=80)
    assert max(map(len, told.splitlines())) <= 80
    assert told.startswith("keep, 93 % likely better  experiment 7: idea 7\n")
    assert "val_bpb 1.7315 +- 0.0021, champion 1.7438 +- 0.0018, gain +0.0123\n" in told
    assert "measured +0.0141 +- 0.0025" in told
    assert "spread" not in told
    assert "spread" not in tables.row(a_belief(champion_bpb=1.7316), 200, beliefs=True).plain


def test_a_stopped_experiment_has_no_score_and_its_reason() -> None:
    reason = "at 34 % of its budget it was 0.0912 behind"
    lost = a_belief(verdict="stopped", val_bpb=None, deviation=None, probability=None, effect=None, reason=reason)
    assert tables.row(lost, 120, beliefs=True).plain.split()[:6] == ["7", "stopped", "-", "-", "-", "-"]
    assert tables.row(lost, 120, beliefs=True).plain.endswith(f"idea 7 [{reason}]")
    trial = a_trial(verdict="stopped", val_bpb=None, reason=reason, stop_progress=0.34)
    assert "at 34% it could hardly have won any more, and was stopped" in printed(tables.trial(trial))
    watched = a_trial(val_bpb=1.9, stop_progress=0.5)
    assert "at 50% it could hardly have won any more, and ran on" in printed(tables.trial(watched))


def test_a_disturbed_trial_says_that_it_is_no_evidence_and_why() -> None:
    slowed = a_trial(disturbed="other processes took 45% of the device", conditions={"other_load": 0.45})
    text = printed(tables.trial(slowed))
    assert "disturbed  other processes took 45% of the device: counts only beside trials slowed alike" in text
    assert "warning" not in text


COLUMNS = [
    tables.Column("name"),
    tables.Column("score", right=True),
    tables.Column("memory", right=True, spare=2),
    tables.Column("wall", right=True, spare=1),
    tables.Column("nothing"),
    tables.Column("where", words=True),
]
ROWS: list[tuple[str | Text, ...]] = [
    ("a-rather-long-name", "1.654321", "45,123 MB", "3h 20m", "", "torch on cuda with words that wrap"),
    ("short", "0.1", "1 MB", "1.0 s", "", Text("crash: out of memory", style="red")),
]


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (120, ["name", "score", "memory", "wall", "where"], ""),
        (62, ["name", "score", "memory", "wall"], ""),
        (46, ["name", "score", "wall"], "memory"),
        (34, ["name", "score"], "memory, wall"),
    ],
)
def test_a_table_leaves_columns_out_and_cuts_nothing(width: int, shown: list[str], left_out: str) -> None:
    lines = printed(tables.fitted(COLUMNS, ROWS, width), width=width).splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert next(line for line in lines if line.strip()).split() == shown
    assert "…" not in text
    for column, cell in zip(COLUMNS, ROWS[0], strict=True):
        if column.words or column.name in shown:
            assert "".join(str(cell).split()) in "".join(text.split())
    assert (f"also has: {left_out}" in " ".join(text.split())) == bool(left_out)


def test_a_trial_tells_its_numbers() -> None:
    text = printed(tables.trial(a_trial(val_bpb=1.234567, mfu=0.398, steps=953, choices={"kernel": "sdpa (CPU)"})))
    for part in ("1.234567", "39.8%", "953 steps", "sdpa (CPU)"):
        assert part in text


def test_a_disturbed_trial_has_a_warning_and_a_calm_one_has_none() -> None:
    hot = {"throttled": 0.25, "other_load": 0.5, "clock_mhz": 1200.0}
    text = printed(tables.trial(a_trial(conditions=hot)))
    assert "warning" in text
    assert "throttled in 25% of the samples; other processes took 50% of the device: this changed" in text
    assert "warning" not in printed(tables.trial(a_trial(conditions={"throttled": 0.0, "other_load": 0.05})))


def test_the_score_on_the_test_split_is_told_where_there_is_one() -> None:
    assert "1.765432" in printed(tables.trial(a_trial(test_bpb=1.765432)))
    assert "test_bpb" not in printed(tables.trial(a_trial()))


def a_confirmation(champion: int, line: str) -> Confirmation:
    return Confirmation(
        champion=champion, commit="c" * 40, claimed=0.1, pairs=(), failed=(), unpaired=(), unaudited=(), val_gain=None,
        test_gain=None, val=None, test=None, difference=None, share=None, alarm="", note="", conclusion="", line=line,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "confirmation", "said"),
    [
        (0, None, None),
        (4, None, "not yet: autoresearch confirm"),
        (4, a_confirmation(4, "confirmed on 3 fresh seeds"), "retest       confirmed on 3 fresh seeds"),
        (
            4,
            a_confirmation(2, "confirmed on 3"),
            "of experiment 2, which is no longer the champion: confirmed on 3",
        ),
    ],
)
def test_a_status_tells_the_last_confirmation(number: int, confirmation: Confirmation | None, said: str | None) -> None:
    values = Status(
        baseline_bpb=2.0, champion_bpb=1.9, champion_commit="c" * 40, experiments=4, kept=1, discarded=3, crashed=0,
        invalid=0, experiments_per_hour=None, overhead_fraction=None, yardstick=None, confirmation=confirmation,
    )  # fmt: skip
    text = printed(tables.status(values, an_experiment(number, "keep", val_bpb=1.9), "somewhere"))
    assert said in text if said else "retest" not in text


@pytest.mark.parametrize("champion", [None, 1.9])
def test_a_status_tells_the_gain_or_that_there_is_none(champion: float | None) -> None:
    values = Status(
        baseline_bpb=None if champion is None else 2.0,
        champion_bpb=champion,
        champion_commit=None if champion is None else "c" * 40,
        experiments=3,
        kept=1,
        discarded=1,
        crashed=1,
        invalid=0,
        experiments_per_hour=None if champion is None else 12.0,
        overhead_fraction=None if champion is None else 0.25,
        yardstick=None if champion is None else "y" * 64,
    )
    text = printed(tables.status(values, None, "somewhere"))
    assert ("1.9000 bpb, +0.1000 from the baseline's 2.0000" in text) == (champion is not None)
    assert ("12.0 experiments an hour; 25% of the wall time is not training" in text) == (champion is not None)
    assert "3: 1 kept, 1 discarded, 1 crashed, 0 invalid" in text


@pytest.mark.parametrize(
    ("baseline", "said"),
    [(2.0, "+0.1000 from the baseline's 2.0000; its seeds differ by 0.0080"), (1.905, "0.0080: the gain is within it")],
)
def test_a_status_has_the_noise_beside_the_gain(baseline: float, said: str) -> None:
    values = Status(
        baseline_bpb=baseline, champion_bpb=1.9, champion_commit="c" * 40, experiments=4, kept=2, discarded=2,
        crashed=0, invalid=0, experiments_per_hour=None, overhead_fraction=None, yardstick=None, kept_within_spread=1,
    )  # fmt: skip
    text = printed(tables.status(values, an_experiment(4, "keep", val_bpb=1.9, champion_bpb=1.95), "somewhere"))
    assert said in text
    assert ("luck" in text) == (baseline < 1.908)
    assert "4: 2 kept (1 within the spread), 2 discarded" in text


def test_a_status_of_beliefs_has_intervals_and_says_what_they_are() -> None:
    values = Status(
        baseline_bpb=1.9387, champion_bpb=1.7315, champion_commit="c" * 40, experiments=12, kept=3, discarded=5,
        stopped=2, crashed=1, invalid=1, experiments_per_hour=None, overhead_fraction=None, yardstick=None,
        baseline_deviation=0.0015, champion_deviation=0.00107, disturbed=2,
        disturbed_trials=tuple(
            DisturbedTrial(experiment=number, role="candidate", seed=1, val_bpb=2.0, reason="other processes")
            for number in (0, 3)
        ),
    )  # fmt: skip
    lines = [line.rstrip() for line in printed(tables.status(values, a_belief(), "somewhere"), width=80).splitlines()]
    text = "\n".join([*lines, ""])
    assert "champion     1.7315 +- 0.0021 bpb, +0.2072 from the baseline's 1.9387 +- 0.0029\n" in text
    assert "+-           the true score lies within it with a probability of 95 %\n" in text
    assert "12: 3 kept, 5 discarded, 2 stopped early, 1 crashed, 1 invalid" in text
    assert "disturbed    2 trials of experiments 0 (seed 1), 3 (seed 1); the last: other" in text
    assert "luck" not in text


def test_an_audit_tells_what_was_checked_and_how_closely_it_matched() -> None:
    small = an_audit(kind="small", positions=16, largest=3.8e-7, permuted_bpb=None)
    assert "16 positions, largest difference 4e-07 of 0.02 nats" in printed(tables.trial(a_trial(audit=small)))
    kept = an_experiment(1, "keep", val_bpb=1.0, audit=an_audit(hidden_bpb=0.00123, permuted_bpb=7.891))
    text = printed(tables.verdict(kept))
    assert "a gain of 0.0012 bpb could be hidden; 7.89 bpb with the weights in another order" in text
