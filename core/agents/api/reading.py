"""What the reading tools show: a list of experiments, one in full, a trainer with line numbers."""

from __future__ import annotations

from core.agents.api.quoting import Quotes, escaped
from core.agents.base import History
from core.agents.record_text import heading, last_trial, loss
from core.records import Experiment
from core.store import trial_files

CURVE_POINTS = 20
OUTPUT_CHARACTERS, OUTPUT_LINES = 4_000, 60
DIFF_CHARACTERS, DIFF_LINES = 16_000, 400
TRAINER_CHARACTERS, TRAINER_LINES = 100_000, 2_000


def listed(
    history: History, first: int, last: int, verdict: str | None, by_score: bool, count: int
) -> tuple[list[Experiment], int]:
    """At most `count` experiments of first <= n <= last and of that verdict, and how many there are."""
    span = history.recent(len(history) - first)[: max(0, last - first + 1)] if first < len(history) else []
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
    """One experiment: the verdict in our words, and what others wrote in data blocks."""
    experiment = history.experiment(number)
    parts = [heading(experiment)]
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
            shown = [f"step {point['step']:.0f} {loss(point)}" for point in trial_files.thinned(curve, CURVE_POINTS)]
            parts.append("Loss in nats a token, as the trainer reported it: " + ", ".join(shown))
        parts.append(printed_end(quotes, printed) if printed.strip() else "It printed nothing.")
    return "\n".join(parts)


def printed_end(quotes: Quotes, text: str) -> str:
    """The end of what a trial printed."""
    return quotes("the end of what it printed", text, characters=OUTPUT_CHARACTERS, lines=OUTPUT_LINES, keep="end")
