"""Trials that are no experiment's: champion and baseline measured again, recorded one by one, resumed after a kill.

`drift` decides whether that is needed, `confirm` what a confirmation shows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from core.campaign.drift import COST, DriftDetector, Throughput, throughputs
from core.campaign.judge.base import Evidence
from core.campaign.judge.belief import Belief
from core.campaign.judge.disturbed import marked
from core.campaign.judge.greedy import champion_bpb, spread_of_seeds
from core.campaign.schedule import PlannedTrial, interleaved, remaining
from core.campaign.session import Session
from core.events import Drifted, Measured, Measuring, Notice, Reviewing
from core.records import LOSSES, TEST_LOSSES, TRAINER, WEIGHTS, Budget, Experiment, Measurement, Preset, Purpose, Trial
from core.system.text import bpb
from core.trial.spec import AuditSpec, TrialSpec


class RemeasurementRunner:
    """Runs planned trials and records them, under the campaign's preset or another. Its caller prepared the engine."""

    def __init__(self, session: Session, preset: Preset | None = None) -> None:
        self._session = session
        self._campaign = session.campaign
        self._preset = preset or session.campaign.preset

    def run(
        self, purpose: Purpose, series: int, planned: Sequence[PlannedTrial], *, test: bool = False
    ) -> list[Measurement]:
        """Runs the planned trials that the ledger lacks. All of the series, in the order they ran."""
        ledger = self._campaign.ledger
        recorded = ledger.measurements(purpose, series)
        while left := remaining(planned, recorded, ledger.attempts):
            recorded.append(self.one(purpose, series, left[0], len(planned) - len(left), len(planned), test=test))
        return recorded

    def one(
        self, purpose: Purpose, series: int, planned: PlannedTrial, place: int, count: int, *, test: bool = False,
        evidence: Evidence | None = None,
    ) -> Measurement:  # fmt: skip
        """Runs one trial and records it, the `place`th of `count`. With `test`, its scores are audited deeply first.

        With the evidence that it is for, its record says what disturbed it.
        """
        self._session.tell(Measuring(place, count, planned.role, planned.experiment.number, planned.seed))
        trial = self._trial(purpose, series, planned, test)
        measured = Measurement(
            purpose=purpose,
            series=series,
            role=planned.role,
            experiment=planned.experiment.number,
            commit=planned.experiment.commit,
            trial=trial if evidence is None else marked(trial, evidence),
        )
        self._campaign.ledger.record_measurement(measured)
        self._session.tell(Measured(measured))
        return measured

    def _trial(self, purpose: Purpose, series: int, planned: PlannedTrial, test: bool) -> Trial:
        folder = self._campaign.files.measurements(purpose, series)
        text, before = planned.text, self._campaign.ledger.measurements(purpose, series)
        tried = sum((one.role, one.trial.seed) == (planned.role, planned.seed) for one in before)
        spec = TrialSpec(
            trainer=self._campaign.trainer_text(planned.experiment.commit) if text is None else text,
            preset=self._preset,
            budget=Budget(seconds=self._preset.budget_seconds),
            seed=planned.seed,
            into=self._campaign.files.measurement(purpose, series, planned.role, planned.seed, tried),
            trainer_path=folder / planned.role / TRAINER,
            test=test,
        )
        record = self._session.engine.run_trial(spec, self._session.tell)
        if test and record.verdict == "scored":
            record = self._audited(spec, record, planned)
        for name in (WEIGHTS, LOSSES, TEST_LOSSES):
            (spec.into / name).unlink(missing_ok=True)
        if self._preset == self._campaign.preset:
            self._campaign.ledger.record_yardsticks(record)
            self._campaign.ledger.record_device_kind(record)
        return record

    def _audited(self, spec: TrialSpec, record: Trial, planned: PlannedTrial) -> Trial:
        """The trial's record with its deep audits; `invalid` and without scores where one finds a fault."""
        self._session.tell(Reviewing(planned.experiment.number, planned.role))
        baseline = self._campaign.experiment(0)
        is_baseline = planned.experiment.number == baseline.number
        found = self._session.engine.review(
            AuditSpec(
                trainer=spec.trainer,
                preset=spec.preset,
                trial=record,
                folder=spec.into,
                reference=None if is_baseline else self._campaign.files.trial(baseline.number, 0),
                noise_bpb=baseline.spread,
                test=spec.test,
            )
        )
        record = replace(record, audit=found.audit or record.audit, test_audit=found.test)
        if not found.fault:
            return record
        return replace(record, verdict="invalid", reason=f"the audit: {found.fault}", val_bpb=None, test_bpb=None)


class ReferenceScores:
    """What candidates are compared with: measured again where the device's speed has moved since it last was."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledger = session.campaign.ledger
        self._runner = RemeasurementRunner(session)
        self._detector: DriftDetector | None = None
        self._next = 0  # the first experiment whose trials the detector has not counted

    def remeasured(self) -> tuple[Measurement, ...]:
        """The last re-measurement; empty if there was none."""
        return tuple(self._ledger.measurements("drift"))

    def refresh(self, champion: Experiment) -> float:
        """Measures baseline and champion again if the speed moved. The seconds that it took.

        To be called before a candidate's first trial: what it does depends on the ledger alone, so that a run that is
        cut off within it goes on as if it had not been.
        """
        if isinstance(self._session.policy, Belief):
            return 0.0  # it asks for trials of the champion itself where they are no longer like a candidate's
        begun, series = time.monotonic(), self._ledger.count() - 1
        recorded = self.remeasured()
        begun_before = bool(recorded) and recorded[-1].series == series
        detector = self._detector or self._restart(recorded)
        for cost, speed in self._ledger.throughputs(self._next, COST):
            detector.add(Throughput(cost, speed))
        self._next = series + 1
        moved = None if begun_before else detector.detect()
        if moved is None and not begun_before:
            return 0.0
        baseline, seeds = self._session.campaign.experiment(0), self._session.campaign.preset.seeds
        planned = interleaved(baseline, champion, seeds)
        if remaining(planned, recorded if begun_before else (), self._ledger.attempts):
            self._session.tell(Drifted(moved, len(planned)))
            again = self._runner.run("drift", series, planned)
            self._restart(again)
            self._session.tell(Notice(_summary(again, champion, baseline, seeds[0])))
        return time.monotonic() - begun

    def _restart(self, recorded: Sequence[Measurement]) -> DriftDetector:
        """A detector that starts with these trials and goes on with those of later experiments."""
        self._detector = DriftDetector(throughputs(one.trial for one in recorded))
        self._next = recorded[-1].series + 1 if recorded else 0
        return self._detector


def _summary(again: Sequence[Measurement], champion: Experiment, baseline: Experiment, seed: int) -> str:
    """The result of a re-measurement, in a line."""
    evidence = Evidence(seeds=(seed,), trials=(), champion=champion, baseline=baseline, remeasured=tuple(again))
    before, now = champion.val_bpb, champion_bpb(evidence, seed)
    was, spread = baseline.spread, spread_of_seeds(evidence)
    line = f"measured again: the champion {bpb(before)} -> {bpb(now)}, the spread of seeds {bpb(was)} -> {bpb(spread)}"
    for one in again:
        if one.trial.verdict != "scored":
            line += f"; the {one.role} failed with seed {one.trial.seed} ({one.trial.reason}), so its old score holds"
    return f"{line}; candidates are compared with these from here on"
