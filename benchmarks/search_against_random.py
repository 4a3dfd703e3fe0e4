"""Campaigns of the search against random search, on a surrogate of the recorded trials, paired by seed.

    python benchmarks/search_against_random.py

Shows first how well the surrogate predicts trials that it was not fitted to. No constant of the search was chosen on
the seeds that this runs with. Ctrl-C ends it; the next call starts from the beginning. With --real, the surrogate's
scores of the last champions are compared with real trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import presets
from benchmarks import record_trials
from benchmarks.search import campaigns, surrogate, table
from benchmarks.search.campaigns import Played
from benchmarks.search.opponents import Near, Tpe, Uniform
from core.agents.search import recorded
from core.agents.search.agent import SearchAgent
from core.cli.resolve import dataset_of
from core.records import UserError
from core.trainer.constants import write_constants
from core.trainer.reference import reference_trainer

FIRST_SEED = 10_000  # those below are for tuning and for tests
AGENTS = {"search": SearchAgent, "random": Uniform, "random near": Near, "tpe": Tpe}


def main(arguments: Sequence[str] | None = None) -> int:
    """The status: 0, or 2 for a mistake, 130 after Ctrl-C."""
    options = _options(arguments)
    try:
        report, played = compare(options.table, options.campaigns, options.experiments, options.seed, options.budget)
        if options.real:
            report["real"] = checked(played, options.real, options.budget)
    except UserError as error:
        print(f"search_against_random: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("search_against_random: interrupted", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        _show(report)
    return 0


def compare(
    path: Path, count: int, experiments: int, first_seed: int, budget: float
) -> tuple[dict[str, Any], dict[str, list[Played]]]:
    """Figures of all agents and of the surrogate that they were played on, and the campaigns."""
    rows = recorded.read(path)
    preset = presets.load("cpu")
    text, spaces = table.RANGES, table.SPACES
    truth = surrogate.Surrogate(rows, spaces, budget)
    noise, freedom = surrogate.noise_of(rows)
    played: dict[str, list[Played]] = {name: [] for name in AGENTS}
    for seed in range(first_seed, first_seed + count):
        for name, agent in AGENTS.items():
            played[name].append(campaigns.play(agent(seed), truth, noise, text, preset, seed, experiments))
        if (done := seed - first_seed + 1) % 20 == 0:
            print(f"{done} of {count} campaigns", file=sys.stderr, flush=True)
    report = {
        "surrogate": {
            **asdict(surrogate.crossvalidated(rows, spaces, budget)),
            "recorded": len(rows), "noise": noise, "noise_freedom": freedom, "widths": truth.widths,
        },
        "campaigns": count, "experiments": experiments, "first_seed": first_seed,
        "baseline": truth.noise_free({name: tunable.value for name, tunable in spaces.items()}),
        "agents": {name: figures(played["search"], played[name]) for name in AGENTS},
    }  # fmt: skip
    return report, played


def checked(played: dict[str, list[Played]], count: int, budget: float) -> dict[str, list[dict[str, float | None]]]:
    """Real trials of the first campaigns' champions: how good the surrogate is away from recorded trials."""
    preset = record_trials.preset_of(budget)
    text, dataset = reference_trainer(preset), dataset_of(preset)
    found: dict[str, list[dict[str, float | None]]] = {name: [] for name in played}
    for number in range(count):
        for name, campaign in ((name, each[number]) for name, each in played.items()):
            trial = record_trials.measured(write_constants(text, campaign.champion), preset.seeds[0], preset, dataset)
            found[name].append({"predicted": campaign.best[-1], "real": trial.val_bpb})
            print(f"{name}: {campaign.best[-1]:.4f} predicted, {trial.val_bpb} real", file=sys.stderr, flush=True)
    return found


def figures(search: Sequence[Played], other: Sequence[Played]) -> dict[str, float | None]:
    """Of one agent, and of the search against it campaign by campaign."""
    pairs = list(zip(search, other, strict=True))
    passed = [next((n for n, score in enumerate(a.best) if score < b.best[-1]), None) for a, b in pairs]
    return {
        "median": statistics.median(each.best[-1] for each in other),
        "worst": max(each.best[-1] for each in other),
        "best": min(each.best[-1] for each in other),
        "failures": statistics.mean(each.failures for each in other),
        # Shares of campaigns in which the search's champion is the lower one.
        "search_lower": statistics.mean(a.best[-1] < b.best[-1] for a, b in pairs),
        "search_lower_measured": statistics.mean(a.noisy < b.noisy for a, b in pairs),
        "median_lead": statistics.median(b.best[-1] - a.best[-1] for a, b in pairs),
        # Experiments after which the search is below the other's last champion; infinite where it never is.
        "median_passed_after": _finite(statistics.median(float("inf") if n is None else n for n in passed)),
    }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None


def _show(report: dict[str, Any]) -> None:
    fit = report["surrogate"]
    print(
        f"surrogate of {fit['recorded']} trials: left-out error {fit['error']:.4f} bpb, R2 {fit['r2']:.3f} "
        f"(the mean alone {fit['constant_error']:.4f}); of the better half {fit['error_low']:.4f}, "
        f"R2 {fit['r2_low']:.3f}\n"
        f"failures predicted rightly {fit['failures']:.1%} (predicting that none fails: {fit['always_scored']:.1%}); "
        f"noise of a repeat {fit['noise']:.4f} bpb ({fit['noise_freedom']} degrees of freedom)\n"
        f"{report['campaigns']} campaigns of {report['experiments']} experiments each, paired by seed from "
        f"{report['first_seed']}; baseline {report['baseline']:.4f} bpb\n"
    )
    print("              median     best    worst  failed  search is lower  as measured      by  after")
    for name, row in report["agents"].items():
        line = f"{name:12} {row['median']:7.4f} {row['best']:8.4f} {row['worst']:8.4f} {row['failures']:7.1f}"
        if name != "search":
            after = "-" if row["median_passed_after"] is None else f"{row['median_passed_after']:.0f}"
            shares = f"{row['search_lower']:16.1%} {row['search_lower_measured']:12.1%}"
            line += f"{shares} {row['median_lead']:7.4f} {after:>6}"
        print(line)
    for name, trials in report.get("real", {}).items():
        pairs = []
        for one in trials:
            real = "failed" if one["real"] is None else f"{one['real']:.4f}"
            pairs.append(f"{one['predicted']:.4f} predicted, {real}")
        print(f"real champions of {name}: {'; '.join(pairs)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="search_against_random", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--campaigns", type=int, default=200, help="of each agent (200)")
    parser.add_argument("--experiments", type=int, default=30, help="of each campaign, beside its baseline (30)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"of the first campaign ({FIRST_SEED})")
    parser.add_argument("--budget", type=float, default=20, metavar="SECONDS", help="that the table was recorded with")
    parser.add_argument("--table", type=Path, default=recorded.RECORDED, help="of recorded trials")
    parser.add_argument("--real", type=int, default=0, metavar="N", help="real trials of N champions of each agent")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
