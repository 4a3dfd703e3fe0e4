"""The demo's campaign on surrogates of recorded trials: how many it keeps, and how far it gets.

    python benchmarks/demo.py

Each seed splits the recorded trials anew: one half is the search's prior, as the package's are in a real campaign, and
the truth is fitted to the other half, which the search has never seen. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import presets
from benchmarks.search import campaigns, table
from benchmarks.search.surrogate import Surrogate, noise_of
from core.agents.search import prior, recorded
from core.agents.search.agent import SearchAgent
from core.records import Preset
from core.trainer.reference import reference_trainer

BUDGET = 20.0  # seconds on one core, that the table was recorded with: about what the demo's eight are on two


@dataclass(frozen=True, kw_only=True)
class Run:
    """One campaign. Scores are the surrogate's, without noise."""

    seed: int
    baseline: float
    champion: float
    kept: int
    failures: int
    steps: int  # of the baseline

    @property
    def gain(self) -> float:
        return self.baseline - self.champion


def main(arguments: Sequence[str] | None = None) -> int:
    """The status: 0, or 130 after Ctrl-C."""
    options = _options(arguments)
    preset = presets.load("demo")
    try:
        runs = [run(preset, seed, options.experiments, use_prior=not options.no_prior) for seed in range(options.seeds)]
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(report(runs), indent=1) if options.json else _table(runs))
    return 0


def run(preset: Preset, seed: int, experiments: int, *, use_prior: bool = True) -> Run:
    """One campaign of the search with this seed, on a split of the recorded trials with this seed."""
    rows = recorded.read()
    known, truth = halves(rows, seed)
    surrogate = Surrogate(truth, table.SPACES, BUDGET)
    text = campaigns.constants_of(reference_trainer(preset), also=table.SPACES)
    agent = SearchAgent(seed)
    agent.recorded = prior.of_table(known) if use_prior else ()
    trials = (campaigns.baseline_trial(surrogate, text, preset),)
    noise, _ = noise_of(rows)
    played = campaigns.play(agent, surrogate, noise, text, preset, seed, experiments, trials)
    return Run(
        seed=seed, baseline=played.best[0], champion=played.best[-1], kept=played.kept, failures=played.failures,
        steps=trials[0].steps,
    )  # fmt: skip


def halves(rows: Sequence[recorded.Row], seed: int) -> tuple[list[recorded.Row], list[recorded.Row]]:
    """A random half of the recorded trials and the other half, each with the baseline; one point is in one half."""
    first = rows[0].constants
    others = sorted({repr(row.constants) for row in rows if row.constants != first})
    chosen = set(np.random.default_rng([seed, 7]).permutation(others)[: len(others) // 2].tolist())
    base = [row for row in rows if row.constants == first]
    parted: tuple[list[recorded.Row], list[recorded.Row]] = ([*base], [*base])
    for row in rows:
        if row.constants != first:
            parted[repr(row.constants) not in chosen].append(row)
    return parted


def report(runs: Sequence[Run]) -> dict[str, Any]:
    """Figures over all seeds."""
    return {
        "seeds": len(runs),
        "least_kept": min(one.kept for one in runs),
        "median_kept": statistics.median(one.kept for one in runs),
        "median_gain": statistics.median(one.gain for one in runs),
        "least_gain": min(one.gain for one in runs),
        "median_baseline": statistics.median(one.baseline for one in runs),
        "failures": statistics.mean(one.failures for one in runs),
        "runs": [{**vars(one), "gain": one.gain} for one in runs],
    }


def _table(runs: Sequence[Run]) -> str:
    lines = ["seed  steps  baseline  champion    gain  kept  failed"]
    lines += [
        f"{one.seed:4}  {one.steps:5}  {one.baseline:8.4f}  {one.champion:8.4f}  {one.gain:6.4f}  {one.kept:4}  "
        f"{one.failures:6}"
        for one in runs
    ]
    told = report(runs)
    lines.append(
        f"kept at least {told['least_kept']}, median {told['median_kept']:g}; gain at least {told['least_gain']:.4f}, "
        f"median {told['median_gain']:.4f} bpb"
    )
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="campaigns (20)")
    parser.add_argument("--experiments", type=int, default=12, help="of each, beside its baseline (12)")
    parser.add_argument("--no-prior", action="store_true", help="the search without recorded trials, to compare")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
