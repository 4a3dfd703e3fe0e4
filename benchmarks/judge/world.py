"""A campaign whose truth is known: proposals with true gains, and trials that scatter around true scores."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.futility import noise_of, recorded, saved_share
from core.campaign.evidence import EvidenceBuilder
from core.campaign.judge.base import AnotherTrial, Decision, Policy
from core.records import COMPARE, Experiment, Measurement, Trial, UserError

BASELINE_BPB = 1.0
CRASH_SHARE = 0.2  # of a trial's time that one which crashes takes
TRIAL_HOURS = 5 / 60
MOST_PROPOSALS = 10_000
MOST_SAVED = 0.82  # of a trial that is stopped, the least share that a rule looks at being 0.15; recorded: 0.81


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A kind of campaign. Scales and noise in bits per byte."""

    p_good: float = 0.1  # of proposals that truly improve the trainer they were made for
    gain_scale: float = 0.003  # of a good one, at the start
    tail: float = 3.0  # degrees of freedom of Student's t, whose absolute value gains and harms follow
    harm_scale: float = 0.01  # of a bad one
    p_nothing: float = 0.3  # of those that aren't good: they change nothing
    shrink: float = 30.0  # gains are 1/e as large once the trainer is better by so many of the first gains' scale
    noise: float = 0.003  # standard deviation of a trial's score
    pairing: float = 0.3  # share of its variance that trainers have in common on one seed
    crash_rate: float = 0.1
    stops: Literal["none", "recorded", "relative"] = "none"  # of ours: time saved as the recorded curves show it, or
    # the same where a candidate is worse by as many times the noise
    experiments: int = 100  # whole trials that the campaign has time for
    campaigns: int = 300
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one campaign, in bits per byte."""

    true_gain: float
    undone: float  # by kept changes that truly harm
    wrong_keeps: int  # kept without a true gain
    keeps: int
    missed: float  # true gains of what was not kept
    optimism: float  # how far the champion's true score lies above the reported one
    device_hours: float


FIELDS = {field.name: field for field in dataclasses.fields(Cell)}


def cell_of(data: object) -> Cell:
    """The cell that a JSON object describes. UserError for one that describes none."""
    if not isinstance(data, dict):
        raise UserError(f"a cell is an object with keys such as p_good and noise, not {data!r}")
    if unknown_keys := sorted(data.keys() - FIELDS.keys()):
        raise UserError(f"unknown key {', '.join(unknown_keys)} of a cell; known are {', '.join(FIELDS)}")
    for name, value in data.items():
        default = FIELDS[name].default
        kinds = (int,) if isinstance(default, int) else (int, float) if isinstance(default, float) else (str,)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UserError(f"{name} of a cell is {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}")
    cell = Cell(**data)
    if not (0 <= cell.pairing <= 1 and 0 <= cell.p_good <= 1 and 0 <= cell.crash_rate < 1 and cell.noise >= 0):
        raise UserError("shares of a cell lie between 0 and 1 (crash_rate below 1), and its noise is not below 0")
    if not (cell.tail > 0 and cell.experiments >= 1 and cell.campaigns >= 1):
        raise UserError("a cell's tail is above 0, and it has at least one experiment and one campaign")
    return cell


class World:
    """The truth of one campaign, the same for every policy: the n-th proposal, and the noise of each trial."""

    def __init__(self, cell: Cell, number: int) -> None:
        self.cell = cell
        self._key = [cell.seed, number]

    def proposal(self, number: int, gained: float) -> float | None:
        """The true gain of the n-th proposal for a trainer that is better by `gained` already; None: it crashes."""
        cell, rng = self.cell, np.random.default_rng([*self._key, 1, number])
        crash, kind, nothing = rng.random(3)
        size = abs(float(rng.standard_normal())) / math.sqrt(float(rng.chisquare(cell.tail)) / cell.tail)
        if crash < cell.crash_rate:
            return None
        if kind < cell.p_good:
            shrunk = math.exp(-gained / (cell.shrink * cell.gain_scale)) if cell.gain_scale else 1.0
            return size * cell.gain_scale * shrunk
        return 0.0 if nothing < cell.p_nothing else -size * cell.harm_scale

    def saved(self, gain: float) -> float:
        """The share of its first trial that a stop saves of a proposal with that true gain."""
        if self.cell.stops == "none" or gain >= 0:
            return 0.0
        if self.cell.stops == "recorded":
            return saved_share(-gain, self.cell.noise)
        recorded_noise = noise_of(recorded("repeat"))
        return saved_share(-gain / self.cell.noise * recorded_noise, recorded_noise)

    def score(self, true: float, seed: int, trainer: int, trial: int) -> float:
        """Of a trainer's n-th trial, with that seed."""
        cell = self.cell
        shared = float(np.random.default_rng([*self._key, 2, seed]).standard_normal())
        own = float(np.random.default_rng([*self._key, 3, trainer, trial, seed]).standard_normal())
        return true + cell.noise * (math.sqrt(cell.pairing) * shared + math.sqrt(1 - cell.pairing) * own)


class SimulatedCampaign:
    """Plays one policy in one world until the time of its trials is used up."""

    def __init__(self, world: World, policy: Policy, trial: Trial, experiment: Experiment) -> None:
        self._world, self._policy = world, policy
        self._trial, self._experiment = trial, experiment
        self._builder = EvidenceBuilder((1, 2, 3) if policy.name == "belief" else (1, 2))
        self._spent = 0.0  # trials
        self._ran: dict[int, int] = {}  # trials of each trainer

    def play(self) -> Outcome:
        true, champion = BASELINE_BPB, 0
        keeps = wrong = 0
        undone = missed = 0.0
        decision = self._decide(0, true, 0, true)
        assert decision.val_bpb is not None
        reported = decision.val_bpb
        for number in range(1, MOST_PROPOSALS):
            if self._spent >= self._world.cell.experiments:
                break
            gain = self._world.proposal(number, BASELINE_BPB - true)
            if gain is None:
                self._spent += CRASH_SHARE
                continue
            if self._policy.name == "belief" and self._stopped(number, gain):
                continue
            decision = self._decide(number, true - gain, champion, true)
            if decision.verdict == "keep":
                keeps, wrong, undone = keeps + 1, wrong + (gain <= 0), undone + max(0.0, -gain)
                true, champion = true - gain, number
                assert decision.val_bpb is not None
                reported = decision.val_bpb
            else:
                missed += max(0.0, gain)
                if self._policy.name == "belief" and decision.champion_bpb is not None:
                    reported = decision.champion_bpb
        return Outcome(
            true_gain=BASELINE_BPB - true, undone=undone, wrong_keeps=wrong, keeps=keeps, missed=missed,
            optimism=true - reported, device_hours=self._spent * TRIAL_HOURS,
        )  # fmt: skip

    def _stopped(self, number: int, gain: float) -> bool:
        """Whether a proposal is stopped, which costs the rest of its only trial: by the share that is saved of many."""
        saved = self._world.saved(gain)
        if np.random.default_rng([number, 4]).random() >= saved / MOST_SAVED:
            return False
        self._spent += 1 - MOST_SAVED
        return True

    def _decide(self, number: int, true: float, champion: int, champion_true: float) -> Decision:
        """One experiment: its trials, its verdict, its place in the evidence."""
        trials: list[Trial] = []
        measured: list[Measurement] = []
        while True:
            answer = self._policy.decide(self._builder.evidence(trials, measured))
            if isinstance(answer, Decision):
                break
            if answer.of == "candidate":
                trials.append(self._run(number, true, answer))
            else:
                again = self._run(champion, champion_true, answer)
                measured.append(
                    Measurement(
                        purpose=COMPARE, series=number, role="champion", experiment=champion, commit="", trial=again
                    )
                )
        experiment = replace(
            self._experiment,
            number=number,
            verdict=answer.verdict,
            trials=tuple(trials),
            **answer.numbers(),
        )
        self._builder.add(experiment, measured)
        return answer

    def _run(self, trainer: int, true: float, wanted: AnotherTrial) -> Trial:
        self._spent += 1
        self._ran[trainer] = self._ran.get(trainer, 0) + 1
        score = self._world.score(true, wanted.seed, trainer, self._ran[trainer])
        return replace(self._trial, seed=wanted.seed, val_bpb=score)
