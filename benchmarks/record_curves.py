"""Records repeats of two trainers and trials of proposals, with loss curves: what the judge's simulator rests on.

    python benchmarks/record_curves.py

`baseline` is the cpu preset's trainer, `champion` the best recorded one (core/agents/search/cpu_trials.csv). Each runs
with ten seeds, twice; half of the proposals lie around the one, half around the other, with the first seed. A trial
beside which others took more of the processors than `--load` is thrown away. Ctrl-C ends it; the same command goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record_trials import preset_of, status_of
from benchmarks.search import space
from core.agents.search import recorded
from core.cli.resolve import dataset_of
from core.measure.lone_trial import lone_trial
from core.records import Budget, Constant
from core.store import trial_files
from core.trainer.constants import read_constants, read_tunables, write_constants
from core.trainer.reference import reference_trainer

CURVES = Path(__file__).resolve().parent / "data" / "cpu_curves.jsonl.gz"
SEEDS, REPEATS, PROPOSALS = 10, 2, 40
FIELDS = ("step", "seconds", "progress", "loss")  # of a point of a curve


@dataclass(frozen=True)
class Planned:
    """A trial to record. `around` names the trainer that a proposal changes, or the repeated one itself."""

    kind: str  # repeat or proposal
    around: str  # baseline or champion
    seed: int
    constants: Mapping[str, Constant]


def read(path: Path = CURVES) -> list[dict[str, Any]]:
    """The recorded trials, in the order they ran; `curve` is a list of points (FIELDS)."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main(arguments: Sequence[str] | None = None) -> int:
    """The status: 0, or 2 for a mistake, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="record_curves", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=20, metavar="SECONDS", help="training time of each (20)")
    parser.add_argument("--load", type=float, default=0.1, metavar="SHARE", help="of the processors for others (0.1)")
    parser.add_argument("--out", type=Path, default=CURVES, help="the table; goes on where it ends")
    options = parser.parse_args(arguments)
    return status_of("record_curves", lambda: record(options.budget, options.out, options.load))


def record(budget: float, path: Path, most_load: float) -> None:
    """Appends what is missing in the table at `path`, without trials beside which others took more than that share."""
    preset = preset_of(budget)
    text = reference_trainer(preset)
    dataset = dataset_of(preset)
    planned = list(plan(text))
    for number, one in enumerate(planned[len(read(path)) if path.exists() else 0 :]):
        while True:
            with tempfile.TemporaryDirectory() as folder:
                into = Path(folder) / "trial"
                trial, _ = lone_trial(
                    write_constants(text, one.constants), preset, dataset,
                    budget=Budget(seconds=budget), seed=one.seed, into=into,
                )  # fmt: skip
                points = trial_files.points(into)
            load = trial.conditions.get("other_load")
            if not isinstance(load, float) or load <= most_load:
                break
            print(f"{number:3} beside other work ({load:.0%}): again", flush=True)
        row = {
            "kind": one.kind, "around": one.around, "seed": one.seed, "verdict": trial.verdict, "reason": trial.reason,
            "val_bpb": trial.val_bpb, "steps": trial.steps, "tokens": trial.tokens, "rows": trial.rows,
            "sequence_length": trial.sequence_length, "train_seconds": trial.train_seconds,
            "tokens_per_second": trial.tokens_per_second, "other_load": load, "constants": dict(one.constants),
            "curve": [[point[name] for name in FIELDS] for point in points],
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "at", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
        score = trial.verdict if trial.val_bpb is None else f"{trial.val_bpb:.4f}"
        print(f"{number:3} {one.kind:8} {one.around:8} seed {one.seed:2} {score:8} {trial.steps:4} steps", flush=True)


def plan(text: str) -> Iterator[Planned]:
    """All trials, repeats and proposals in turn, so that a table that was cut short has some of each."""
    spaces = read_tunables(text)
    best = min((row for row in recorded.read() if row.val_bpb is not None), key=lambda row: row.val_bpb or 0.0)
    fixed = read_constants(text)
    trainers = {
        "baseline": {name: fixed[name] for name in best.constants},
        "champion": dict(best.constants),
    }
    rng = np.random.default_rng(0)
    repeats = [
        Planned("repeat", around, seed, trainers[around])
        for _ in range(REPEATS)
        for seed in range(1, SEEDS + 1)
        for around in trainers
    ]
    proposals = []
    for number in range(PROPOSALS):
        around = ("baseline", "champion")[number % 2]
        values = trainers[around] | space.draw_some(rng, spaces, trainers[around])
        proposals.append(Planned("proposal", around, 1, values))
    for repeat, proposal in zip(repeats, proposals, strict=True):
        yield repeat
        yield proposal


if __name__ == "__main__":
    raise SystemExit(main())
