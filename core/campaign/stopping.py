"""Makes the rule by which a candidate's trial is stopped early, from the curves of the campaign's full trials."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from core.campaign.evidence import measured_for
from core.campaign.judge import futility
from core.campaign.judge.base import Evidence
from core.campaign.judge.disturbed import likeness
from core.campaign.judge.futility import FullTrial
from core.campaign.judge.greedy import LowerWins
from core.campaign.judge.limits import breach
from core.campaign.session import Session
from core.records import Experiment, Trial
from core.store import trial_files
from core.trainer.fingerprint import NODES_PER_LINE
from core.trial.stop_rule import LossCurve, StopRule

MOST = 200  # full trials that a rule is learned from
_USUAL_NOISE = 0.005  # deviation of a score, as a share of it, where none was measured


class StopRules:
    """Reads each full trial's curve once. Trials of the preset's first seed alone are stopped, and learned from."""

    def __init__(self, session: Session) -> None:
        self._campaign, self._policy = session.campaign, session.policy
        self._full_trials = session.full_trials
        self._seed = self._campaign.preset.seeds[0]
        self._known: deque[tuple[int, Trial, FullTrial]] = deque(maxlen=MOST)  # by number of the experiment
        self._next = 0  # the first experiment that was not read yet

    def rule(self, commit: str, seed: int, evidence: Evidence) -> StopRule | None:
        """For a trial of this candidate; None where it is to run to its end."""
        champion, chance = evidence.champion, self._campaign.program.stop_chance
        full = self._full_trials or not chance or self._policy.name == LowerWins.name
        if champion is None or seed != self._seed or full or _beside_the_score(evidence):
            return None
        self._read()
        # The slowest: a candidate beside other work must not be stopped for it.
        slowest = min(self._trials_of(champion), key=lambda one: one[0].tokens_per_second or 0.0, default=None)
        if slowest is None or (reference := _full(*slowest)) is None:
            return None
        noise, like = _noise(evidence, reference.val_bpb), likeness(evidence)
        others = [
            full for number, trial, full in self._known if number != champion.number and like.alike(slowest[0], trial)
        ]
        return futility.rule(
            reference, others, bar=self._bar(champion, reference, evidence), noise=noise, chance=chance,
            secret=futility.runs_on(commit),
        )  # fmt: skip

    def _bar(self, champion: Experiment, reference: FullTrial, evidence: Evidence) -> float:
        """What a candidate has to beat: the reference or the belief, the easier one, less what a smaller text earns."""
        believed = self._campaign.ledger.believed(champion).val_bpb
        nodes, champion_nodes = evidence.nodes or 0, evidence.champion_nodes or 0
        lines = max(0, champion_nodes - nodes) / NODES_PER_LINE if nodes else 0.0
        earned = lines * evidence.limits.bpb_per_line
        return max(reference.val_bpb, believed if believed is not None else -math.inf) + earned

    def _read(self) -> None:
        ledger = self._campaign.ledger
        count = ledger.count()
        for experiment in ledger.experiments(max(self._next, count - MOST), count):
            for trial, folder in self._own_trials(experiment):
                if (full := _full(trial, folder)) is not None:
                    self._known.append((experiment.number, trial, full))
                    break
        self._next = count

    def _own_trials(self, experiment: Experiment) -> Iterator[tuple[Trial, Path]]:
        """Those with the seed, the newest first, each with its folder."""
        for place, trial in reversed(list(enumerate(experiment.trials))):
            if _usable(trial, self._seed):
                yield trial, self._campaign.files.trial(experiment.number, place)

    def _trials_of(self, champion: Experiment) -> Iterator[tuple[Trial, Path]]:
        """All of the champion's with the seed, each with its folder."""
        for number in range(champion.number + 1, self._campaign.ledger.count() + 1):
            attempts: Counter[tuple[str, str, int]] = Counter()
            for one in measured_for(self._campaign.ledger, number):
                key = (one.purpose, one.role, one.trial.seed)
                folder = self._campaign.files.measurement(
                    one.purpose, one.series, one.role, one.trial.seed, attempts[key]
                )
                attempts[key] += 1
                if one.experiment == champion.number and _usable(one.trial, self._seed):
                    yield one.trial, folder
        yield from self._own_trials(champion)


def _beside_the_score(evidence: Evidence) -> bool:
    """Whether a worse score may be kept: for its speed, or because the champion breaks a limit."""
    champion = evidence.lineage[-1].trials if evidence.lineage else ()
    return bool(evidence.limits.bpb_per_doubled_speed or breach(champion, evidence.limits))


def _usable(trial: Trial, seed: int) -> bool:
    return trial.seed == seed and trial.verdict == "scored"


def _full(trial: Trial, folder: Path) -> FullTrial | None:
    """The trial with its curve; None where that is gone or says nothing."""
    try:
        points = tuple(
            (int(one["step"]), float(one["progress"]), float(one["loss"])) for one in trial_files.points(folder)
        )
    except (KeyError, TypeError, ValueError, OSError):
        return None
    if len(points) < futility.LEAST_POINTS or trial.val_bpb is None or trial.rows is None:
        return None
    curve = LossCurve(points=points, batches=(trial.rows, trial.sequence_length or 0, trial.seed))
    return FullTrial(curve=curve, val_bpb=trial.val_bpb)


def _noise(evidence: Evidence, val_bpb: float) -> float:
    """The deviation of a score, in bits per byte."""
    if evidence.noise is not None and evidence.noise.seeds_freedom and evidence.noise.seeds > 0:
        return math.sqrt(evidence.noise.seeds)
    return _USUAL_NOISE * val_bpb
