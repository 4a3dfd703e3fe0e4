"""The ledger: every experiment and trial of a campaign, append-only, in SQLite.

A rollback journal instead of a write-ahead log: the ledger is one file that can be copied with its folder and works
on network file systems; `synchronous=EXTRA` makes each row durable before the write returns.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.records import (
    VERDICTS,
    Constant,
    Experiment,
    Measurement,
    Purpose,
    Trial,
    UserError,
    from_json,
    one_yardstick,
    to_json,
)
from core.store import hash_chain
from core.store.schema import APPLICATION, READABLE, SCHEMA, VERSION
from core.store.sqlite import damaged, other_version, sqlite_as_user_error, transaction

STUDIES = ("ablate", "transfer")  # how purposes of measurements begin that belong to no experiment and no confirmation
ATTEMPTS = 4  # at a measurement whose trial is disturbed each time


@dataclass(frozen=True)
class Totals:
    """Sums over the experiments, in the order of `Ledger.totals`. The counts leave out experiment 0, the baseline."""

    experiments: int
    kept: int
    discarded: int
    stopped: int
    crashed: int
    invalid: int
    candidate_seconds: float  # wall, without the baseline's
    wall_seconds: float
    train_seconds: float
    kept_within_spread: int
    disturbed: int  # trials, measurements among them, that are no evidence


# Of a table's columns, the fields of its record that repeat them; "" where none does.
_TRIAL = {"seed": "seed", "verdict": "verdict", "val_bpb": "val_bpb", "wall_seconds": "wall_seconds"}
_COLUMNS = {
    "trials": {"experiment": "", "trial": "", **_TRIAL},
    "experiments": {
        "number": "number", "candidate": "commit", "parent": "parent", "verdict": "verdict", "val_bpb": "val_bpb",
        "fingerprint": "fingerprint", "wall_seconds": "wall_seconds", "train_seconds": "train_seconds",
    },
    "measurements": {"number": "", **_TRIAL, "test_bpb": "test_bpb"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StopTotals:
    """What stopping hopeless trials early has saved, and how often it would have been wrong."""

    stopped: int  # trials
    saved_seconds: float  # of training, that they did not take
    audited: int  # experiments that would have been stopped, and ran on in secret: one in twenty
    wrong: int  # of these: kept


@dataclass(frozen=True, kw_only=True)
class DisturbedTrial:
    """A trial whose speed something other than its trainer changed, or may have."""

    experiment: int  # whose trainer ran
    role: str  # candidate, champion or baseline
    seed: int
    val_bpb: float | None
    reason: str  # what changed its speed


class Ledger:
    """An open ledger. Methods raise UserError where the file is damaged, locked or the disk is full.

    One of version 2 goes on in its own tables; what they can't hold is a UserError.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, version: int) -> None:
        self.path = path
        self.version = version
        self._connection = connection

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str]) -> Ledger:
        """A new ledger with the campaign's identity in `facts`. The file must not exist."""
        if path.exists():
            raise UserError(f"there is a ledger at {path} already")
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        ledger = cls(path, connection, VERSION)
        with sqlite_as_user_error(path):
            connection.executescript(
                f"PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; BEGIN; {SCHEMA}"
                f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        for name, value in facts.items():
            ledger.record_fact(name, value)
        return ledger

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """The ledger at `path`. One of a version that can't be read is refused and left untouched."""
        if not path.exists():
            raise UserError(f"expected a ledger at {path}, and there is none")
        _refuse_foreign(path)
        with sqlite_as_user_error(path):
            # mode=rw makes no file, and falls back to reading where the file can't be written
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30
            )
        try:
            with sqlite_as_user_error(path):
                connection.execute("SELECT 1 FROM facts LIMIT 1").fetchone()  # takes back what was cut off
                connection.execute("PRAGMA synchronous = EXTRA")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, version)

    @property
    def attempts(self) -> int:
        """How many trials a measurement with one seed may take, where each is disturbed. Version 2 holds one."""
        return ATTEMPTS if self.version >= 3 else 1

    def close(self) -> None:
        self._connection.close()

    def altered(self) -> list[str]:
        """The names of rows that were changed after they were written. Reads all of the file."""
        with sqlite_as_user_error(self.path):
            answers = [row[0] for row in self._connection.execute("PRAGMA integrity_check")]
            faults = [f"the ledger's file: {answer}" for answer in answers if answer != "ok"]
            return faults or list(hash_chain.altered(self._connection))

    def contradictions(self) -> Iterator[str]:
        """The names of rows whose columns say something else than their record. Reads all of the file."""
        for table, fields in _COLUMNS.items():
            for row in self._rows(f"SELECT {', '.join(fields)}, record FROM {table} ORDER BY rowid"):
                record = json.loads(row[-1])
                columns = dict(zip(fields, row, strict=False))
                if any(columns[name] != record.get(field) for name, field in fields.items() if field):
                    yield _row_name(table, columns)

    def check(self) -> None:
        """Raises UserError if the file's pages are damaged. Reads all of it."""
        with sqlite_as_user_error(self.path):
            answers = [row[0] for row in self._connection.execute("PRAGMA quick_check")]
        if answers != ["ok"]:
            raise damaged(self.path, answers[0])

    # Identity

    def facts(self) -> dict[str, str]:
        return dict(self._rows("SELECT name, value FROM facts"))

    def record_fact(self, name: str, value: str) -> None:
        self._write("facts", name, value)

    def record_yardsticks(self, trial: Trial) -> None:
        """Records the campaign's yardsticks with its first trials; UserError for a trial of another one."""
        facts = self.facts()
        for name, new in (("yardstick", trial.yardstick), ("test_yardstick", trial.test_yardstick)):
            if new and name in facts:
                one_yardstick((facts[name], new), "go on with the version and the corpus that the campaign began with")
            elif new:
                self.record_fact(name, new)

    def record_device_kind(self, trial: Trial) -> None:
        """Records the kind of device with the first trial that scored; UserError for a trial on another kind."""
        if self.version < 3 or trial.verdict != "scored":
            return
        known = self.facts().get("device_kind")
        if known is None:
            self.record_fact("device_kind", trial.device_kind)
        elif known != trial.device_kind:
            raise UserError(
                f"the campaign's trials ran on {known}, and this one on {trial.device_kind}: scores of one time budget "
                "compare on one kind of device only; go on there, or start a new campaign: autoresearch init DIR"
            )

    # Writing

    def record_trial(self, experiment: int, trial: int, candidate: str, record: Trial) -> None:
        """One trial of an open experiment, durable when this returns."""
        if self.version < 3:
            if record.verdict == "stopped":
                raise self._not_in_version_2("a trial that was stopped")
            if experiment > self.count():
                raise self._not_in_version_2("trials of several open experiments")
        self._write(
            "trials",
            experiment,
            trial,
            candidate,
            record.seed,
            record.verdict,
            record.val_bpb,
            record.wall_seconds,
            _dump(to_json(record)),
        )

    def record_experiment(self, experiment: Experiment, constants: Mapping[str, Constant]) -> None:
        """The experiment with its verdict, after its trials; `constants` are its trainer's, for searches."""
        base = experiment.base or experiment.parent
        if self.version < 3 and experiment.verdict == "stopped":
            raise self._not_in_version_2("the verdict stopped")
        if self.version < 3 and base != experiment.parent:
            raise self._not_in_version_2("a candidate that was built on another commit than the champion")
        record = to_json(experiment)
        del record["trials"]  # they have rows of their own
        self._write(
            "experiments",
            experiment.number,
            experiment.commit,
            experiment.parent,
            *([base] if self.version >= 3 else []),
            experiment.verdict,
            experiment.val_bpb,
            experiment.fingerprint,
            experiment.wall_seconds,
            experiment.train_seconds,
            len(experiment.trials),
            _dump(record),
            _dump(dict(constants)),
        )

    def record_measurement(self, measured: Measurement) -> None:
        """A trial that is no experiment's, durable when this returns."""
        trial = measured.trial
        if self._in_facts(measured.purpose):
            place = len(self.measurements(measured.purpose, measured.series))
            name = f"measurement {measured.purpose} {measured.series} {place}"
            self.record_fact(name, _dump(to_json(measured)))
            return
        if self.version < 3:
            if measured.purpose not in ("confirm", "drift") or measured.role not in ("baseline", "champion"):
                raise self._not_in_version_2(f"a trial of the {measured.role} to {measured.purpose}")
            if trial.verdict == "stopped":
                raise self._not_in_version_2("a trial that was stopped")
            recorded = self.measurements(measured.purpose, measured.series)
            if (measured.role, trial.seed) in {(one.role, one.trial.seed) for one in recorded}:
                raise self._not_in_version_2(f"a second trial of the {measured.role} with seed {trial.seed}")
        number = self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM measurements")[0][0]
        self._write(
            "measurements",
            number,
            measured.purpose,
            measured.series,
            measured.role,
            measured.experiment,
            measured.commit,
            trial.seed,
            trial.verdict,
            trial.val_bpb,
            trial.test_bpb,
            trial.wall_seconds,
            _dump(to_json(trial)),
        )

    # Reading

    def count(self) -> int:
        """How many experiments are recorded, the baseline included; also the number of the next one."""
        return int(self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM experiments")[0][0])

    def candidates(self) -> dict[int, str]:
        """The commit of every experiment, by its number."""
        return dict(self._rows("SELECT number, candidate FROM experiments ORDER BY number"))

    def trials(self, experiment: int) -> tuple[Trial, ...]:
        return tuple(from_json(Trial, json.loads(record)) for record in self._trial_records(experiment))

    def throughputs(self, experiment: int, fields: Sequence[str]) -> list[tuple[str, float]]:
        """Of the trials since that experiment that scored, in order: these fields as a JSON array, and tokens/s.

        SQLite takes them out of the records: a tenth of what reading whole ones costs.
        """
        paths = ", ".join(f"'$.{name}'" for name in fields)
        return self._rows(
            f"SELECT json_extract(record, {paths}), json_extract(record, '$.tokens_per_second') AS speed FROM trials"
            " WHERE experiment >= ? AND verdict = 'scored' AND speed > 0 ORDER BY experiment, trial",
            (experiment,),
        )

    def disturbed(self) -> tuple[DisturbedTrial, ...]:
        """The trials whose record says so: those of experiments, then those of champions measured again."""
        why = "json_extract(record, '$.disturbed')"
        rows = self._rows(
            f"SELECT experiment, 'candidate', seed, val_bpb, {why} AS why FROM trials WHERE why <> '' UNION ALL"
            f" SELECT experiment, role, seed, val_bpb, {why} AS why FROM measurements WHERE why <> ''"
        )
        return tuple(
            DisturbedTrial(experiment=number, role=role, seed=seed, val_bpb=score, reason=reason)
            for number, role, seed, score, reason in rows
        )

    def measurements(self, purpose: Purpose, series: int | None = None) -> list[Measurement]:
        """Those of one purpose in the order they ran: of one series, or of the last one."""
        if series is None:
            last = self._rows(
                "SELECT series FROM measurements WHERE purpose = ? ORDER BY number DESC LIMIT 1", (purpose,)
            )
            if not last:
                return []
            series = last[0][0]
        if self._in_facts(purpose):
            names = f"measurement {purpose} {series} *"
            rows = self._rows("SELECT value FROM facts WHERE name GLOB ? ORDER BY LENGTH(name), name", (names,))
            return [from_json(Measurement, json.loads(value)) for (value,) in rows]
        return self._measurements("purpose = ? AND series = ?", purpose, series)

    def _in_facts(self, purpose: Purpose) -> bool:
        """Whether these measurements are facts: those of a study, which the table of version 2 can't hold."""
        return self.version < 3 and purpose.startswith(STUDIES)

    def measurements_of(self, experiment: int, purpose: Purpose) -> list[Measurement]:
        """Those of an experiment's trainer and of one purpose, over all series, in the order they ran."""
        return self._measurements("experiment = ? AND purpose = ?", experiment, purpose)

    def all_measurements(self) -> list[Measurement]:
        """All of them in the order they ran."""
        return self._measurements("TRUE")

    def seeds(self) -> set[int]:
        """Every seed that any recorded trial ran with."""
        seeds = {row[0] for row in self._rows("SELECT seed FROM trials UNION SELECT seed FROM measurements")}
        studied = self._rows("SELECT json_extract(value, '$.trial.seed') FROM facts WHERE name GLOB 'measurement *'")
        return seeds.union(*studied)

    def candidate_of_trials(self, experiment: int) -> str | None:
        """The commit that the experiment's trials ran, None without any."""
        rows = self._rows("SELECT candidate FROM trials WHERE experiment = ? LIMIT 1", (experiment,))
        return str(rows[0][0]) if rows else None

    def experiment(self, number: int) -> Experiment | None:
        return self._one("WHERE number = ?", (number,))

    def last(self) -> Experiment | None:
        return self._one("ORDER BY number DESC LIMIT 1")

    def champion(self) -> Experiment | None:
        """The last one kept; None before the baseline has its verdict."""
        return self._one("WHERE verdict = 'keep' ORDER BY number DESC LIMIT 1")

    def lineage(self, count: int) -> list[Experiment]:
        """The last `count` that were kept, the champion last, without their trials."""
        rows = self._rows(
            "SELECT record FROM experiments WHERE verdict = 'keep' ORDER BY number DESC LIMIT ?", (count,)
        )
        return [_experiment(record) for (record,) in reversed(rows)]

    def effects(self, experiments: int) -> list[tuple[float, float]]:
        """(effect, its standard error) in bits per byte, of those among the last `experiments` that have them."""
        return self._rows(
            "SELECT json_extract(record, '$.effect') AS effect, json_extract(record, '$.effect_error') AS error"
            " FROM experiments WHERE number >= ? AND effect IS NOT NULL AND error IS NOT NULL ORDER BY number",
            (self.count() - experiments,),
        )

    def decided(self, fingerprint: str) -> Experiment | None:
        """The first experiment, kept, discarded or stopped, whose trainer has this fingerprint."""
        return self._one(
            "WHERE fingerprint = ? AND verdict IN ('keep', 'discard', 'stopped') ORDER BY number LIMIT 1",
            (fingerprint,),
        )

    def knows(self, fingerprint: str) -> bool:
        """Whether any experiment, whatever its verdict, had a trainer with this fingerprint."""
        return bool(self._rows("SELECT 1 FROM experiments WHERE fingerprint = ? LIMIT 1", (fingerprint,)))

    def experiments(self, first: int = 0, stop: int | None = None, *, trials: bool = True) -> list[Experiment]:
        """Numbers first <= n < stop in order; without `trials` they come with none, at a third of the cost."""
        stop = self.count() if stop is None else stop
        grouped: dict[int, list[str]] = {}
        if trials:
            span = "WHERE experiment >= ? AND experiment < ? ORDER BY experiment, trial"
            for number, record in self._rows(f"SELECT experiment, record FROM trials {span}", (first, stop)):
                grouped.setdefault(number, []).append(record)
        rows = self._rows(
            "SELECT number, record FROM experiments WHERE number >= ? AND number < ? ORDER BY number", (first, stop)
        )
        return [_experiment(record, grouped.get(number, ())) for number, record in rows]

    def believed(self, experiment: Experiment) -> Experiment:
        """The experiment with the newest belief about its score, where it was recorded with a belief.

        Each experiment that is compared with a champion says what is believed of the champion by then.
        """
        if experiment.verdict != "keep" or experiment.deviation is None:
            return experiment
        mean, deviation = "json_extract(record, '$.champion_bpb')", "json_extract(record, '$.champion_deviation')"
        rows = self._rows(
            f"SELECT {mean}, {deviation} FROM experiments WHERE number > ? AND parent = ? AND {deviation} IS NOT NULL"
            " ORDER BY number DESC LIMIT 1",
            (experiment.number, experiment.commit),
        )
        return replace(experiment, val_bpb=rows[0][0], deviation=rows[0][1]) if rows else experiment

    def best(self, count: int) -> list[Experiment]:
        """The `count` lowest scores by what is believed now, best first, without their trials."""
        rows = self._rows(
            "SELECT record FROM (SELECT record FROM experiments WHERE val_bpb IS NOT NULL AND verdict != 'keep'"
            " ORDER BY val_bpb, number LIMIT ?) UNION ALL SELECT record FROM experiments WHERE verdict = 'keep'",
            (count,),
        )
        found = [self.believed(_experiment(record)) for (record,) in rows]
        return sorted(found, key=lambda one: (one.val_bpb or 0.0, one.number))[:count]

    def constants(self, number: int) -> dict[str, Constant]:
        """The constants of the experiment's trainer; empty where it could not be parsed."""
        rows = self._rows("SELECT constants FROM experiments WHERE number = ?", (number,))
        values = json.loads(rows[0][0]) if rows else {}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    def verdicts(self) -> dict[str, int]:
        """How many experiments got which verdict, the baseline's included."""
        return dict(self._rows("SELECT verdict, COUNT(*) FROM experiments GROUP BY verdict"))

    def totals(self) -> Totals:
        counts = ", ".join(f"COUNT(*) FILTER (WHERE number > 0 AND verdict = '{one}')" for one in VERDICTS)
        disturbed = "json_extract(record, '$.disturbed') != ''"
        row = self._rows(
            f"SELECT COUNT(*) FILTER (WHERE number > 0), {counts},"
            " TOTAL(wall_seconds) FILTER (WHERE number > 0), TOTAL(wall_seconds), TOTAL(train_seconds),"
            " COUNT(*) FILTER (WHERE number > 0 AND verdict = 'keep' AND"
            " json_extract(record, '$.deviation') IS NULL AND"
            " json_extract(record, '$.champion_bpb') - val_bpb <= json_extract(record, '$.spread')),"
            f" (SELECT COUNT(*) FROM trials WHERE {disturbed}) + (SELECT COUNT(*) FROM measurements WHERE {disturbed})"
            " FROM experiments"
        )[0]
        return Totals(*row)

    def stops(self) -> StopTotals | None:
        """None where no trial was stopped or would have been."""
        rows = self._rows(
            "SELECT t.experiment, t.verdict, e.verdict, COALESCE(json_extract(t.record, '$.budget_seconds'), 0)"
            " - json_extract(t.record, '$.train_seconds') FROM trials t JOIN experiments e ON e.number = t.experiment"
            " WHERE json_extract(t.record, '$.stop_progress') IS NOT NULL"
        )
        if not rows:
            return None
        saved = [seconds for _, trial, _, seconds in rows if trial == "stopped"]
        ran_on = {number: verdict for number, trial, verdict, _ in rows if trial == "scored"}
        return StopTotals(
            stopped=len(saved), saved_seconds=sum(saved), audited=len(ran_on), wrong=list(ran_on.values()).count("keep")
        )

    def _measurements(self, where: str, *values: object) -> list[Measurement]:
        rows = self._rows(
            f"SELECT purpose, series, role, experiment, candidate, record FROM measurements WHERE {where}"
            " ORDER BY number",
            values,
        )
        return [
            Measurement(
                purpose=purpose, series=series, role=role, experiment=number, commit=commit,
                trial=from_json(Trial, json.loads(record)),
            )
            for purpose, series, role, number, commit, record in rows
        ]  # fmt: skip

    def _not_in_version_2(self, what: str) -> UserError:
        return UserError(
            f"{self.path} is of version 2, which can't hold {what}; "
            "start a new campaign for that: autoresearch init DIR"
        )

    def _one(self, where: str, values: tuple[object, ...] = ()) -> Experiment | None:
        rows = self._rows(f"SELECT number, record FROM experiments {where}", values)
        if not rows:
            return None
        number, record = rows[0]
        return _experiment(record, self._trial_records(number))

    def _trial_records(self, experiment: int) -> list[str]:
        rows = self._rows("SELECT record FROM trials WHERE experiment = ? ORDER BY trial", (experiment,))
        return [record for (record,) in rows]

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with sqlite_as_user_error(self.path):
            return self._connection.execute(query, values).fetchall()

    def _write(self, table: str, *values: object) -> None:
        """One row with its link of the hash chain, in one durable transaction."""
        places = ", ".join("?" * len(values))
        with sqlite_as_user_error(self.path), transaction(self._connection):
            cursor = self._connection.execute(f"INSERT INTO {table} VALUES ({places})", values)
            hash_chain.append(self._connection, table, str(values[0] if table == "facts" else cursor.lastrowid))


def _refuse_foreign(path: Path) -> None:
    """UserError for a file of another version or kind, by its first bytes: to open it with SQLite could change it.

    A journal beside it is a transaction that was cut off, and SQLite takes it back when it opens the file: so only what
    is surely no ledger that can be read is refused here (https://www.sqlite.org/fileformat2.html#the_database_header).
    """
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    if head[:16] != b"SQLite format 3\0" or len(head) < 100:
        journal = path.with_name(f"{path.name}-journal")
        if not (journal.exists() and journal.stat().st_size):
            raise damaged(path, "it is empty" if not head else "it does not begin as a ledger does")
        return
    version, application = int.from_bytes(head[60:64]), int.from_bytes(head[68:72])
    if application != APPLICATION or version not in READABLE:
        expected = " or ".join(map(str, READABLE))
        raise other_version(path, "a ledger", expected, version, foreign=application != APPLICATION)


def _row_name(table: str, columns: Mapping[str, object]) -> str:
    if table == "trials":
        return f"trial {columns['trial']} of experiment {columns['experiment']}"
    return f"{table.removesuffix('s')} {columns['number']}"


def _experiment(record: str, trials: Sequence[str] = ()) -> Experiment:
    return from_json(Experiment, {**json.loads(record), "trials": [json.loads(trial) for trial in trials]})


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
