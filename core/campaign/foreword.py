"""What a run says before its first experiment: what it can show, and how program.md's limits meet the champion."""

from __future__ import annotations

import math
import statistics

from core.campaign.judge.base import Noise
from core.campaign.judge.limits import breach, unmeasured
from core.campaign.judge.outlook import experiments_in, outlook
from core.records import PROGRAM, Experiment
from core.store.program import Limits

_NAMES = {"memory_mb": "memory", "parameters": "parameters", "tokens_per_second": "tokens/s"}
_ENOUGH = 4  # degrees of freedom from which pairs say more than seeds


def _deviation(noise: Noise | None) -> float | None:
    """Of one trial's score in a comparison on equal seeds, in bits per byte; None where it is unknown."""
    if noise is not None and noise.pairs_freedom >= _ENOUGH:
        return math.sqrt(noise.pairs / 2)
    return math.sqrt(noise.seeds) if noise is not None and noise.seeds_freedom else None


def foreword(
    baseline: Experiment,
    champion: Experiment,
    limits: Limits,
    *,
    noise: Noise | None,
    most: float,
    seconds: float,
    pairs: int,
    held: bool,
) -> list[str]:
    """The lines, without those that have nothing to say.

    `noise` is pooled over the campaign's trials; `most` and `seconds` limit
    the run; `pairs` is how many trials of each trainer a small gain gets; `held` is whether the policy holds limits.
    """
    each = statistics.median(trial.wall_seconds for trial in baseline.trials) if baseline.trials else 0.0
    room = experiments_in(seconds, most, each)
    lines = [outlook(noise=_deviation(noise), spread=baseline.spread, experiments=room, pairs=pairs)]
    if not held:
        if limits != Limits():
            lines.append(f"{PROGRAM} sets limits or prices of a verdict, and this campaign's policy knows none")
        return [line for line in lines if line]
    if found := breach(champion.trials, limits, champion.val_bpb):
        lines.append(f"the champion {found}: the first candidate within the limits takes its place")
    if unknown := unmeasured(champion.trials, limits):
        names = " and ".join(_NAMES.get(name, name) for name in unknown)
        lines.append(f"{PROGRAM} limits {names}, which no trial measures on this device: it is not held to that")
    return [line for line in lines if line]
