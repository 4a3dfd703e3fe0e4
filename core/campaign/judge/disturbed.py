"""Which trials may be held against each other: those whose speeds differ by nothing but their trainers. Pure functions.

Under a fixed time, the number of steps is part of a trial's result. Trials of one step's cost are compared by their
speed, others by what else ran on the device. Where a trial has no like among the champion's, it runs again, or the
champion does: a verdict rests on like trials only.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from core.campaign.drift import COST
from core.campaign.judge.base import AnotherTrial, Decision, Evidence, Reign
from core.records import Trial
from core.system.conditions import LOADED, remarks

LOADS = ("other_load", "stolen")  # shares of the device's time; those of the host alone are named host_...
# Of speeds, as differences of their logarithms. Quiet repeats of one trainer scattered by 0.01 to 0.03 on a virtual
# CPU; an unseen change of 0.11 cost 0.018 bpb there, 1.6 times the spread of seeds.
LEAST_BAND, MOST_BAND = 0.08, 0.4
SCATTERS = 4.0  # medians of the differences between repeats that a band is wide: 2.7 standard deviations of one
STALLED = 0.05  # of the training time
LEAST_LEFT = 0.02  # of a device, beside any load
BRIEF = 3.0  # seconds of training: below, what else ran is read too coarsely, and speeds scatter by themselves
MOST_WASTED = 4  # trials of one experiment that are no evidence
DISTURBED = "the machine was disturbed"  # how the reason of a verdict begins that says nothing of the trainer


class Pace(NamedTuple):
    """What a trial's number of steps depended on beside its trainer, as far as its record tells."""

    cost: tuple[object, ...]  # of a step: the fields of drift.COST
    device: str
    threads: tuple[object, ...]  # how they waited
    load: float | None  # share of the device's time that others took; None: unknown
    throttled: float | None  # share of the samples
    stalled: float | None  # share of the training time
    speed: float | None  # tokens/s

    @classmethod
    def of(cls, trial: Trial) -> Pace:
        loads = [share for name in LOADS if (share := _share(trial, name)) is not None]
        stalled = trial.stalled_seconds
        found = cls(
            cost=tuple(_plain(getattr(trial, name)) for name in COST),
            device=trial.device,
            threads=_plain(trial.thread_settings),
            load=max(loads, default=None),
            throttled=_share(trial, "throttled"),
            stalled=None if stalled is None or not trial.train_seconds else stalled / trial.train_seconds,
            speed=trial.tokens_per_second or None,
        )
        if trial.train_seconds >= BRIEF:
            return found
        return found._replace(threads=(), load=None, throttled=None, stalled=None, speed=None)

    @property
    def loaded(self) -> bool:
        return self.load is not None and self.load > LOADED

    def faster_by(self, other: Pace) -> float | None:
        """Logarithm of the ratio of speeds; None where a step of the two does not cost the same."""
        if self.cost != other.cost or self.speed is None or other.speed is None:
            return None
        return math.log(self.speed / other.speed)


@dataclass(frozen=True)
class Likeness:
    """Says which trials are alike. `band`: how far the speeds of like trials may lie apart (logarithm)."""

    band: float = LEAST_BAND
    _paces: dict[int, tuple[Trial, Pace]] = field(default_factory=dict, compare=False, repr=False)

    def pace(self, trial: Trial) -> Pace:
        """That of a record, read once."""
        known = self._paces.get(id(trial))
        if known is None:
            known = self._paces[id(trial)] = trial, Pace.of(trial)
        return known[1]

    @classmethod
    def learned(cls, trainers: Iterable[Sequence[Trial]]) -> Likeness:
        """By how much repeats of one trainer scatter from one to the next: of one such difference it may be a change.

        The trials of each are in order.
        """
        scatter = []
        for trials in trainers:
            for before, after in itertools.pairwise(Pace.of(trial) for trial in trials if _trained(trial)):
                move = after.faster_by(before)
                if move is not None and not before.loaded and not after.loaded:
                    scatter.append(abs(move))
        usual = SCATTERS * statistics.median_low(scatter) if len(scatter) > 1 else 0.0
        return cls(min(MOST_BAND, max(LEAST_BAND, usual)))

    def alike(self, one: Trial, other: Trial) -> bool:
        """Whether the two may be held against each other."""
        a, b = self.pace(one), self.pace(other)
        if not _beside_the_same(a, b):
            return False if a.device != b.device else self._same_speed(a, b)
        move = a.faster_by(b)
        if move is not None:
            return abs(move) <= (MOST_BAND if a.loaded and b.loaded else self.band)
        return a.threads == b.threads and _near(a.throttled, b.throttled) and _near(a.stalled, b.stalled, STALLED)

    def _same_speed(self, a: Pace, b: Pace) -> bool:
        move = a.faster_by(b)
        return move is not None and abs(move) <= self.band

    def those_like(self, trial: Trial, among: Iterable[Trial]) -> list[Trial]:
        return [one for one in among if self.alike(trial, one)]


def _beside_the_same(a: Pace, b: Pace) -> bool:
    """Whether nothing that a trainer can't help is known to differ."""
    return a.device == b.device and _near(a.load, b.load)


def _near(a: float | None, b: float | None, tolerance: float = LOADED) -> bool:
    """Whether two shares leave about the same of a whole. One load takes the more, the less a trainer works itself."""
    if a is None or b is None:
        return True
    left, right = max(1 - a, LEAST_LEFT), max(1 - b, LEAST_LEFT)
    return abs(math.log(left / right)) <= -math.log(1 - tolerance) + min(a, b) / 2


def settled(evidence: Evidence) -> Evidence | AnotherTrial | Decision:
    """The evidence without trials that are unlike the newest, or what it takes first.

    A policy that gets evidence with `exhausted` set decides on what is there. For the baseline, the answer is no
    Decision.
    """
    if evidence.champion is None:
        return _baseline(evidence)
    return _Candidate.of(evidence).settled()


def of_champion(evidence: Evidence) -> Evidence:
    """What may be held against each other of the champion's trials."""
    found = settled(replace(evidence, trials=()))
    assert isinstance(found, Evidence), "without a candidate's trials there is nothing to run again"
    return found


@dataclass(frozen=True)
class _Candidate:
    """An experiment's trials and those of its champion that trained, each in the order they ran."""

    evidence: Evidence
    like: Likeness
    trials: tuple[Trial, ...]  # the candidate's
    before: tuple[Trial, ...]  # the champion's from before the experiment
    again: tuple[Trial, ...]  # the champion's since its first trial

    @classmethod
    def of(cls, evidence: Evidence) -> _Candidate:
        begun = evidence.trials[0].started if evidence.trials else "~"  # after any time
        reign = evidence.lineage[-1]
        again = tuple(one for one in reign.again if one.started >= begun)
        return cls(
            evidence=evidence,
            like=likeness(evidence),
            trials=tuple(filter(_trained, evidence.trials)),
            before=tuple(filter(_trained, (*reign.experiment.trials, *reign.again[: len(reign.again) - len(again)]))),
            again=again,
        )

    def settled(self) -> Evidence | AnotherTrial | Decision:
        trials = self.evidence.trials
        if not trials:
            usual = self._usual()
            return self._with((), usual, exhausted=len(self._champion) - len(usual) >= MOST_WASTED)
        last = trials[-1]
        if not _trained(last):
            return self._failed(last)
        references = self._references(last)
        wasted = self._wasted(last, references)
        if references and wasted < MOST_WASTED and _stopped_too_soon(last, references):
            return AnotherTrial(last.seed, why="it was stopped beside a champion of another pace: it runs again")
        if references:
            return self._with(self._counting(last), references, exhausted=wasted >= MOST_WASTED)
        if wasted < MOST_WASTED:
            return self._ask(last)
        for earlier in reversed(self.trials[:-1]):
            if references := self._references(earlier):
                return self._with(self._counting(earlier), references, exhausted=True)
        ran = len(self.trials) + len(self.again)
        reason = f"{DISTURBED} in each of {ran} trials: propose it again when it is quiet"
        return Decision(verdict="invalid", reason=reason, val_bpb=None, champion_bpb=None, spread=None)

    def _counting(self, last: Trial) -> list[Trial]:
        """The candidate's trials that are like this one. One that was stopped and ran again does not count."""
        alike = self.like.those_like(last, self.trials)
        return [one for one in alike if one.verdict == "scored" or one is last]

    @property
    def _champion(self) -> list[Trial]:
        return [one for one in (*self.before, *self.again) if _trained(one)]

    def _usual(self) -> list[Trial]:
        """The most trials of the champion that are alike; of as many, the newest."""
        champion = self._champion
        return max((self.like.those_like(one, champion) for one in reversed(champion)), key=len, default=[])

    def _references(self, trial: Trial) -> list[Trial]:
        """The champion's trials that this one may be held against.

        A trainer that is slow or fast by itself repeats that while the champion, run since, is as it was before.
        """
        champion = self._champion
        if found := self.like.those_like(trial, champion):
            return found
        pace = Pace.of(trial)
        held = [
            one
            for one in self.again
            if _trained(one) and _beside_the_same(Pace.of(one), pace) and self.like.those_like(one, self.before)
        ]
        if not held:
            return []
        repeats = 2 if _slower(pace, Pace.of(held[-1])) else 1
        if len(self.like.those_like(trial, self.trials)) < repeats:
            return []
        return self.like.those_like(held[-1], champion)

    def _wasted(self, trial: Trial, references: Sequence[Trial]) -> int:
        """How many trials of this experiment are no evidence beside that one."""
        unlike = len(self.trials) - len(self.like.those_like(trial, self.trials)) + (not references)
        return unlike + sum(one not in references for one in self.again)

    def _with(self, trials: Sequence[Trial], references: Sequence[Trial], *, exhausted: bool = False) -> Evidence:
        """The evidence of these trials of the candidate beside those of the champion, and of no others."""
        *earlier, reign = self.evidence.lineage
        kept = tuple(one for one in reign.experiment.trials if one in references)
        again = tuple(one for one in reign.again if one in references)
        lineage: list[Reign] = []
        if kept:
            # Kept beside trials of the one before it, that of the one before it, and so on, as far as those are alike.
            for one in reversed(earlier):
                alike = [trial for trial in one.trials if _trained(trial) and self._goes_with(trial, one, references)]
                if not any(trial in one.experiment.trials for trial in alike):
                    break
                lineage.append(_limited(one, alike))
            lineage = [*reversed(lineage), _limited(reign, (*kept, *again))]
        else:
            lineage = [Reign(experiment=replace(reign.experiment, trials=_counted(again)))]
        return replace(
            self.evidence,
            trials=_counted(trials),
            champion=lineage[-1].experiment,
            lineage=tuple(lineage),
            exhausted=exhausted,
        )

    def _goes_with(self, trial: Trial, reign: Reign, references: Sequence[Trial]) -> bool:
        last = [one for one in reign.trials if _trained(one)][-1]
        return self.like.alike(trial, last) and any(
            _beside_the_same(Pace.of(trial), Pace.of(one)) for one in references
        )

    def _failed(self, last: Trial) -> Evidence | AnotherTrial:
        """A failure beside more load than the champion had may be the load's: once it runs again."""
        pace, champion = Pace.of(last), self._champion
        first = sum(not _trained(one) for one in self.evidence.trials) == 1
        if first and pace.loaded and champion and not any(_beside_the_same(Pace.of(one), pace) for one in champion):
            return AnotherTrial(last.seed, why=f"the trial failed, and {cause(last)}: it runs again")
        return self._with((*self.trials, last), self._usual())

    def _ask(self, last: Trial) -> AnotherTrial:
        """The next trial, where the candidate's last one has no like."""
        champion = self._champion
        if not champion:
            return AnotherTrial(last.seed, of="champion", why="no trial of the champion can be compared: it runs again")
        newest = champion[-1]
        pace, other = Pace.of(last), Pace.of(newest)
        if self.again and newest is self.again[-1] and newest.started >= last.started:
            # Where both have run twice, a load may come and go in step with them: then the champion twice in a row.
            if len(self.again) > 1:
                return AnotherTrial(
                    last.seed, of="champion", why=f"{_difference(newest, last)}: the champion runs again"
                )
            return AnotherTrial(last.seed, why=f"{_difference(newest, last)}: the trial runs again")
        what = _difference(last, newest)
        if pace.device != other.device:
            return AnotherTrial(last.seed, of="champion", why=f"{what}: the champion runs there too")
        if not _slower(pace, other):
            return AnotherTrial(last.seed, of="champion", why=f"{what}: the champion runs again")
        if len(self.like.those_like(last, self.trials)) == 1:
            return AnotherTrial(last.seed, why=f"{what}: the trial runs again")
        return AnotherTrial(last.seed, of="champion", why=f"{what}, twice: the champion runs beside the same")


def _baseline(evidence: Evidence) -> Evidence | AnotherTrial:
    trials = tuple(filter(_trained, evidence.trials))
    if not trials:
        return evidence
    like, last = likeness(evidence), trials[-1]
    alike = like.those_like(last, trials)
    alone = len(alike) == 1 and Pace.of(last).loaded
    if len(trials) - len(alike) + alone > MOST_WASTED:
        most = max((like.those_like(one, trials) for one in trials), key=len)
        seeds = {one.seed for one in most}
        rest = {one.seed: one for one in trials if one.seed not in seeds}
        return replace(evidence, trials=_counted((*most, *rest.values())), exhausted=True)
    if alone:
        return AnotherTrial(last.seed, why=f"{cause(last)}: the baseline runs again")
    return replace(evidence, trials=_counted(alike))


def _limited(reign: Reign, trials: Sequence[Trial]) -> Reign:
    """The reign with these of its trials."""
    first, again = ([one for one in ran if one in trials] for ran in (reign.experiment.trials, reign.again))
    return Reign(experiment=replace(reign.experiment, trials=_counted(first)), again=_counted(again))


def _counted(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """As evidence: beside their likes, trials are not disturbed any more."""
    return tuple(replace(one, disturbed="") if one.disturbed else one for one in trials)


def likeness(evidence: Evidence) -> Likeness:
    """What is known of how much this machine's speed scatters. A candidate's own trials don't say it."""
    if evidence.champion is None:
        return Likeness.learned([evidence.trials])
    baseline = evidence.baseline
    first = [] if baseline is None else [Reign(experiment=baseline, again=evidence.baseline_again)]
    reigns = {one.experiment.number: one.trials for one in (*first, *evidence.lineage)}
    return Likeness.learned(reigns.values())


def is_loaded(trial: Trial) -> bool:
    """Whether other processes took so much of the device that scores scatter by it."""
    return Pace.of(trial).loaded


def at_level(trials: Iterable[Trial], *, loaded: bool) -> list[Trial]:
    """Of a trainer's trials those of a quiet device that nothing disturbed, or those beside the newest load."""
    trials = list(trials)
    if not loaded:
        return [one for one in trials if not one.disturbed and not is_loaded(one)]
    paces = [(one, pace) for one in trials if (pace := Pace.of(one)).loaded]
    return [replace(one, disturbed="") for one, pace in paces if _beside_the_same(pace, paces[-1][1])]


def marked(trial: Trial, evidence: Evidence) -> Trial:
    """The record of a trial that has just run for the next verdict, with what disturbed it."""
    beside = evidence.lineage[-1].trials if evidence.lineage else ()
    found = cause(trial, (*beside, *evidence.trials), likeness(evidence))
    return replace(trial, disturbed=found) if found else trial


def cause(trial: Trial, references: Sequence[Trial] = (), like: Likeness = Likeness()) -> str:
    """What changed a trial's speed, or may have; empty where nothing is known of it.

    It is the text of `Trial.disturbed`. `references`: earlier trials that it is compared with, its trainer's own among
    them.
    """
    pace = Pace.of(trial)
    moves = {}
    for one in references:
        if _trained(one) and (move := pace.faster_by(other := Pace.of(one))) is not None:
            moves[move] = other
    if any(abs(move) <= like.band and not other.loaded for move, other in moves.items()):
        return ""  # what else ran cost it nothing
    found = []
    if pace.loaded or (pace.throttled or 0.0) > LOADED:
        found = remarks({name: value for name, value in trial.conditions.items() if not name.startswith("host_")})
    if (pace.stalled or 0.0) > STALLED and not any(
        _near(pace.stalled, Pace.of(one).stalled, STALLED) for one in references
    ):
        seconds = f"{trial.stalled_seconds:.1f} s of {trial.train_seconds:.1f} s"
        found.append(f"{seconds} went into steps that took three times as long as the others")
    if not found and moves and _trained(trial) and max(moves) < -like.band:
        found = [f"{math.exp(max(moves)):.0%} of the speed of earlier trials whose step costs the same"]
        found += remarks(trial.conditions)
    return "; ".join(found)


def _difference(trial: Trial, other: Trial) -> str:
    """What makes the newer of two trials unlike the older one, for a person."""
    a, b = Pace.of(trial), Pace.of(other)
    if a.device != b.device:
        return f"this is {a.device}, and it was {b.device}"
    if not _near(a.load, b.load):
        return f"other processes took {a.load or 0.0:.0%} of the device, and {b.load or 0.0:.0%} before"
    move = a.faster_by(b)
    if move is not None:
        return (
            f"at the same cost of a step the speed is {math.exp(move):.0%} of what it was, and nothing else shows why"
        )
    if not _near(a.throttled, b.throttled):
        return f"the device was throttled in {a.throttled or 0.0:.0%} of the samples, not {b.throttled or 0.0:.0%}"
    if not _near(a.stalled, b.stalled, STALLED):
        return f"steps stalled for {a.stalled or 0.0:.0%} of the training time, and for {b.stalled or 0.0:.0%} before"
    return "threads wait in another way than before"


def _slower(a: Pace, b: Pace) -> bool:
    """Whether what differs made a slower than b."""
    move = a.faster_by(b)
    if move is not None:
        return move < 0
    return _hindrance(a) > _hindrance(b)


def _hindrance(pace: Pace) -> float:
    return (pace.load or 0.0) + (pace.throttled or 0.0) + (pace.stalled or 0.0)


def _stopped_too_soon(trial: Trial, references: Iterable[Trial]) -> bool:
    """Whether a rule stopped it that knew none of these trials of the champion, as they came after it."""
    return trial.verdict == "stopped" and all(one.started > trial.started for one in references)


def _trained(trial: Trial) -> bool:
    """Whether it trained to its end, or until a rule stopped it."""
    return trial.verdict in ("scored", "stopped")


def _share(trial: Trial, name: str) -> float | None:
    value = trial.conditions.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _plain(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value
