"""Run as a process of its own: a campaign with one real trial, in which one process is killed in one phase.

    drive_trial.py ROOT [TARGET ROLE PHASE]

TARGET is supervisor, or train, score, train-reaper, score-reaper; PHASE is what the trainer prints in the process of
that ROLE when it gets there. Without them the campaign goes on from wherever it was left. Trials have a number of
steps as their budget, so that what comes of them repeats to the last bit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import ScriptedAgent, Steps  # noqa: E402

from core.campaign.campaign import Campaign  # noqa: E402
from core.trial.process import Process  # noqa: E402

# Each phase pauses, so that who watches the output finds it there.
TRAINER = """
import time

import numpy as np

from core.trial import join

PAUSE = {pause}
SMOOTHING = {smoothing}


def at(phase):
    print("reached", phase, flush=True)
    time.sleep(PAUSE)


at("import")


class Weights:
    def __init__(self, counts):
        self.counts = counts

    def __array__(self, dtype=None, copy=None):
        at("hand-over")
        return self.counts


def main():
    trial = join(device_rows=16)
    counts = np.full((trial.facts.vocabulary, trial.facts.vocabulary), SMOOTHING, np.float32)
    for _ in trial.warmup(16, 32):
        at("warm-up")
        break
    for step, tokens in enumerate(trial.batches(16, 32)):
        np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
        if step == 2:
            at("training")
    trial.finish({{"counts": Weights(counts)}})


def restore(weights, facts):
    at("restore")
    table = np.log(weights["counts"] / weights["counts"].sum(1, keepdims=True))

    def logits(tokens):
        global PAUSE
        at("scoring")
        PAUSE = 0.0
        return table[tokens]

    return logits
"""
BASELINE = TRAINER.format(pause=0.0, smoothing=50.0)
BETTER = TRAINER.format(pause=0.2, smoothing=0.5)


def watch(target: str, role: str, phase: str) -> None:
    """Kills the target once, when a process of that role has printed the phase."""
    made: list[Process] = []
    begin: Callable[..., None] = Process.__init__

    def recorded(self: Process, *values: Any, **named: Any) -> None:
        begin(self, *values, **named)
        made.append(self)

    Process.__init__ = recorded  # type: ignore[method-assign]

    def look() -> None:
        while not any(one.role == role and f"reached {phase}\n" in one.output() for one in made):
            time.sleep(0.002)
        if target == "supervisor":
            os.kill(os.getpid(), signal.SIGKILL)
        reaper = psutil.Process(next(one for one in made if one.role == target.partition("-")[0])._reaper.pid)
        victims = [reaper] if target.endswith("reaper") else reaper.children()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        watch(*sys.argv[2:])
    with Campaign.open(Path(sys.argv[1]), engine=Steps()) as opened:
        opened.run(ScriptedAgent([BETTER]))
