"""The ledger: append-only, in order, durable, and quick to sum."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from campaigns import a_trial

from core.campaign.drift import COST, Throughput, throughputs
from core.records import Experiment, Measurement, Trial, UserError
from core.store.ledger import Ledger, Totals


def record(number: int, *trials: Trial, **values: object) -> Experiment:
    base = Experiment(
        number=number, commit=f"c{number}", parent="c0", hypothesis="wider\n\nbecause ä", agent="search",
        verdict="keep", reason="lower", val_bpb=1.5, champion_bpb=1.6, spread=0.01, fingerprint=f"f{number}",
        wall_seconds=12.0, train_seconds=9.0, ended="2026-01-01T00:00:00+00:00", trials=trials,
    )  # fmt: skip
    return dataclasses.replace(base, **values)  # type: ignore[arg-type]


def add(ledger: Ledger, experiment: Experiment, **constants: float | str | tuple[float, ...]) -> Experiment:
    for place, trial in enumerate(experiment.trials):
        ledger.record_trial(experiment.number, place, experiment.commit, trial)
    ledger.record_experiment(experiment, constants)
    return experiment


def measured(role: str, experiment: int, trial: Trial, **values: object) -> Measurement:
    base = Measurement(
        purpose="confirm", series=1, role=role, experiment=experiment, commit=f"c{experiment}", trial=trial  # type: ignore[arg-type]
    )  # fmt: skip
    return dataclasses.replace(base, **values)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger.create(tmp_path / "ledger.db", {"tag": "t"})
    yield made
    made.close()


def test_what_is_written_reads_back(ledger: Ledger) -> None:
    first = add(ledger, record(0, a_trial(seed=1), a_trial(seed=2, val_bpb=1.7)))
    second = add(
        ledger,
        record(1, a_trial(verdict="crash", val_bpb=None, reason="bad \udc80 \0 byte"), verdict="crash", val_bpb=None),
        LR=0.1, BETAS=(0.8, 0.9), PATTERN="SL",
    )  # fmt: skip
    ledger.close()
    again = Ledger.open(ledger.path)
    assert again.experiments() == [first, second]
    assert again.experiment(1) == second
    assert again.experiment(2) is None
    assert again.last() == second
    assert again.champion() == first
    assert again.trials(0) == first.trials
    assert again.constants(1) == {"LR": 0.1, "BETAS": (0.8, 0.9), "PATTERN": "SL"}
    assert again.experiments(trials=False) == [dataclasses.replace(e, trials=()) for e in (first, second)]
    assert again.experiments(1, 2) == [second]
    assert again.facts() == {"tag": "t"}
    assert again.count() == 2
    assert again.candidate_of_trials(0) == "c0"
    assert again.candidate_of_trials(5) is None
    again.check()
    again.close()


@pytest.mark.parametrize("table", ["trials", "experiments", "facts", "measurements"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = 0", "DELETE FROM {}", "REPLACE INTO {0} SELECT * FROM {0}"])
def test_nothing_is_changed_once_written(ledger: Ledger, table: str, change: str) -> None:
    add(ledger, record(0, a_trial()))
    ledger.record_measurement(measured("baseline", 0, a_trial(seed=3)))
    before = ledger.experiments(), ledger.measurements("confirm")
    column = "value" if table == "facts" else "val_bpb"
    outside = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError):
        outside.execute(change.format(table, column))
    outside.close()
    assert (ledger.experiments(), ledger.measurements("confirm")) == before


def test_measurements_are_of_recorded_experiments_and_read_by_series(ledger: Ledger) -> None:
    assert ledger.measurements("confirm") == []
    add(ledger, record(0, a_trial(seed=1), a_trial(seed=2)))
    add(ledger, record(1, a_trial(seed=1)))
    ran = [
        measured("baseline", 0, a_trial(seed=3, test_bpb=1.6, test_yardstick="t")),
        measured("champion", 1, a_trial(seed=3, verdict="crash", val_bpb=None)),
        measured("baseline", 0, a_trial(seed=1), purpose="drift", series=7),
        measured("baseline", 0, a_trial(seed=8), series=4),
    ]
    for one in ran:
        ledger.record_measurement(one)
    assert ledger.measurements("confirm", 1) == ran[:2]
    assert ledger.measurements("confirm") == ran[3:]
    assert ledger.measurements("drift") == ran[2:3]
    assert ledger.measurements("drift", 1) == []
    assert ledger.seeds() == {1, 2, 3, 8}
    assert ledger.measurements_of(0, "confirm") == [ran[0], ran[3]]
    assert ledger.all_measurements() == ran
    with pytest.raises(sqlite3.IntegrityError, match="of a recorded experiment"):
        ledger.record_measurement(measured("champion", 2, a_trial(seed=9)))
    with pytest.raises(sqlite3.IntegrityError, match="of a recorded experiment"):
        ledger.record_measurement(dataclasses.replace(ran[0], series=9, commit="another"))


def test_throughputs_are_of_what_scored_and_as_a_record_tells_them(ledger: Ledger) -> None:
    fast, slow = a_trial(tokens_per_second=100.0, choices={"b": "1", "a": "ä"}), a_trial(tokens_per_second=50.0)
    add(ledger, record(0, fast, a_trial(verdict="crash", val_bpb=None), a_trial(tokens_per_second=None)))
    add(ledger, record(1, slow))
    found = [Throughput(*one) for one in ledger.throughputs(0, COST)]
    assert [one.tokens_per_second for one in found] == [100.0, 50.0]
    assert [json.loads(one.cost) for one in found] == [json.loads(one.cost) for one in throughputs([fast, slow])]
    assert [one[1] for one in ledger.throughputs(1, COST)] == [50.0]


def test_a_ledger_of_version_1_is_refused_and_left_untouched(ledger: Ledger) -> None:
    ledger.close()
    connection = sqlite3.connect(ledger.path)
    connection.executescript("DROP TABLE measurements; DROP TABLE seals; PRAGMA user_version = 1;")
    connection.close()
    before = ledger.path.read_bytes()
    with pytest.raises(UserError, match="expected a ledger of version 2 or 3, found version 1; it was left untouched"):
        Ledger.open(ledger.path)
    assert ledger.path.read_bytes() == before


def test_purposes_and_roles_are_open_ended_and_a_seed_may_be_measured_again(ledger: Ledger) -> None:
    add(ledger, record(0, a_trial()))
    ran = [
        measured("champion", 0, a_trial(seed=3, disturbed="other work"), purpose="compare"),
        measured("champion", 0, a_trial(seed=3), purpose="compare"),
        measured("without-4", 0, a_trial(), purpose="ablate", commit="another"),
    ]
    for one in ran:
        ledger.record_measurement(one)
    assert ledger.all_measurements() == ran
    for values in ({"purpose": ""}, {"role": ""}):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            ledger.record_measurement(dataclasses.replace(ran[0], **values))  # type: ignore[arg-type]


def test_rows_come_in_order(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="without a gap"):
        ledger.record_experiment(record(1), {})
    with pytest.raises(sqlite3.IntegrityError, match="without a gap"):
        ledger.record_trial(0, 1, "c0", a_trial())
    ledger.record_trial(0, 0, "c0", a_trial())
    with pytest.raises(sqlite3.IntegrityError, match="without a gap"):
        ledger.record_trial(0, 0, "c0", a_trial())
    with pytest.raises(sqlite3.IntegrityError, match="run one candidate"):
        ledger.record_trial(0, 1, "another", a_trial())
    with pytest.raises(sqlite3.IntegrityError, match="after its trials"):
        ledger.record_experiment(record(0), {})
    with pytest.raises(sqlite3.IntegrityError, match="after its trials"):
        ledger.record_experiment(record(0, a_trial(), commit="another"), {})
    ledger.record_experiment(record(0, a_trial()), {})
    with pytest.raises(sqlite3.IntegrityError):
        ledger.record_experiment(record(0), {})
    with pytest.raises(sqlite3.IntegrityError, match="open experiments"):
        ledger.record_trial(0, 1, "c0", a_trial())
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        ledger.record_experiment(record(1, commit="c0"), {})
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        ledger.record_experiment(record(1, verdict="won"), {})
    assert [e.number for e in ledger.experiments()] == [0]


def test_several_experiments_may_be_open_and_their_rows_come_in_order(ledger: Ledger) -> None:
    add(ledger, record(0, a_trial()))
    trials = {1: [a_trial(seed=1), a_trial(seed=2)], 2: [a_trial(seed=3)], 3: [a_trial(seed=4), a_trial(seed=5)]}
    for number, place in ((2, 0), (1, 0), (3, 0), (1, 1), (3, 1)):
        ledger.record_trial(number, place, f"c{number}", trials[number][place])
    assert ledger.trials(3) == tuple(trials[3])
    assert ledger.candidate_of_trials(2) == "c2"
    with pytest.raises(sqlite3.IntegrityError, match="without a gap"):
        ledger.record_experiment(record(2, *trials[2]), {})
    for number in (1, 2, 3):
        ledger.record_experiment(record(number, *trials[number], base="c0" if number < 3 else "c1"), {})
    assert [e.trials for e in ledger.experiments(1)] == [tuple(trials[number]) for number in (1, 2, 3)]
    assert ledger.altered() == []
    bases = sqlite3.connect(ledger.path).execute("SELECT base FROM experiments ORDER BY number").fetchall()
    assert bases == [("c0",), ("c0",), ("c0",), ("c1",)]


def test_a_judge_reads_the_kept_ones_and_the_effects(ledger: Ledger) -> None:
    add(ledger, record(0, effect=None))
    for number in range(1, 7):
        verdict = "keep" if number % 2 else "discard"
        add(ledger, record(number, verdict=verdict, effect=number / 100, effect_error=0.5 if number != 5 else None))
    assert [e.number for e in ledger.lineage(3)] == [1, 3, 5]
    assert ledger.effects(4) == [(0.03, 0.5), (0.04, 0.5), (0.06, 0.5)]
    assert ledger.effects(200) == [(number / 100, 0.5) for number in (1, 2, 3, 4, 6)]


def test_the_kind_of_device_is_recorded_once_and_another_is_refused(ledger: Ledger) -> None:
    ledger.record_device_kind(a_trial(verdict="crash", device="auto"))
    assert "device_kind" not in ledger.facts()
    ledger.record_device_kind(a_trial(device="cuda:1 (NVIDIA H100 (80 GB))"))
    assert ledger.facts()["device_kind"] == "cuda (NVIDIA H100 (80 GB))"
    ledger.record_device_kind(a_trial(device="cuda:0 (NVIDIA H100 (80 GB))"))
    with pytest.raises(
        UserError, match="ran on cuda .NVIDIA H100 .80 GB.., and this one on cuda .NVIDIA A100.: scores"
    ):
        ledger.record_device_kind(a_trial(device="cuda (NVIDIA A100)"))


def test_totals_leave_the_baseline_out_of_the_counts(ledger: Ledger) -> None:
    empty = ledger.totals()
    assert (empty.experiments, empty.wall_seconds) == (0, 0)
    add(ledger, record(0, val_bpb=2.0))
    add(ledger, record(1, verdict="discard", val_bpb=2.5))
    add(ledger, record(2, verdict="keep", val_bpb=1.75))
    add(ledger, record(3, verdict="crash", val_bpb=None))
    add(ledger, record(4, verdict="crash", val_bpb=None))
    add(ledger, record(5, verdict="invalid", val_bpb=None))
    add(ledger, record(6, verdict="stopped", val_bpb=None))
    assert ledger.totals() == Totals(
        experiments=6, kept=1, discarded=1, stopped=1, crashed=2, invalid=1, candidate_seconds=72.0,
        wall_seconds=84.0, train_seconds=63.0, kept_within_spread=1, disturbed=0,
    )  # fmt: skip
    assert [e.number for e in ledger.best(2)] == [2, 0]


def test_the_totals_count_what_was_kept_within_the_spread(ledger: Ledger) -> None:
    add(ledger, record(0, val_bpb=2.0, spread=0.1))
    add(ledger, record(1, verdict="keep", val_bpb=1.8, champion_bpb=2.0, spread=0.1))
    add(ledger, record(2, verdict="keep", val_bpb=1.75, champion_bpb=1.8, spread=0.1))
    add(ledger, record(3, verdict="discard", val_bpb=1.76, champion_bpb=1.75, spread=0.1))
    add(ledger, record(4, verdict="keep", val_bpb=1.74, champion_bpb=1.75, spread=None))
    assert ledger.totals().kept_within_spread == 1
    assert [e.number for e in ledger.experiments() if e.kept_within_spread] == [2]


def test_a_champions_newest_belief_is_what_the_last_experiment_held_against_it(ledger: Ledger) -> None:
    def against(commit: str, mean: float | None, deviation: float | None) -> dict[str, object]:
        return {"parent": commit, "champion_bpb": mean, "champion_deviation": deviation}

    add(ledger, record(0, val_bpb=2.0, deviation=0.01, champion_bpb=None))
    add(ledger, record(1, verdict="discard", val_bpb=1.95, deviation=0.02, **against("c0", 2.01, 0.009)))
    add(ledger, record(2, val_bpb=1.9, deviation=0.02, **against("c0", 2.02, 0.008)))
    assert ledger.best(1)[0].val_bpb == 1.9  # as recorded, while nothing was held against it
    add(ledger, record(3, verdict="discard", val_bpb=1.93, deviation=0.02, **against("c2", 1.94, 0.007)))
    add(ledger, record(4, verdict="crash", val_bpb=None, **against("c2", None, None)))
    add(ledger, record(5, verdict="stopped", val_bpb=None, **against("c2", 1.96, 0.006)))

    now = [ledger.believed(experiment) for experiment in ledger.experiments()]
    assert [(e.val_bpb, e.deviation) for e in now[:3]] == [(2.02, 0.008), (1.95, 0.02), (1.96, 0.006)]
    assert [dataclasses.replace(e, val_bpb=0.0, deviation=0.0) for e in now] == [
        dataclasses.replace(e, val_bpb=0.0, deviation=0.0) for e in ledger.experiments()
    ]
    assert [(e.number, e.val_bpb) for e in ledger.best(9)] == [(3, 1.93), (1, 1.95), (2, 1.96), (0, 2.02)]
    assert [e.number for e in ledger.best(2)] == [3, 1]
    assert ledger.totals().kept_within_spread == 0


def test_a_score_without_a_belief_stays_as_it_was_recorded(ledger: Ledger) -> None:
    first = add(ledger, record(0, val_bpb=2.0))
    add(ledger, record(1, verdict="discard", val_bpb=2.1, champion_bpb=2.2, parent="c0"))
    assert ledger.believed(first) == first
    assert ledger.best(2)[0].val_bpb == 2.0


def test_the_totals_count_disturbed_trials(ledger: Ledger) -> None:
    slowed = a_trial(disturbed="other processes took 45% of the device")
    add(ledger, record(0, slowed, a_trial(), slowed))
    assert ledger.totals().disturbed == 2


def test_only_what_was_decided_counts_as_a_repeat(ledger: Ledger) -> None:
    add(ledger, record(0, fingerprint="a"))
    add(ledger, record(1, fingerprint="b", verdict="crash", val_bpb=None))
    add(ledger, record(2, fingerprint="c", verdict="discard"))
    add(ledger, record(3, fingerprint="d", verdict="stopped", val_bpb=None))
    found = {name: ledger.decided(name) for name in "abcde"}
    assert {name: e.number for name, e in found.items() if e is not None} == {"a": 0, "c": 2, "d": 3}
    assert [ledger.knows(name) for name in "abcde"] == [True, True, True, True, False]


@pytest.mark.parametrize("pragma", ["user_version = 4", "application_id = 7"])
def test_another_version_is_refused_and_untouched(ledger: Ledger, pragma: str) -> None:
    ledger.close()
    connection = sqlite3.connect(ledger.path)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    before = ledger.path.read_bytes()
    with pytest.raises(UserError, match="expected a ledger of version 2 or 3.*untouched"):
        Ledger.open(ledger.path)
    assert ledger.path.read_bytes() == before
    assert [path.name for path in ledger.path.parent.iterdir()] == ["ledger.db"]


def test_damage_is_told(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(60):
        add(ledger, record(number, a_trial()))
    ledger.close()
    whole = ledger.path.read_bytes()
    for cut in (len(whole) // 2, 4096, 50, 0):
        path = tmp_path / f"cut-{cut}.db"
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError) as told:
            opened = Ledger.open(path)
            try:
                opened.check()
            finally:
                opened.close()
        assert str(path) in str(told.value)
    with pytest.raises(UserError, match="there is none"):
        Ledger.open(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(UserError, match="already"):
        Ledger.create(ledger.path, {})


def test_a_copy_of_the_file_is_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    add(ledger, record(0, a_trial()))
    # while it is open: no write-ahead log holds back what was recorded
    shutil.copyfile(ledger.path, tmp_path / "copy.db")
    copy = Ledger.open(tmp_path / "copy.db")
    assert copy.experiments() == ledger.experiments()
    copy.close()


def test_a_full_disk_is_told_and_loses_nothing(ledger: Ledger) -> None:
    add(ledger, record(0, a_trial()))
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to meet SQLITE_FULL
    with pytest.raises(UserError, match="disk is full; free some space"):
        for place in range(100):
            ledger.record_trial(1, place, "c1", a_trial(reason="x" * 4000))
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    ledger.check()
    assert ledger.count() == 1
    recorded = len(ledger.trials(1))
    ledger.record_trial(1, recorded, "c1", a_trial())


def test_a_reader_waits_for_a_writer_and_is_told_when_it_takes_too_long(ledger: Ledger) -> None:
    add(ledger, record(0, a_trial()))
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    ledger._connection.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(UserError, match="another program holds it"):
        ledger.count()
    other.execute("ROLLBACK")
    assert ledger.count() == 1
    other.close()
