"""Trials that are no experiment's: champion and baseline measured again, recorded one by one, resumed after a kill.

Whether that is needed is `core.campaign.drift`'s and what came of a confirmation `core.campaign.confirm`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from core.campaign.drift import COST, Pace, Watch, paces
from core.campaign.judge import Evidence, champion_bpb, spread_of_seeds
from core.campaign.schedule import Turn, missing, turns
from core.events import Drifted, Measured, Measuring, MeasuringProgress, Notice, OnEvent
from core.records import LOSSES, TRAINER, WEIGHTS, Budget, Experiment, Measurement, Preset, Trial, UserError
from core.store.layout import CampaignFolder
from core.store.ledger import Ledger
from core.store.repository import Repo
from core.trial.engine import Engine
from core.trial.spec import TrialSpec

Purpose = Literal["confirm", "drift"]


def same_yardstick(ledger: Ledger, trial: Trial) -> None:
    """Records the campaign's yardsticks with its first trials, and raises UserError for a trial of another one."""
    facts = ledger.facts()
    for name, came in (("yardstick", trial.yardstick), ("test_yardstick", trial.test_yardstick)):
        expected = facts.get(name)
        if expected is None and came:
            ledger.record_fact(name, came)
        elif came and came != expected:
            raise UserError(
                f"this campaign's {name.replace('_', ' ')} is {str(expected)[:12]}, this trial came with {came[:12]}: "
                "the corpus or the scoring changed; go on with the version and the corpus that it began with"
            )


class Measurer:
    """Runs turns and records them. Its caller holds the campaign's lock, and has prepared the engine."""

    def __init__(
        self, folder: CampaignFolder, repo: Repo, ledger: Ledger, preset: Preset, *, engine: Engine, tell: OnEvent
    ) -> None:
        self._folder = folder
        self._repo = repo
        self._ledger = ledger
        self._preset = preset
        self._engine = engine
        self._tell = tell

    def run(self, purpose: Purpose, series: int, planned: Sequence[Turn], *, test: bool = False) -> list[Measurement]:
        """Runs the planned turns that the ledger lacks. All of the series, in the order they ran."""
        recorded = self._ledger.measurements(purpose, series)
        left = missing(planned, recorded)
        for place, turn in enumerate(left, len(planned) - len(left)):
            self._tell(Measuring(place, len(planned), turn.role, turn.experiment.number, turn.seed))
            measured = Measurement(
                purpose=purpose,
                series=series,
                role=turn.role,
                experiment=turn.experiment.number,
                commit=turn.experiment.commit,
                trial=self._trial(purpose, series, turn, test),
            )
            self._ledger.record_measurement(measured)
            self._tell(Measured(measured))
            recorded.append(measured)
        return recorded

    def _trial(self, purpose: Purpose, series: int, turn: Turn, test: bool) -> Trial:
        folder = self._folder.measurements(purpose, series)
        spec = TrialSpec(
            trainer=self._repo.text(turn.experiment.commit),
            preset=self._preset,
            budget=Budget(seconds=self._preset.budget_seconds),
            seed=turn.seed,
            into=folder / f"{turn.role}-{turn.seed}",
            trainer_path=folder / turn.role / TRAINER,
            test=test,
        )
        record = self._engine.run_trial(spec, lambda progress: self._tell(MeasuringProgress(progress)))
        for name in (WEIGHTS, LOSSES):
            (spec.into / name).unlink(missing_ok=True)
        same_yardstick(self._ledger, record)
        return record


class Reference:
    """What candidates are held against: measured again where the device's speed has moved since it last was."""

    def __init__(self, ledger: Ledger, preset: Preset, measurer: Measurer, tell: OnEvent) -> None:
        self._ledger = ledger
        self._preset = preset
        self._measurer = measurer
        self._tell = tell
        self._watch: Watch | None = None
        self._next = 0  # the first experiment whose trials the watch has not seen

    def remeasured(self) -> tuple[Measurement, ...]:
        """The last re-measurement; empty if there was none."""
        return tuple(self._ledger.measurements("drift"))

    def refresh(self, champion: Experiment) -> float:
        """Measures baseline and champion again if the speed moved. The seconds that it took.

        To be called while no candidate is pending: what it does depends on the ledger alone, so that a run that is cut
        off within it goes on as if it had not been.
        """
        begun, series = time.monotonic(), self._ledger.count() - 1
        recorded = self.remeasured()
        begun_before = bool(recorded) and recorded[-1].series == series
        if self._watch is None:
            self._restart(recorded)
        assert self._watch is not None
        for cost, speed in self._ledger.paces(self._next, COST):
            self._watch.see(Pace(cost, speed))
        self._next = series + 1
        moved = None if begun_before else self._watch.moved()
        if moved is None and not begun_before:
            return 0.0
        baseline = self._ledger.experiment(0)
        assert baseline is not None, "a candidate comes after the baseline"
        planned = turns(baseline, champion, self._preset.seeds)
        if missing(planned, recorded if begun_before else ()):
            self._tell(Drifted(moved, len(planned)))
            again = self._measurer.run("drift", series, planned)
            self._restart(again)
            self._tell(Notice(_told(again, champion, baseline, self._preset.seeds[0])))
        return time.monotonic() - begun

    def _restart(self, recorded: Sequence[Measurement]) -> None:
        self._watch = Watch(paces(one.trial for one in recorded))
        self._next = recorded[-1].series + 1 if recorded else 0


def _told(again: Sequence[Measurement], champion: Experiment, baseline: Experiment, seed: int) -> str:
    """What a re-measurement came to, in a line."""
    evidence = Evidence(seeds=(seed,), trials=(), champion=champion, baseline=baseline, remeasured=tuple(again))
    before, now = champion.val_bpb, champion_bpb(evidence, seed)
    was, spread = baseline.spread, spread_of_seeds(evidence)
    told = (
        f"measured again: the champion {_bpb(before)} -> {_bpb(now)}, the spread of seeds {_bpb(was)} -> {_bpb(spread)}"
    )
    for one in again:
        if one.trial.verdict != "scored":
            told += f"; the {one.role} failed with seed {one.trial.seed} ({one.trial.reason}), so its old score holds"
    return f"{told}; candidates are held against these from here on"


def _bpb(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
