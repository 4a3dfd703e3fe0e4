"""Simple policies that the product's is held against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from core.campaign.judge.base import AnotherTrial, Decision, Evidence, Policy, failure
from core.campaign.judge.belief import Belief
from core.campaign.judge.greedy import LowerWins
from core.campaign.judge.noise import scores
from core.campaign.statistics import quantile
from core.records import Verdict

GATE_SEEDS = 3


class _Seeded:
    """Compares means over the seeds that both have. The baseline runs with `seeds` of them."""

    version, seeds = 1, 2

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        for trial in evidence.trials:
            if (failed := failure(trial)) is not None:
                return Decision(verdict=failed[0], reason=failed[1], val_bpb=None, champion_bpb=None, spread=None)
        own = scores(evidence.trials)
        champion = scores(evidence.lineage[-1].trials) if evidence.lineage else {}
        if not evidence.lineage:
            missing = next((seed for seed in range(1, 1 + self.seeds) if seed not in own), None)
            return _decision("keep", own, own) if missing is None else AnotherTrial(missing)
        if 1 not in own:
            return AnotherTrial(1)
        if own[1] >= champion[1]:
            return _decision("discard", own, champion)
        for seed in range(2, 1 + self.seeds):
            if seed not in champion:
                return AnotherTrial(seed, "champion")
            if seed not in own:
                return AnotherTrial(seed)
        gains = [champion[seed] - own[seed] for seed in own]
        return _decision("keep" if self.wins(gains) else "discard", own, champion)

    def refused(self, evidence: Evidence, verdict: Verdict, reason: str) -> Decision:
        return Decision(verdict=verdict, reason=reason, val_bpb=None, champion_bpb=None, spread=None)

    def wins(self, gains: list[float]) -> bool:
        raise NotImplementedError


class Retest(_Seeded):
    """A lower score is tried once more with another seed, and kept if the mean of both is lower."""

    name = "retest"

    def wins(self, gains: list[float]) -> bool:
        return statistics.fmean(gains) > 0


class Gate95(_Seeded):
    """A lower score is tried with two more seeds, and kept if the gain is significant (one-sided, 95 %)."""

    name, seeds = "gate95", GATE_SEEDS

    def wins(self, gains: list[float]) -> bool:
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        return statistics.fmean(gains) > quantile(0.95, len(gains) - 1) * error


def _decision(verdict: Verdict, own: Mapping[int, float], champion: Mapping[int, float]) -> Decision:
    shared = [seed for seed in own if seed in champion]
    return Decision(
        verdict=verdict,
        reason="",
        val_bpb=statistics.fmean(own[seed] for seed in shared),
        champion_bpb=statistics.fmean(champion[seed] for seed in shared),
        spread=None,
    )


POLICIES: dict[str, Policy] = {
    "greedy": LowerWins(),
    "gate95": Gate95(),
    "retest": Retest(),
    "belief": Belief(),
}
