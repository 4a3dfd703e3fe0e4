"""Experiments for tests of the views. Imported as `view_records`: pytest puts this folder on the path."""

import random
from typing import Any

from campaigns import a_trial

from core.records import Experiment, Verdict

SPREAD = 0.008


def an_experiment(number: int, verdict: Verdict, **values: Any) -> Experiment:
    """An experiment with these fields, the others plausible; its one trial has the experiment's score."""
    bpb = values.get("val_bpb")
    base: dict[str, Any] = {
        "number": number,
        "commit": f"{number:040x}",
        "parent": "0" * 40,
        "hypothesis": f"idea {number}",
        "agent": "test",
        "verdict": verdict,
        "reason": "",
        "val_bpb": None,
        "champion_bpb": None,
        "spread": SPREAD,
        "fingerprint": "f" * 64,
        "wall_seconds": 25.0,
        "train_seconds": 20.0,
        "ended": "2026-01-01T00:00:00+00:00",
        "trials": (a_trial(val_bpb=bpb, verdict="scored" if bpb is not None else verdict),),
    }
    return Experiment(**{**base, **values})


def a_campaign(length: int, seed: int = 0, start: float = 2.1) -> list[Experiment]:
    """A baseline with two seeds and `length - 1` experiments: some kept, most discarded, a few crashed or diverged."""
    draw = random.Random(seed)
    trials = (a_trial(val_bpb=start, seed=1), a_trial(val_bpb=start + SPREAD, seed=2))
    found = [an_experiment(0, "keep", val_bpb=start, hypothesis="baseline", trials=trials)]
    best = start
    for number in range(1, length):
        kind = draw.random()
        if kind < 0.1:
            found.append(an_experiment(number, "crash", champion_bpb=best, reason="the loss is nan"))
            continue
        bpb = best + (draw.gauss(0.012, 0.02) if kind < 0.92 else 3.0)
        found.append(an_experiment(number, "keep" if bpb < best else "discard", val_bpb=bpb, champion_bpb=best))
        best = min(best, bpb)
    return found
