"""Whether a campaign whose first trials ran beside other work ends with the verdicts of one that ran alone.

    python -m benchmarks.disturbed_campaign --trials 6

Both have the same 12 proposals, three of them good: real trials of a preset in a folder that is removed, on a machine
that must be quiet otherwise. Exit status 1 if the verdicts differ or a disturbed trial is not named.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import presets
from benchmarks.busy_machine import beside
from core.agents.base import Agent, History
from core.campaign.campaign import Campaign
from core.events import Event, Judged, Notice, OnProgress
from core.records import Constant, Proposal, Trial
from core.trainer.constants import write_constants
from core.trial.engine import Local
from core.trial.spec import TrialSpec

# Changes of the champion in the demo preset. Good ones are those of its recorded campaigns.
PROPOSALS: tuple[Mapping[str, Constant], ...] = (
    {"MATRIX_LR": 0.004},
    {"UNEMBEDDING_LR": 0.0004},
    {"TOTAL_BATCH_SIZE": 3340},  # good: more steps
    {"EMBEDDING_LR": 0.002},
    {"MATRIX_LR": 0.002},
    {"DEPTH": 2},  # good: faster steps
    {"TOTAL_BATCH_SIZE": 16384},
    {"DEPTH": 6},
    {"UNEMBEDDING_LR": 0.0002},
    {"HEAD_DIM": 64, "MATRIX_LR": 0.12},  # good
    {"MATRIX_LR": 0.003},
    {"TOTAL_BATCH_SIZE": 12000},
)


class ListedChanges(Agent):
    """Proposes changes of constants in turn, each of the champion of that time."""

    name = "list"

    def __init__(self, changes: Sequence[Mapping[str, Constant]]) -> None:
        self._changes = changes

    def propose(self, history: History) -> Proposal | None:
        place = len(history) - 1
        if place >= len(self._changes):
            return None
        changes = self._changes[place]
        text = write_constants(history.champion_text, changes)
        return Proposal(
            text=text, hypothesis=", ".join(f"{name} {to}" for name, to in changes.items()), agent=self.name
        )


class BusyAtFirst(Local):
    """Trials of this machine, the first of them beside processes that do nothing but compute."""

    def __init__(self, trials: int, processes: int) -> None:
        super().__init__()
        self.left, self._processes = trials, processes

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = lambda progress: None) -> Trial:
        busy = beside(self._processes) if self.left > 0 else contextlib.nullcontext()
        self.left -= 1
        with busy:
            return super().run_trial(spec, on_progress)


def run(root: Path, options: argparse.Namespace, trials: int) -> tuple[list[str], int]:
    """The verdicts, and how many trials are named as disturbed."""

    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            print(f"  {event.text}", flush=True)
        elif isinstance(event, Judged):
            one = event.experiment
            print(f"  {one.number:2} {one.verdict:8} {one.reason}", flush=True)

    preset = presets.load(options.preset, dict(pair.split("=", 1) for pair in options.set))
    with Campaign.create(root, preset, engine=BusyAtFirst(trials, options.processes)) as campaign:
        campaign.run(ListedChanges(PROPOSALS[: options.proposals]), on_event=tell)
        disturbed = campaign.ledger.disturbed()
        for one in disturbed:
            print(f"  disturbed: experiment {one.experiment}, {one.role}, seed {one.seed}: {one.reason}")
        return [experiment.verdict for experiment in campaign.experiments()], len(disturbed)


def main() -> int:
    """Prints both campaigns; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--trials", type=int, default=6, help="that run beside other processes")
    parser.add_argument("--processes", type=int, default=1, help="how many those are")
    parser.add_argument("--proposals", type=int, default=len(PROPOSALS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `autoresearch init --set`")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for trials in (0, options.trials):
            print(f"the first {trials} trials beside {options.processes}:" if trials else "alone:", flush=True)
            found[trials] = run(Path(folder) / str(trials), options, trials)
    (alone, _), (disturbed, named) = found[0], found[options.trials]
    print(f"verdicts: {'the same' if alone == disturbed else 'they differ'}; {named} disturbed trials are named")
    return 0 if alone == disturbed and named >= options.trials else 1


if __name__ == "__main__":
    sys.exit(main())
