"""Earlier experiments as text for a model: a line, a list, one in full. Bounded, whatever was recorded."""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Sequence
from pathlib import Path

from core.agents.api.quoting import Quotes, escaped
from core.agents.base import History
from core.records import Experiment
from core.store import trial_files
from core.store.trial_files import Point
from core.system.text import one_line

CURVE_POINTS = 20
OUTPUT_CHARACTERS, OUTPUT_LINES = 4_000, 60
DIFF_CHARACTERS, DIFF_LINES = 16_000, 400
TRAINER_CHARACTERS, TRAINER_LINES = 100_000, 2_000
CURVE_CHARACTERS = 2**22  # that are read
_ERRORS = frozenset(name for name, kind in vars(builtins).items() if isinstance(kind, type) and name.endswith("Error"))
_FIRST_WORD = re.compile(r"\w+")


def line(experiment: Experiment, characters: int = 220) -> str:
    """Number, verdict, score, gain, agent and hypothesis. Of a failure's reason no word that the trial chose."""
    told = f"#{experiment.number} {experiment.verdict}"
    if experiment.val_bpb is not None:
        told += f" {experiment.val_bpb:.4f}"
    if experiment.gain is not None:
        told += f" gain {experiment.gain:+.4f}"
    if kind := error_kind(experiment):
        told += f" ({kind})"
    return f"{told} [{one_line(experiment.agent, 40)}] {one_line(experiment.hypothesis, characters)}"


def error_kind(experiment: Experiment) -> str:
    """The built-in exception that a failure's reason starts with; empty for everything else."""
    first = _FIRST_WORD.match(experiment.reason)
    failed = experiment.verdict in ("crash", "invalid")
    return first[0] if failed and first is not None and first[0] in _ERRORS else ""


def listed(
    history: History, first: int, last: int, verdict: str | None, by_score: bool, count: int
) -> tuple[list[Experiment], int]:
    """The experiments first <= n <= last of that verdict, so many of them, and how many there are."""
    newest = len(history) - 1
    last = min(last, newest)
    if first > last:
        return [], 0
    span = history.recent(newest - first + 1)[: last - first + 1]
    found = [one for one in span if verdict in (None, one.verdict)]
    if by_score:
        found = sorted(
            (one for one in found if one.val_bpb is not None), key=lambda one: (one.val_bpb or 0.0, one.number)
        )
    else:
        found.reverse()
    return found[:count], len(found)


def trainer(quotes: Quotes, what: str, text: str, first: int, last: int | None) -> str:
    """Numbered lines of a trainer, and how many there are."""
    lines = escaped(text).splitlines()
    last = min(len(lines), last or len(lines), first + TRAINER_LINES - 1)
    width = len(str(last))
    shown = "\n".join(f"{number:>{width}}| {lines[number - 1]}" for number in range(first, last + 1))
    rest = f"; go on from line {last + 1}" if last < len(lines) else ""
    whole = quotes(what, shown, characters=TRAINER_CHARACTERS, lines=TRAINER_LINES)
    return f"{what}, lines {first} to {last} of {len(lines)}{rest}\n{whole}"


def full(history: History, quotes: Quotes, number: int) -> str:
    """One experiment: the verdict in our words, and what was written by others in marked blocks."""
    experiment = history.experiment(number)
    parts = [f"Experiment {number}: {experiment.verdict}{_numbers(experiment)}"]
    parts.append(quotes("its hypothesis", experiment.hypothesis, characters=2_000, lines=20))
    if experiment.reason:
        parts.append(quotes("why it got this verdict", experiment.reason, characters=1_200, lines=12))
    if number == 0:
        parts.append("It is the baseline: it changes nothing.")
    else:
        changed = escaped(history.diff(number))
        parts.append(quotes("its diff", changed, characters=DIFF_CHARACTERS, lines=DIFF_LINES))
    if (left := last_trial(history.folder(number))) is not None:
        curve, printed = left
        if curve:
            told = _curve(trial_files.thinned(curve, CURVE_POINTS))
            parts.append("Loss in nats a token, as the trainer reported it: " + told)
        parts.append(
            quotes("the end of what it printed", printed, characters=OUTPUT_CHARACTERS, lines=OUTPUT_LINES, keep="end")
            if printed.strip()
            else "It printed nothing."
        )
    return "\n".join(parts)


def last_trial(folder: Path) -> tuple[list[Point], str] | None:
    """The curve of an experiment's last trial and what it printed; None if none was left that can be read."""
    try:
        if trials := trial_files.trials(folder):
            return trial_files.points(trials[-1], CURVE_CHARACTERS), trial_files.printed(trials[-1])
    except OSError:
        pass
    return None


def missing(history: History, number: int) -> str:
    """Empty if there is such an experiment, else what there is."""
    return "" if 0 <= number < len(history) else f"there is no experiment {number}; there are 0 to {len(history) - 1}"


def _numbers(experiment: Experiment) -> str:
    told = "" if experiment.val_bpb is None else f", val_bpb {experiment.val_bpb:.4f}"
    if experiment.gain is not None:
        told += f", gain {experiment.gain:+.4f} over the champion of its time"
    if experiment.spread is not None:
        told += f" (spread of the baseline's seeds {experiment.spread:.4f})"
    if experiment.trials:
        trial = experiment.trials[-1]
        told += f"; {trial.steps} steps, {trial.tokens} tokens"
        if trial.parameters is not None:
            told += f", {trial.parameters} parameters"
        if trial.peak_memory_mb is not None:
            told += f", {trial.peak_memory_mb:.0f} MB at its peak"
    return told


def _curve(curve: Sequence[Point]) -> str:
    return ", ".join(f"step {point['step']:.0f} {_loss(point['loss'])}" for point in curve)


def _loss(loss: float | None) -> str:
    return f"{loss:.3f}" if isinstance(loss, (int, float)) and math.isfinite(loss) else "no number"
