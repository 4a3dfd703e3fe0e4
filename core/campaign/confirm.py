"""Champion against baseline with fresh seeds: the trials that it takes, and their result. Pure functions of records.

`remeasure.py` runs the trials. Scores are in bits per byte; a gain is the baseline's minus the champion's.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from core.campaign.schedule import PlannedTrial, fresh_seeds
from core.campaign.statistics import Interval, interval
from core.records import Experiment, Measurement, Trial, UserError

DEFAULT_SEEDS, LEAST_SEEDS = 3, 2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Baseline and champion with one seed."""

    seed: int
    baseline_bpb: float
    champion_bpb: float
    baseline_test_bpb: float
    champion_test_bpb: float

    @property
    def val(self) -> float:
        """The gain on the validation text."""
        return self.baseline_bpb - self.champion_bpb

    @property
    def test(self) -> float:
        return self.baseline_test_bpb - self.champion_test_bpb


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What `confirm --json` prints. Means are of the pairs, intervals need two; all None without a pair."""

    champion: int  # its experiment
    commit: str
    claimed: float  # the campaign's val_bpb of the baseline minus the champion's; of beliefs the newest
    pairs: tuple[Pair, ...]
    failed: tuple[str, ...]  # trials that did not end in a score, which takes their seed out
    unpaired: tuple[int, ...]  # seeds of which a trial has not run yet
    unaudited: tuple[int, ...]  # seeds that count, and ran before a confirmation's trials were audited deeply
    val_gain: float | None
    test_gain: float | None
    val: Interval | None
    test: Interval | None
    difference: Interval | None  # of the gains: val minus test
    share: float | None  # of the claim that is left on val
    alarm: str  # where val gained what test did not: what that means, in plain words
    note: str  # where test gained more than val, which is no reason for alarm
    conclusion: str
    line: str  # all of it in short


def seeds_for(count: int, recorded: Sequence[Measurement], used: Collection[int]) -> list[int]:
    """The seeds of a confirmation: those that it began with, then as many more that no trial has ever had.

    UserError for fewer than two: from one pair no interval follows.
    """
    if count < LEAST_SEEDS:
        raise UserError(
            f"a confirmation takes at least {LEAST_SEEDS} seeds, as in --seeds {DEFAULT_SEEDS}; not {count}"
        )
    return fresh_seeds(count, recorded, used)


def seconds_of(planned: Sequence[PlannedTrial], recorded: Sequence[Measurement] = ()) -> float:
    """How long these trials and their audits will take: as the median of their role so far, the test text included."""
    total = 0.0
    for one in planned:
        again = [
            m.trial.wall_seconds + (m.trial.audit.seconds if m.trial.audit is not None and _audited(m.trial) else 0.0)
            for m in recorded
            if m.role == one.role and m.trial.val_bpb is not None
        ]
        audit = 0.0 if one.experiment.audit is None else one.experiment.audit.seconds
        first = [trial.wall_seconds + trial.score_seconds + audit for trial in one.experiment.trials]
        total += statistics.median(again or first or [0.0])
    return total


def conclude(baseline: Experiment, champion: Experiment, recorded: Sequence[Measurement]) -> Confirmation:
    """The result of one confirmation. `recorded` are its trials in the order they ran."""
    assert baseline.val_bpb is not None and champion.val_bpb is not None, "both were kept"
    pairs, failed, unpaired, unaudited = [], [], [], []
    for seed in dict.fromkeys(one.trial.seed for one in recorded):
        of = {one.role: one.trial for one in recorded if one.trial.seed == seed}
        scores = {role: pair for role, trial in of.items() if (pair := _scores(trial)) is not None}
        failed += [f"{role}, seed {seed}: {failure_of(one)}" for role, one in of.items() if role not in scores]
        if len(scores) == 2:
            if not all(map(_audited, of.values())):
                unaudited.append(seed)
            (baseline_bpb, baseline_test), (champion_bpb, champion_test) = scores["baseline"], scores["champion"]
            pairs.append(
                Pair(
                    seed=seed,
                    baseline_bpb=baseline_bpb,
                    champion_bpb=champion_bpb,
                    baseline_test_bpb=baseline_test,
                    champion_test_bpb=champion_test,
                )
            )
        elif len(scores) == len(of):
            unpaired.append(seed)
    val, test = interval([pair.val for pair in pairs]), interval([pair.test for pair in pairs])
    difference = interval([pair.val - pair.test for pair in pairs])
    claimed = baseline.val_bpb - champion.val_bpb
    val_gain = statistics.fmean(pair.val for pair in pairs) if pairs else None
    found = Confirmation(
        champion=champion.number,
        commit=champion.commit,
        claimed=claimed,
        pairs=tuple(pairs),
        failed=tuple(failed),
        unpaired=tuple(unpaired),
        unaudited=tuple(unaudited),
        val_gain=val_gain,
        test_gain=statistics.fmean(pair.test for pair in pairs) if pairs else None,
        val=val,
        test=test,
        difference=difference,
        share=val_gain / claimed if val_gain is not None and claimed > 0 else None,
        alarm=alarm(val, test, difference),
        note=note(difference),
        conclusion=conclusion(val, test),
        line="",
    )
    return replace(found, line=summary(found))


def alarm(val: Interval | None, test: Interval | None, difference: Interval | None) -> str:
    """What a difference between val and test means; empty if they agree within noise or that is not known."""
    if val is None or test is None or difference is None:
        return ""
    if val.above_zero and not test.above_zero:
        return (
            f"val and test part: the gain on the validation text ({val}) is beyond the noise of seeds, that on "
            f"the test text ({test}) is not. The changes were chosen for their score on the validation text and "
            "may fit that text alone: do not count on this gain elsewhere"
        )
    if difference.above_zero:
        return (
            f"val and test part: the validation text gained {difference} more than the test text, which seeds do "
            "not explain. Part of the gain is for the text that the changes were chosen on, or the two texts differ: "
            f"the gain to believe is the test text's, {test}"
        )
    return ""


def note(difference: Interval | None) -> str:
    """What it means if the test text gained more than seeds explain; empty otherwise."""
    if difference is None or not difference.mean + difference.half_width < 0:
        return ""
    gained = replace(difference, mean=-difference.mean)
    return (
        f"the test text gained {gained} more than the validation text, which seeds do not explain: the "
        "two texts differ, and nothing was fitted to the one that the changes were chosen on"
    )


def conclusion(val: Interval | None, test: Interval | None) -> str:
    """Whether the gain is more than luck, in plain words."""
    if val is None or test is None:
        return "with fewer than two seeds that ran to the end on both sides, nothing is confirmed"
    if val.above_zero and test.above_zero:
        return "the gain holds on fresh seeds and on text that nothing was chosen on"
    if val.above_zero:
        return "the gain holds on fresh seeds, not on text that nothing was chosen on"
    if val.mean + val.half_width < 0:
        return "on fresh seeds the champion is worse than the baseline: what was kept was luck"
    return f"on {val.count} fresh seeds the gain can't be told from luck; more of them tell more: --seeds N"


def summary(one: Confirmation) -> str:
    """The result in a line, for `status` and a model's README."""
    if one.val_gain is None or one.test_gain is None:
        return f"not confirmed: {one.conclusion}"
    val = f"{one.val_gain:.4f}" if one.val is None else str(one.val)
    test = f"{one.test_gain:.4f}" if one.test is None else str(one.test)
    seeds = f"{len(one.pairs)} fresh seed{'s' * (len(one.pairs) != 1)}"
    kept = one.val is not None and one.val.above_zero
    share = "" if one.share is None else f", {one.share:.0%} of the claim"
    line = f"{'confirmed' if kept else 'measured'} on {seeds}: val gain {val}, test {test}{share}"
    return line + ("; val and test part: see autoresearch confirm" if one.alarm else "" if kept else "; not confirmed")


def _audited(trial: Trial) -> bool:
    """Whether both of its scores passed a deep audit."""
    return all(one is not None and one.kind == "deep" for one in (trial.audit, trial.test_audit))


def failure_of(trial: Trial) -> str:
    return f"disturbed: {trial.disturbed}" if trial.disturbed else f"{trial.verdict}: {trial.reason}"


def _scores(trial: Trial) -> tuple[float, float] | None:
    """On val and on test; None for a trial that lacks one, or that was disturbed."""
    if trial.disturbed or trial.verdict != "scored" or trial.val_bpb is None or trial.test_bpb is None:
        return None
    return trial.val_bpb, trial.test_bpb
