"""Replays the futility stop on recorded loss curves: what it stops, when, and what it would have lost.

    python -m benchmarks.futility
    python -m benchmarks.futility --json

The proposals of benchmarks/data/cpu_curves.jsonl.gz are a campaign, in the order they were recorded: a lower score than
the champion's is kept, and a rule knows only what ran to its end before. Then the same in other orders, and each
proposal against the best recorded one by a rule that knows all others.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.record_curves import CURVES, read
from core.campaign.judge import futility
from core.campaign.judge.futility import FullTrial
from core.trial.stop_rule import LossCurve, StopDetector, StopRule

WORSE = 0.05  # bits per byte: of those that end so far behind, at least half of the time should be saved
ORDERS = 40
_BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)  # bits per byte worse, of the steps of what is saved
# As this benchmark printed them for 18 proposals and 19 repeats: how much worse a candidate is, in bits per byte, and
# the share of its time that was saved; and the deviation of a score there.
SAVED = ((0.0, 0.0), (0.034, 0.0), (0.067, 0.19), (0.171, 0.44), (0.238, 0.74), (0.396, 0.81))
SAVED_NOISE = 0.0317


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded trial."""

    number: int  # of the table's row
    around: str  # the trainer that it changes
    seconds: float  # of training
    full: FullTrial


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A proposal as the campaign would have judged it."""

    number: int
    around: str
    worse: float  # than the champion of that time, bits per byte; below 0: it would have been kept
    equal: bool  # whether it had the champion's batches
    stopped: float | None  # progress
    seconds: float  # of training, had it run to its end

    @property
    def saved(self) -> float:
        """The share of its time."""
        return 0.0 if self.stopped is None else 1.0 - self.stopped


def recorded(kind: str, rows: Sequence[dict[str, Any]] | None = None) -> list[Recorded]:
    """The scored trials of one kind, `proposal` or `repeat`."""
    found = []
    for number, row in enumerate(read(CURVES) if rows is None else rows):
        if row["kind"] == kind and row["val_bpb"] is not None:
            points = tuple((int(step), progress, loss) for step, _, progress, loss in row["curve"])
            curve = LossCurve(points=points, batches=(row["rows"], row["sequence_length"], row["seed"]))
            full = FullTrial(curve=curve, val_bpb=row["val_bpb"])
            found.append(Recorded(number=number, around=row["around"], seconds=row["train_seconds"], full=full))
    return found


def noise_of(repeats: Sequence[Recorded]) -> float:
    """The deviation of a score between seeds, bits per byte: pooled over the repeated trainers."""
    groups = [[one.full.val_bpb for one in repeats if one.around == around] for around in ("baseline", "champion")]
    return float(np.sqrt(statistics.fmean(statistics.variance(group) for group in groups if len(group) > 1)))


def replay(baseline: Recorded, proposals: Sequence[Recorded], noise: float) -> Iterator[Replayed]:
    """A campaign of these proposals, in their order. Learns as it goes."""
    champion, known = baseline.full, list[FullTrial]()
    for one in proposals:
        rule = rule_for(champion, [full for full in known if full is not champion], noise)
        stopped = stopped_at(rule, one.full)
        worse = one.full.val_bpb - champion.val_bpb
        yield Replayed(
            number=one.number, around=one.around, worse=worse, equal=one.full.curve.batches == champion.curve.batches,
            stopped=stopped, seconds=one.seconds,
        )  # fmt: skip
        if stopped is None:
            known.append(one.full)
            champion = one.full if worse < 0 else champion


def left_out(proposals: Sequence[Recorded], noise: float) -> Iterator[Replayed]:
    """Each proposal against each of the two best ones, by a rule that was learned from all others."""
    best = sorted(proposals, key=lambda one: one.full.val_bpb)[:2]
    for champion in best:
        for one in proposals:
            if one is champion:
                continue
            others = [other.full for other in proposals if other is not one and other is not champion]
            rule = rule_for(champion.full, others, noise)
            yield Replayed(
                number=one.number, around=one.around, worse=one.full.val_bpb - champion.full.val_bpb,
                equal=one.full.curve.batches == champion.full.curve.batches,
                stopped=stopped_at(rule, one.full), seconds=one.seconds,
            )  # fmt: skip


def rule_for(champion: FullTrial, others: Sequence[FullTrial], noise: float) -> StopRule:
    return futility.rule(champion, others, bar=champion.val_bpb, noise=noise)


def stopped_at(rule: StopRule, full: FullTrial) -> float | None:
    """The progress at which the rule stops a trial; None if it runs to its end."""
    detector = StopDetector(rule, full.curve.batches)
    return next((point[1] for point in full.curve.points if detector.add(*point)), None)


def figures(played: Sequence[Replayed], noise: float) -> dict[str, float]:
    """What a replay comes to. Shares are of the training time."""
    bad = [one for one in played if one.worse > WORSE]
    stopped = [one for one in played if one.stopped is not None]
    return {
        "proposals": len(played),
        "kept": sum(one.worse < 0 for one in played),
        "stopped": len(stopped),
        "stopped_and_would_have_been_kept": sum(one.worse < 0 for one in stopped),
        "stopped_within_noise": sum(0 <= one.worse < noise for one in stopped),
        "earliest_stop": min((one.stopped or 1.0 for one in stopped), default=1.0),
        "median_stop": statistics.median([one.stopped or 1.0 for one in stopped]) if stopped else 1.0,
        "saved": _share(played),
        "worse": len(bad),
        "saved_of_worse": _share(bad),
    }


def _share(played: Sequence[Replayed]) -> float:
    seconds = sum(one.seconds for one in played)
    return sum(one.saved * one.seconds for one in played) / seconds if seconds else 0.0


def saved_shares(played: Sequence[Replayed]) -> tuple[tuple[float, float], ...]:
    """Pairs of how much worse a candidate is, in bits per byte, and the share of its time that was saved; monotone.

    From replays in many orders, so with all that a campaign has to learn first.
    """
    edges = (*_BINS, float("inf"))
    pairs, floor = [(0.0, 0.0)], 0.0
    for low, high in itertools.pairwise(edges):
        inside = [one for one in played if low < one.worse <= high]
        if inside:
            floor = max(floor, statistics.fmean(one.saved for one in inside))
            pairs.append((statistics.fmean(one.worse for one in inside), floor))
    return tuple(pairs)


def saved_share(worse: float, noise: float) -> float:
    """The share of a trial's time that a stop saves, on average, where the candidate is truly so much worse.

    Both in bits per byte; `noise` is the deviation of a score. Where it is larger than in the recorded trials, a
    candidate has to be worse by as many times more; where it is smaller, nothing more is claimed than was recorded.
    """
    places, shares = zip(*SAVED, strict=True)
    return float(np.interp(worse * min(1.0, SAVED_NOISE / noise), places, shares))


def _orders(proposals: Sequence[Recorded]) -> Iterator[list[Recorded]]:
    rng = np.random.default_rng(0)
    for _ in range(ORDERS):
        yield [proposals[place] for place in rng.permutation(len(proposals))]


def first_champion() -> Recorded:
    return next(one for one in recorded("repeat") if one.around == "baseline" and one.full.curve.batches[2] == 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The status."""
    parser = argparse.ArgumentParser(
        prog="futility", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    proposals, noise = recorded("proposal"), noise_of(recorded("repeat"))
    played = list(replay(first_champion(), proposals, noise))
    shuffled = [list(replay(first_champion(), order, noise)) for order in _orders(proposals)]
    orders, shares = (
        [figures(one, noise) for one in shuffled],
        saved_shares([one for order in shuffled for one in order]),
    )
    found: dict[str, Any] = {
        "noise": noise,
        "recorded_order": figures(played, noise),
        "other_orders": {name: statistics.fmean(one[name] for one in orders) for name in orders[0]},
        "least_saved_of_worse": min(one["saved_of_worse"] for one in orders),
        "left_out": figures(list(left_out(proposals, noise)), noise),
        "saved_shares": shares,
    }
    if options.json:
        print(json.dumps(found | {"proposals": [dataclasses.asdict(one) for one in played]}))
        return 0
    print("row  around    batches  worse    stopped")
    for one in played:
        at = "" if one.stopped is None else f"{one.stopped:.0%}"
        print(f"{one.number:3}  {one.around:8}  {'equal' if one.equal else 'other':7}  {one.worse:+.4f}  {at}")
    names = list(figures(played, noise))
    print(f"\n{'noise ' + format(noise, '.4f'):34}{'recorded':>10}{'orders':>10}{'left out':>10}")
    for name in names:
        row = (found[part][name] for part in ("recorded_order", "other_orders", "left_out"))
        print(f"{name.replace('_', ' '):34}" + "".join(f"{value:10.3f}" for value in row))
    print(f"\nleast saved of the worse, of {ORDERS} orders: {found['least_saved_of_worse']:.0%}")
    print("saved by how much worse: " + ", ".join(f"{worse:.3f}: {share:.0%}" for worse, share in shares))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
