"""Experiments for tests of the views. Imported as `view_records`: pytest puts this folder on the path."""

import random
from typing import Any

from campaigns import a_trial

from core.records import Experiment, Trial, Verdict

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


NOISE = 0.006  # of one trial, in a campaign of beliefs


def with_beliefs(length: int, seed: int = 0, start: float = 2.1) -> list[Experiment]:
    """A campaign whose scores are beliefs: of three seeds for the baseline, of one to three trials for the others.

    The champion's mean moves a little, and its deviation shrinks, with everything that is compared with it. Some trials
    were disturbed, some experiments stopped.
    """
    draw = random.Random(seed)

    def trials(truth: float, count: int) -> tuple[Trial, ...]:
        scored = [a_trial(val_bpb=truth + draw.gauss(0, NOISE), seed=1 + place) for place in range(count)]
        if draw.random() < 0.1:
            slow = a_trial(val_bpb=truth + 0.05, seed=1, disturbed="other processes took 45% of the device")
            scored.insert(0, slow)
        return tuple(scored)

    mean, deviation = start, NOISE / 3**0.5
    runs = tuple(a_trial(val_bpb=start + shift, seed=1 + place) for place, shift in enumerate((-0.005, 0.0, 0.006)))
    found = [an_experiment(0, "keep", val_bpb=mean, deviation=deviation, hypothesis="baseline", trials=runs, nodes=900)]
    best, parent = start, found[0].commit
    for number in range(1, length):
        against = {"champion_bpb": mean, "champion_deviation": deviation, "parent": parent, "spread": None}
        kind = draw.random()
        if kind < 0.08:
            found.append(an_experiment(number, "crash", reason="the loss is nan", **against))
        elif kind < 0.25:
            reason = "at 34 % of its budget it was 0.0912 behind"
            slow = a_trial(val_bpb=None, verdict="stopped", reason=reason, stop_progress=0.34)
            found.append(an_experiment(number, "stopped", reason=reason, trials=(slow,), **against))
        else:
            truth = best + (draw.gauss(0.008, 0.02) if kind < 0.95 else 3.0)
            kept, count = truth < best - 0.002, draw.choice((1, 2, 3))
            own = {"val_bpb": truth, "deviation": NOISE / count**0.5, "probability": 0.93 if kept else 0.08}
            effect = {"effect": mean - truth + 0.001, "effect_error": NOISE / count**0.5}
            ran = trials(truth, count)
            found.append(an_experiment(number, "keep" if kept else "discard", trials=ran, **against, **own, **effect))
            if kept:
                best, mean, deviation, parent = truth, truth, NOISE / count**0.5, found[-1].commit
        mean, deviation = mean + draw.gauss(0, 0.0003), max(deviation * 0.97, 0.001)
    return found
