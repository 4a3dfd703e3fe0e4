"""What a verdict may rest on, and what a policy answers. A policy is called after every trial."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from core.records import Experiment, Measurement, Trial, Verdict, one_yardstick
from core.store.program import Limits

Whose = Literal["candidate", "champion", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Reign:
    """A trainer that was kept, with the trials of it that came after its verdict."""

    experiment: Experiment
    again: tuple[Trial, ...] = ()  # in the order they ran: those that later verdicts or a drift asked for

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All of them, in the order they ran."""
        return self.experiment.trials + self.again


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a decided experiment showed before any prior: the champion's score minus its own, in bits per byte."""

    gain: float
    error: float  # its standard error


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Variances of trials, pooled over a campaign, in squared bits per byte; their degrees of freedom may be 0."""

    seeds: float  # of one trainer's scores with different seeds
    seeds_freedom: int
    pairs: float  # of the difference of two trainers with one seed, around the mean difference of these two
    pairs_freedom: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict may depend on."""

    seeds: tuple[int, ...]  # the preset's
    trials: tuple[Trial, ...]  # of the experiment that is judged, in the order they ran
    champion: Experiment | None  # None while the baseline itself is judged
    baseline: Experiment | None
    remeasured: tuple[Measurement, ...] = ()  # of baseline and champion, the last time that the device's speed moved
    lineage: tuple[Reign, ...] = ()  # the last trainers that were kept, oldest first; the champion is the last
    baseline_again: tuple[Trial, ...] = ()  # as in Reign, of the baseline
    effects: tuple[Effect, ...] = ()  # of the last experiments, oldest first
    noise: Noise | None = None
    nodes: int | None = None  # of the candidate's syntax tree
    champion_nodes: int | None = None
    limits: Limits = field(default_factory=Limits)  # program.md's
    exhausted: bool = False  # too many trials were disturbed: decide on these


@dataclass(frozen=True)
class AnotherTrial:
    """The evidence isn't enough: run this trainer with this seed and ask again."""

    seed: int
    of: Whose = "candidate"
    why: str = ""  # for the person, in a line; empty where it is routine


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict and what it rests on, in bits per byte.

    A policy that holds beliefs gives their means as `val_bpb` and `champion_bpb`; one that doesn't gives scores on the
    same seeds, and leaves the second group empty.
    """

    verdict: Verdict
    reason: str
    val_bpb: float | None
    champion_bpb: float | None
    spread: float | None

    deviation: float | None = None  # standard deviation of the belief about the candidate
    champion_deviation: float | None = None
    probability: float | None = None  # that the candidate is truly better
    effect: Effect | None = None

    def numbers(self) -> dict[str, Any]:
        """Its numbers by the names of an Experiment's fields."""
        return {
            "val_bpb": self.val_bpb,
            "champion_bpb": self.champion_bpb,
            "spread": self.spread,
            "deviation": self.deviation,
            "champion_deviation": self.champion_deviation,
            "probability": self.probability,
            "effect": None if self.effect is None else self.effect.gain,
            "effect_error": None if self.effect is None else self.effect.error,
        }


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Another one wherever equal evidence may get another answer: an audit replays verdicts."""
        ...

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        """Another trial, or the verdict. Pure: equal evidence gets an equal answer."""
        ...

    def refused(self, evidence: Evidence, verdict: Verdict, reason: str) -> Decision:
        """The verdict of a candidate that no trial was spent on."""
        ...


def failure(trial: Trial) -> tuple[Verdict, str] | None:
    """The verdict of a trial that has no usable score, with its reason."""
    if trial.verdict != "scored":
        return trial.verdict, trial.reason or "it ended without saying why"
    if trial.val_bpb is None or not math.isfinite(trial.val_bpb):
        return "crash", "its score is not a number"
    return None


def check_yardsticks(evidence: Evidence) -> None:
    """UserError where the trials were not measured with one yardstick."""
    groups = [group.trials for group in (evidence.baseline, evidence.champion) if group is not None]
    again = [one.trial for one in evidence.remeasured]
    reigns = [reign.again for reign in evidence.lineage]
    trials = itertools.chain(evidence.trials, evidence.baseline_again, again, *groups, *reigns)
    one_yardstick((trial.yardstick for trial in trials), "start a new campaign")
