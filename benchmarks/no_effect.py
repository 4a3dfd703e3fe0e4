"""A campaign of changes that do nothing: real trials of trainers whose variables were renamed. How many are kept?

python -m benchmarks.no_effect
python -m benchmarks.no_effect --noise 0.003 --seed 1
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import presets
from core.agents.base import Agent, History
from core.campaign.campaign import Campaign
from core.events import Event, Judged, Notice, OnProgress
from core.records import Proposal, Trial
from core.trial.engine import Local
from core.trial.spec import TrialSpec

RENAMED = ("counts_VV", "unigram_V", "past", "future", "tokens", "rows", "prior", "table_VV")


class Renamer(Agent):
    """Gives the baseline's variables new names, others each time."""

    name = "renamer"

    def propose(self, history: History) -> Proposal | None:
        number = len(history)
        name = RENAMED[number % len(RENAMED)]
        text = re.sub(rf"\b{name}\b", f"{name}_{number}", history.text(0))
        return Proposal(text=text, hypothesis=f"{name} is called {name}_{number}", agent=self.name)


class NoisyLocal(Local):
    """Real trials, whose scores get noise of that deviation in bits per byte, another one each time."""

    def __init__(self, noise: float, seed: int) -> None:
        super().__init__()
        self._noise, self._seed, self._count = noise, seed, 0

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = lambda progress: None) -> Trial:
        record = super().run_trial(spec, on_progress)
        if record.val_bpb is None or not self._noise:
            return record
        self._count += 1
        text = int.from_bytes(hashlib.sha256(spec.trainer.encode()).digest()[:4], "big")
        rng = np.random.default_rng([self._seed, text, spec.seed, self._count])
        return dataclasses.replace(record, val_bpb=record.val_bpb + self._noise * float(rng.standard_normal()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="no_effect", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.0, metavar="BPB", help="deviation that is added to each score")
    parser.add_argument("--seed", type=int, default=0, help="of that noise")
    options = parser.parse_args(arguments)

    def tell(event: Event) -> None:
        if isinstance(event, Judged):
            one = event.experiment
            print(f"{one.number:4} {one.verdict:8} {len(one.trials)} trials  {one.reason}", flush=True)
        elif isinstance(event, Notice):
            print(f"     {event.text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        engine = NoisyLocal(options.noise, options.seed)
        with Campaign.create(Path(folder) / "campaign", presets.load("numpy"), engine=engine) as campaign:
            campaign.run(Renamer(), experiments=options.experiments, on_event=tell)
            found = campaign.experiments(1)
    kept = sum(one.verdict == "keep" for one in found)
    trials = sum(len(one.trials) for one in found)
    print(f"{kept} of {len(found)} changes that do nothing were kept, by {trials} trials of them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
