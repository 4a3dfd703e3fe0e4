"""Recorded experiments as bounded text for models and coding agents: a line, a heading, the last trial."""

from __future__ import annotations

import builtins
import math
import re
from pathlib import Path
from typing import Literal

from core.records import Experiment
from core.store import trial_files
from core.store.trial_files import Point
from core.system.text import bpb, chance, interval, one_line

LONGEST_LINE = 400  # characters
CURVE_CHARACTERS = 2**22  # that are read
_ERRORS = frozenset(name for name, kind in vars(builtins).items() if isinstance(kind, type) and name.endswith("Error"))
_FIRST_WORD = re.compile(r"\w+")


def line(experiment: Experiment, characters: int = 220) -> str:
    """Number, verdict, belief, gain, what was measured, agent and hypothesis.

    Nothing of a failure's reason that the trial could choose.
    """
    words = [f"#{experiment.number} {experiment.verdict}"]
    if experiment.val_bpb is not None:
        words.append(bpb(experiment.val_bpb, experiment.deviation))
    if experiment.gain is not None:
        words.append(f"gain {experiment.gain:+.4f}")
    words += [f"({evidence})"] if (evidence := measured(experiment)) else []
    if kind := error_kind(experiment):
        words.append(f"({kind})")
    return " ".join([*words, f"[{one_line(experiment.agent, 40)}]", one_line(experiment.hypothesis, characters)])


def error_kind(experiment: Experiment) -> str:
    """The built-in exception that a failure's reason starts with; empty for everything else."""
    first = _FIRST_WORD.match(experiment.reason)
    failed = experiment.verdict in ("crash", "invalid")
    return first[0] if failed and first is not None and first[0] in _ERRORS else ""


def score(experiment: Experiment) -> str:
    """Number, verdict, belief, gain and what was measured: nothing that an agent or a trial wrote."""
    text = f"experiment {experiment.number}: {experiment.verdict}"
    if experiment.val_bpb is not None:
        text += f", val_bpb {bpb(experiment.val_bpb, experiment.deviation)}"
    if experiment.gain is not None:
        text += f", gain {experiment.gain:+.4f} over the champion of its time"
    return f"{text} ({evidence})" if (evidence := measured(experiment)) else text


def measured(experiment: Experiment) -> str:
    """`better with 97 %, measured +0.0080 +- 0.0118`: how likely it is truly better, and the raw difference behind it.

    Empty where the policy had no belief, and for the baseline.
    """
    parts = []
    if experiment.probability is not None:
        parts.append(f"better with {chance(experiment.probability)}")
    if experiment.effect is not None:
        error = "" if experiment.effect_error is None else f" {interval(experiment.effect_error)}"
        parts.append(f"measured {experiment.effect:+.4f}{error}")
    return ", ".join(parts)


def heading(experiment: Experiment) -> str:
    """`score`, the spread of the baseline's seeds, and the size of the last trial if the trials were read."""
    text = score(experiment).capitalize()
    if experiment.spread is not None:
        text += f" (spread of the baseline's seeds {experiment.spread:.4f})"
    if experiment.trials:
        trial = experiment.trials[-1]
        text += f"; {trial.steps} steps, {trial.tokens} tokens"
        text += "" if trial.parameters is None else f", {trial.parameters} parameters"
        text += "" if trial.peak_memory_mb is None else f", {trial.peak_memory_mb:.0f} MB at its peak"
    return text


def loss(point: Point) -> str:
    """A curve's loss: a diverged one is recorded as null."""
    value: float | None = point["loss"]
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "no number"


def last_trial(folder: Path) -> tuple[list[Point], str] | None:
    """The curve of an experiment's last trial and what it printed; None if its files are gone or can't be read."""
    try:
        if trials := trial_files.trials(folder):
            return trial_files.points(trials[-1], CURVE_CHARACTERS), trial_files.printed(trials[-1])
    except OSError:
        pass
    return None


def bounded(text: str, characters: int, lines: int, keep: Literal["start", "end"] = "start") -> str:
    """At most so many lines and characters, long lines cut, and a line that says what was left out."""
    all_lines = [line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + " ..." for line in text.splitlines()]
    order = all_lines[::-1] if keep == "end" else all_lines
    kept: list[str] = []
    room = characters
    for line in order[:lines]:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    left_out = len(all_lines) - len(kept)
    if keep == "end":
        kept.reverse()
    if left_out:
        kept.insert(0 if keep == "end" else len(kept), f"[{left_out} lines left out]")
    return "\n".join(kept)
