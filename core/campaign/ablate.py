"""Which kept changes still earn their place: the champion against itself without one of them. Pure but for the merge.

`studies.py` runs the trials. A contribution is the score without the change minus the champion's, in bits per byte.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.campaign.schedule import PlannedTrial
from core.campaign.statistics import CONFIDENCE, Interval, pooled, quantile
from core.records import Experiment, Measurement, Trial, UserError, Verdict
from core.system.text import one_line
from core.trainer.fingerprint import fingerprint, nodes
from core.trainer.merge import MergeLines, merge

CHAMPION = "champion"
DEFAULT_SEEDS = 3
NEGLIGIBLE = 0.0001  # bits per byte: the last digit that scores are shown with
LEAST_NOISE = 0.002  # bits per byte, for a campaign whose noise is unknown: the least difference between seeds seen

# helps: beyond luck. noise: can't be told from luck. hurts: the champion is better without it. needed: without it the
# trainer fails. overlaps: a later change stands on the same lines. replaced: later changes left nothing of it.
# undecided: too few pairs.
Finding = Literal["helps", "noise", "hurts", "needed", "overlaps", "replaced", "undecided"]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The champion without one kept change; no text where it can't be left out."""

    experiment: Experiment
    text: str | None
    finding: Finding = "undecided"
    why: str = ""  # there is no text
    stay: tuple[str, ...] = ()  # constants of it that later changes set again: they keep their values

    @property
    def role(self) -> str:
        return f"without {self.experiment.number}"


@dataclass(frozen=True, kw_only=True)
class AblatedChange:
    """What is known of one kept change."""

    experiment: int
    hypothesis: str
    gain: float | None  # as its experiment recorded it
    finding: Finding
    why: str  # what the finding rests on, in words
    stay: tuple[str, ...]  # constants of it that later changes set again: they kept their values
    pairs: int  # seeds on which both sides ran
    contribution: float | None
    interval: Interval | None
    nodes: int | None  # of the syntax tree that go with it; negative where the trainer grows


@dataclass(frozen=True, kw_only=True)
class SmallerChampion:
    """The champion without changes that it does not need, to be judged like any other experiment."""

    without: tuple[int, ...]
    nodes: int | None
    champion_nodes: int | None
    experiment: int | None  # that tried it; None: none did yet
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What `ablate --json` prints."""

    champion: int
    commit: str
    changes: tuple[AblatedChange, ...]  # in the order in which they were kept
    noise: float | None  # deviation of a pair's difference, over all changes
    freedom: int  # degrees of freedom that it rests on
    failed: tuple[str, ...]  # trials of the champion that did not end in a score, which takes their seed out
    trials: int  # recorded
    left: int  # trials that are still to run
    smaller: SmallerChampion | None  # None: nothing is to be left out
    conclusion: str


def stack(kept: Sequence[Experiment], texts: Sequence[str], merge_lines: MergeLines) -> list[LeftOut]:
    """The champion without each of its changes. `kept` are the experiments on the branch, the baseline first.

    `texts` are their trainers. A change goes by a three-way merge from its own text to the one before it.
    """
    final, found = texts[-1], []
    for place in range(1, len(kept)):
        try:
            merged = merge(texts[place], final, texts[place - 1], merge_lines)
        except UserError as error:
            found.append(LeftOut(experiment=kept[place], text=None, finding="needed", why=f"without it {error}"))
            continue
        if merged.text is None:
            by = _overlapping(kept, texts, place, merge_lines)
            why = "other changes stand on its lines" if by is None else f"experiment {by} changed the same lines again"
            found.append(LeftOut(experiment=kept[place], text=None, finding="overlaps", why=why))
        elif fingerprint(merged.text) == fingerprint(final):
            why = "later changes left nothing of it in the champion"
            found.append(LeftOut(experiment=kept[place], text=None, finding="replaced", why=why))
        else:
            found.append(LeftOut(experiment=kept[place], text=merged.text, stay=merged.ours))
    return found


def _overlapping(kept: Sequence[Experiment], texts: Sequence[str], place: int, merge_lines: MergeLines) -> int | None:
    """The first later experiment from which on the change can't be left out."""
    for later in range(place + 1, len(kept)):
        with contextlib.suppress(UserError):
            if merge(texts[place], texts[later], texts[place - 1], merge_lines).text is None:
                return kept[later].number
    return None


def without(
    chosen: Collection[int], kept: Sequence[Experiment], texts: Sequence[str], merge_lines: MergeLines
) -> tuple[str, tuple[int, ...]]:
    """The champion without as many of the chosen experiments as can go together; and which these are."""
    text, gone = texts[-1], []
    for place in reversed(range(1, len(kept))):
        if kept[place].number in chosen:
            try:
                merged = merge(texts[place], text, texts[place - 1], merge_lines)
            except UserError:
                continue
            if merged.text is not None:
                text = merged.text
                gone.append(kept[place].number)
    return text, tuple(sorted(gone))


class Pairs:
    """Recorded trials of an ablation, as paired differences. A failed or disturbed trial makes no pair."""

    def __init__(self, recorded: Sequence[Measurement]) -> None:
        self.trials: dict[str, dict[int, Trial]] = {}
        for one in recorded:
            if not one.trial.disturbed:
                self.trials.setdefault(one.role, {})[one.trial.seed] = one.trial
        self._tries = Counter((one.role, one.trial.seed) for one in recorded)
        self.differences: Mapping[str, list[float]] = {
            role: [
                trial.val_bpb - champion.val_bpb
                for seed, trial in trials.items()
                if trial.val_bpb is not None
                and (champion := self.of(CHAMPION, seed)) is not None
                and champion.val_bpb is not None
            ]
            for role, trials in self.trials.items()
            if role != CHAMPION
        }
        self.noise, self.freedom = pooled(list(self.differences.values()))

    def of(self, role: str, seed: int) -> Trial | None:
        return self.trials.get(role, {}).get(seed)

    def open(self, role: str, seed: int, attempts: int) -> bool:
        """Whether the role's trial with this seed is to be run: once, and again while it is disturbed."""
        return self.of(role, seed) is None and self._tries[role, seed] < attempts

    def failure(self, role: str) -> Trial | None:
        """The first trial of a role that ended in no score."""
        return next((trial for trial in self.trials.get(role, {}).values() if trial.val_bpb is None), None)

    def interval(self, role: str) -> Interval | None:
        """Of the mean difference; None for fewer than two pairs.

        By the noise of all changes' pairs, which are too few each: or by the change's own where that is larger.
        """
        values = self.differences.get(role, [])
        if len(values) < 2:
            return None
        noise = max(self.noise, statistics.stdev(values))
        half_width = quantile((1 + CONFIDENCE) / 2, self.freedom) * noise / math.sqrt(len(values))
        return Interval(mean=statistics.fmean(values), half_width=half_width, count=len(values))

    def finding(self, role: str) -> Finding:
        if self.failure(role) is not None:
            return "needed"
        found = self.interval(role)
        if found is None:
            return "undecided"
        if found.mean - found.half_width > NEGLIGIBLE:
            return "helps"
        return "hurts" if found.mean + found.half_width < -NEGLIGIBLE else "noise"


def next_trials(
    candidates: Sequence[LeftOut],
    champion: Experiment,
    recorded: Sequence[Measurement],
    seeds: Sequence[int],
    attempts: int = 1,
) -> list[PlannedTrial]:
    """The trials to run, those of the best value for their device time first; empty if every change is decided.

    The value of a change's next pair is what it can be expected to improve the choice between the champion with and
    without it (the knowledge gradient of Frazier et al. 2008), by the gain that was recorded and the pairs since.
    """
    pairs = Pairs(recorded)
    ran = {seed: pairs.of(CHAMPION, seed) for seed in seeds}
    usable = [seed for seed, one in ran.items() if pairs.open(CHAMPION, seed, attempts) or (one and one.val_bpb)]
    open_ = []
    for one in candidates:
        left = [seed for seed in usable if pairs.open(one.role, seed, attempts)]
        if one.text is not None and left and pairs.finding(one.role) in ("undecided", "noise"):
            price = 1 if pairs.of(CHAMPION, left[0]) is not None else 2
            open_.append((_value(one.experiment, pairs, one.role) / price, -abs(one.experiment.gain or 0.0), one, left))
    open_.sort(key=lambda each: each[:2], reverse=True)
    planned: dict[tuple[str, int], PlannedTrial] = {}
    for _, _, one, left in open_:
        for seed in left:
            if pairs.of(CHAMPION, seed) is None:
                planned.setdefault((CHAMPION, seed), PlannedTrial(CHAMPION, champion, seed))
            planned.setdefault((one.role, seed), PlannedTrial(one.role, champion, seed, one.text))
    return list(planned.values())


def _value(experiment: Experiment, pairs: Pairs, role: str) -> float:
    """Bits per byte that one more pair is expected to be worth for whether the change stays."""
    noise = max(pairs.noise if pairs.freedom > 1 else 0.0, experiment.spread or 0.0, LEAST_NOISE)
    values = pairs.differences.get(role, [])
    precision = 1 / (2 * noise**2) + len(values) / noise**2  # the recorded gain is one pair, of two lucky trials
    mean = ((experiment.gain or 0.0) / (2 * noise**2) + sum(values) / noise**2) / precision
    moves = math.sqrt(1 / precision - 1 / (precision + 1 / noise**2))
    normal, at = statistics.NormalDist(), -abs(mean) / moves
    return moves * (normal.pdf(at) + at * normal.cdf(at))


def conclude(
    candidates: Sequence[LeftOut], champion: Experiment, text: str, recorded: Sequence[Measurement], left: int
) -> Ablation:
    """What the trials say of every change. `text` is the champion's trainer; the smaller one is added by the caller."""
    pairs = Pairs(recorded)
    changes = tuple(_change(one, pairs, text) for one in candidates)
    failed = tuple(
        f"champion, seed {seed}: {trial.verdict}: {one_line(trial.reason)}"
        for seed, trial in pairs.trials.get(CHAMPION, {}).items()
        if trial.val_bpb is None
    )
    found = Ablation(
        champion=champion.number,
        commit=champion.commit,
        changes=changes,
        noise=pairs.noise if pairs.freedom else None,
        freedom=pairs.freedom,
        failed=failed,
        trials=len(recorded),
        left=left,
        smaller=None,
        conclusion="",
    )
    return replace(found, conclusion=_conclusion(found))


def _change(one: LeftOut, pairs: Pairs, text: str) -> AblatedChange:
    finding = pairs.finding(one.role) if one.text is not None else one.finding
    values, interval = pairs.differences.get(one.role, []), pairs.interval(one.role)
    mean = statistics.fmean(values) if values else None
    why, size = one.why, (nodes(text), nodes(one.text) if one.text is not None else None)
    if one.text is not None:
        failure = pairs.failure(one.role)
        if failure is not None:
            why = f"without it the trainer fails: {failure.verdict}: {one_line(failure.reason)}"
        elif mean is None:
            why = "it was not measured"
        else:
            why = f"contributes {mean:.4f} on one seed" if interval is None else f"contributes {interval}"
    return AblatedChange(
        experiment=one.experiment.number,
        hypothesis=one.experiment.hypothesis,
        gain=one.experiment.gain,
        finding=finding,
        why=why,
        stay=one.stay,
        pairs=len(values),
        contribution=mean,
        interval=interval,
        nodes=size[0] - size[1] if size[0] is not None and size[1] is not None else None,
    )


def superfluous(changes: Sequence[AblatedChange]) -> list[tuple[int, ...]]:
    """What a smaller champion could do without, in the order to try: all of it, then each alone, the least first.

    That is what hurts, and what makes the trainer smaller and is nearer to nothing than half its interval.
    """
    found = [
        change
        for change in changes
        if change.interval is not None
        and (
            change.finding == "hurts"
            or (
                change.finding == "noise"
                and (change.nodes or 0) > 0
                and change.interval.mean <= change.interval.half_width / 2
            )
        )
    ]
    found.sort(key=lambda change: change.interval.mean if change.interval is not None else 0.0)
    alone = [(change.experiment,) for change in found]
    together = [tuple(sorted(number for (number,) in alone))] if len(alone) > 1 else []
    return together + alone


def _conclusion(found: Ablation) -> str:
    by: dict[Finding, list[AblatedChange]] = {}
    for change in found.changes:
        by.setdefault(change.finding, []).append(change)
    parts = []
    for finding, words in (
        ("helps", "beyond luck"),
        ("noise", "can't be told from luck"),
        ("hurts", "hurt"),
        ("needed", "can't be done without"),
        ("overlaps", "can't be left out alone"),
        ("replaced", "have no part in it any more"),
        ("undecided", "not known yet"),
    ):
        if some := by.get(finding):  # type: ignore[call-overload]
            parts.append(f"{words}: {', '.join(str(one.experiment) for one in some)}")
    return f"of {len(found.changes)} kept changes {'; '.join(parts)}"
