"""Records real trials of a preset as a table: the search begins with it, and a surrogate compares searches on it.

    python benchmarks/record_trials.py --trials 140
    python benchmarks/record_trials.py --preset demo --budget 8 --trials 60 --out demo_trials.csv

About half of the points are drawn at random over the `# tune:` ranges, half lie around the best one found so far.
Every trial is the house's own, sandbox and audit included. Ctrl-C ends it; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import presets
from benchmarks.search import campaigns, space, table
from core.agents.search import recorded
from core.agents.search.agent import SearchAgent
from core.agents.search.recorded import Row
from core.cli.resolve import dataset_of
from core.data import Dataset
from core.measure.lone_trial import lone_trial
from core.records import Budget, Constant, Preset, Trial, UserError
from core.system import hardware
from core.trainer.constants import read_constants, read_tunables, write_constants
from core.trainer.reference import reference_trainer

# Of fourteen rows. `feasible` is uniform among the points that should make FEWEST_STEPS steps: of the uniform ones most
# are too large for the budget, and tell of nothing but their failure.
KINDS = (
    "repeat near search feasible search feasible near uniform search feasible search feasible near uniform"
).split()
FEWEST_STEPS = 4
FLOPS = 5e10  # of a trainer on one core, for that guess alone
# Whose trainer a `repeat` runs again, and with which seed: what the noise is measured on.
REPEATS = (
    ("baseline", 1), ("baseline", 2), ("baseline", 1), ("baseline", 3), ("champion", 1), ("champion", 2),
    ("baseline", 4), ("champion", 3), ("baseline", 1), ("champion", 1),
)  # fmt: skip
# One core does half the work: less text to score, and those that are far too large are let go early.
SETTINGS = {"score_bytes": "100000", "startup_seconds": "45", "silence_seconds": "45"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The status: 0, or 2 for a mistake, 130 after Ctrl-C."""
    options = _options(arguments)
    return status_of(
        "record_trials",
        lambda: record(preset_of(options.budget, options.preset), options.trials, options.seed, options.out),
    )


def status_of(program: str, act: Callable[[], None]) -> int:
    """Acts. The status: 0, or 2 for a mistake, 130 after Ctrl-C; these two with a line of the program's name."""
    try:
        act()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def record(preset: Preset, count: int, seed: int, path: Path) -> None:
    """Appends to the table in `path` until it has `count` rows."""
    text = reference_trainer(preset)
    fixed = read_constants(text)
    dataset = dataset_of(preset)
    rows = recorded.read(path) if path.exists() else []
    while len(rows) < count:
        number = len(rows)
        kind = KINDS[number % len(KINDS)]
        values, trial_seed = _point(kind, number, seed, text, preset, rows)
        values = {name: values.get(name, fixed[name]) for name in table.SPACES}  # those that [tune] fixes, too
        trial = measured(write_constants(text, values), trial_seed, preset, dataset)
        if not rows:
            table.start(path, _facts(preset, seed, trial), table.SPACES)
        load = trial.conditions.get("other_load")
        row = Row(
            number=number,
            kind=kind,
            seed=trial_seed,
            verdict=trial.verdict,
            val_bpb=None if trial.val_bpb is None else round(trial.val_bpb, 6),
            steps=trial.steps,
            train_seconds=round(trial.train_seconds, 2),
            wall_seconds=round(trial.wall_seconds, 1),
            parameters=trial.parameters,
            other_load=round(load, 3) if isinstance(load, float) else None,
            constants=values,
            reason=trial.reason.splitlines()[0][:120] if trial.reason else "",
        )
        table.append(path, row)
        rows.append(row)
        score = trial.verdict if trial.val_bpb is None else f"{trial.val_bpb:.4f}"
        print(
            f"{number:4} {kind:9} {score:8} {trial.steps:4} steps {trial.wall_seconds:5.1f} s  {row.reason}", flush=True
        )


def measured(text: str, seed: int, preset: Preset, dataset: Dataset) -> Trial:
    """The record of one real trial of the trainer."""
    return lone_trial(text, preset, dataset, budget=Budget(seconds=preset.budget_seconds), seed=seed)[0]


def preset_of(budget: float, name: str = "cpu") -> Preset:
    """What every row was recorded with."""
    return presets.load(name, SETTINGS | {"budget_seconds": str(budget)})


def _point(
    kind: str, number: int, seed: int, text: str, preset: Preset, rows: Sequence[Row]
) -> tuple[dict[str, Constant], int]:
    """The constants of the next row, and the seed that it trains with."""
    rng = np.random.default_rng([seed, number])
    spaces = read_tunables(text)
    first = preset.seeds[0]
    played = [row for row in rows if row.seed == first]
    best = min((row for row in played if row.val_bpb is not None), key=lambda row: row.val_bpb or 0, default=None)
    baseline = {name: tunable.value for name, tunable in spaces.items()}
    champion = baseline if best is None else {name: best.constants[name] for name in spaces}
    if kind == "repeat":
        whose, trial_seed = REPEATS[number // len(KINDS) % len(REPEATS)]
        return (baseline if whose == "baseline" else champion), trial_seed
    if kind == "search":
        proposal = SearchAgent(seed=seed).propose(campaigns.replayed(text, played, preset))
        if proposal is None:
            raise UserError("the search found nothing new")
        constants = read_constants(proposal.text)
        return {name: constants[name] for name in spaces}, first
    if kind == "near":
        return space.draw_some(rng, spaces, champion), first
    values = space.draw_all(rng, spaces)
    while kind == "feasible" and _steps(read_constants(text) | values, preset) < FEWEST_STEPS:
        values = space.draw_all(rng, spaces)
    return values, first


def _steps(values: Mapping[str, Constant], preset: Preset) -> float:
    """Roughly, from the products of the blocks, the attention and the output alone."""
    depth, ratio, head, length, batch = (
        int(str(values[name])) for name in ("DEPTH", "ASPECT_RATIO", "HEAD_DIM", "SEQUENCE_LENGTH", "TOTAL_BATCH_SIZE")
    )
    width = -(-depth * ratio // head) * head
    flops = 6 * (12 * depth * width**2 + preset.vocabulary * width) + 12 * depth * width * length
    return preset.budget_seconds * FLOPS / (flops * max(batch, preset.device_batch_size * length))


def _facts(preset: Preset, seed: int, trial: Trial) -> list[str]:
    budget = f"{preset.budget_seconds:g} s each, score_bytes {preset.score_bytes}"
    kinds = f"startup_seconds {preset.startup_seconds:g}, points by seed {seed}, sandbox {trial.sandbox}"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(trial.versions.items()))
    return [
        f"Real trials of preset {preset.name}, recorded by benchmarks/record_trials.py: one row a trial, oldest first.",
        f"{budget}, {kinds}, yardstick {trial.yardstick[:12]}, from {trial.started[:10]}",
        f"{hardware.processor()}, {hardware.cores()} core(s), {versions}",
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="record_trials", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=140, help="rows that the table shall have (140)")
    parser.add_argument("--preset", default="cpu", metavar="NAME", help="of the trials (cpu)")
    parser.add_argument("--budget", type=float, default=20, metavar="SECONDS", help="training time of each (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the points (0)")
    parser.add_argument("--out", type=Path, default=recorded.RECORDED, help="the table; goes on where it ends")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
