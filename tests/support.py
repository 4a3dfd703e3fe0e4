"""What several tests share that is no fixture. Imported as `support`: pytest puts this folder on the path."""

from __future__ import annotations

import backends
from core.records import Preset

PRESET = Preset(
    name="test",
    backend="numpy",
    device="cpu",
    corpus="folder",
    vocabulary=256,
    depth=2,
    sequence_length=32,
    total_batch_size=512,
    device_batch_size=16,
    budget_seconds=1.0,
    startup_seconds=30.0,
    silence_seconds=10.0,
    score_bytes=4000,
    peak_tflops=0.001,
)

# A trainer whose parts a test replaces: `before` and `each` are statements within main().
TRAINER = """
import numpy as np
from core.trial import join

def main():
    trial = join(device_rows=4)
    {before}
    counts = np.ones((trial.facts.vocabulary, trial.facts.vocabulary), np.float32)
    for step, tokens in enumerate(trial.batches({rows}, {length})):
        np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
        {each}
    {after}

def restore(weights, facts):
    table = np.log(weights["counts"] / weights["counts"].sum(1, keepdims=True))
    return lambda tokens: table[tokens]
"""


def trainer_text(
    before: str = "pass",
    each: str = "pass",
    after: str = 'trial.finish({"counts": counts})',
    rows: int = 16,
    length: int = 32,
) -> str:
    return TRAINER.format(before=before, each=each, after=after, rows=rows, length=length)


def reference_trainer(each: str) -> str:
    """The reference trainer of the numpy backend, with a statement at the end of each step."""
    text = backends.trainer_path("numpy").read_text(encoding="utf-8")
    step = "        np.add.at(counts_VV, (past, future), 1.0)\n"
    assert text.count(step) == 1
    return text.replace(step, f"{step}        {each}\n")


BRIEF = "if step == 19: break"  # no score then depends on how fast this machine is, and no second is spent on it
RESTING = '__import__("time").sleep(0.02)'  # as long as the budget, and hardly any of a processor
