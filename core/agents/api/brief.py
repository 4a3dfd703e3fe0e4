"""A conversation's first message: program, state of the campaign, what was tried. Bounded, however long the history."""

from __future__ import annotations

import json
import typing
from collections.abc import Sequence

from core.agents import plateau
from core.agents.api.quoting import Quotes
from core.agents.base import History
from core.agents.llm.base import Block
from core.agents.record_text import line
from core.events import Repeat
from core.records import Experiment, Verdict
from core.system.text import bpb, one_line

RECENT, BEST = 15, 10  # experiments that are listed
LONGEST_PROGRAM = 40_000  # characters
_LESSONS = 60
_REPEATS = 5


def standing(history: History) -> Block:
    """What is equal in all proposals, so that servers can cache it: program, fixed constants, preset."""
    program, preset = history.program, history.preset
    prose = program.prose.strip() or "(It is empty: lower val_bpb.)"
    if len(prose) > LONGEST_PROGRAM:
        prose = prose[:LONGEST_PROGRAM] + "\n[the rest is left out here: read_program shows all of it]"
    fixed = ", ".join(program.fixed) or "none"
    held = "; ".join(program.limits.described())
    numbers = {
        "backend": preset.backend,
        "device": preset.device,
        "training seconds of a trial": preset.budget_seconds,
        "start-up seconds allowed": preset.startup_seconds,
        "corpus": preset.corpus.partition(":")[0],
        "vocabulary": preset.vocabulary,
        "depth, sequence length, tokens a step, rows at once at the start": [
            preset.depth,
            preset.sequence_length,
            preset.total_batch_size,
            preset.device_batch_size,
        ],
    }
    listed = "\n".join(f"- {name}: {json.dumps(value)}" for name, value in numbers.items())
    return _text_block(
        f"# program.md\n\n{prose}\n\n# This campaign\n\n- constants that nobody may change: {fixed}\n"
        f"- limits and prices of a verdict: {held or 'none'}\n{listed}"
    )


def situation(history: History, quotes: Quotes, lessons: Sequence[str], repeats: Sequence[Repeat], name: str) -> Block:
    """What differs from proposal to proposal: champion, experiments, lessons, repeats, plateau or near misses."""
    champion, counts = history.champion, history.verdicts()
    score = bpb(champion.val_bpb, champion.deviation)
    recent = history.recent(RECENT)
    best = history.best(BEST)
    spread = "unknown" if champion.spread is None else f"{champion.spread:.4f}"
    total = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in typing.get_args(Verdict))
    parts = [
        f"The mark of this conversation's data blocks is {quotes.mark}.",
        (
            f"# Where it stands\n\nYour proposal becomes experiment {len(history)}. The champion is experiment "
            f"{champion.number} with val_bpb {score}; the spread of the baseline's seeds is {spread}. "
            f"Of experiments 0 to {len(history) - 1}: {total} (0 is the baseline)."
        ),
    ]
    if (own := next((one.number for one in reversed(recent) if one.agent == name), None)) is not None:
        later = f", and experiments {own + 1} to {len(history) - 1} came after it" if own + 1 < len(history) else ""
        parts.append(f"Your last proposal was experiment {own}{later}: the verdicts are below.")
    parts.append(_block(quotes, f"The last {len(recent)} experiments", recent))
    if len(history) > len(recent):
        parts.append(
            _block(quotes, f"The {len(best)} lowest believed scores", best)
            + f"\n\n{len(history) - len(recent)} older experiments are not listed: list_experiments and "
            "read_experiment show them."
        )
    if lessons:
        shown = "\n".join(lessons[-_LESSONS:])
        parts.append("# Lessons\n\n" + quotes("notes from earlier proposals", shown, characters=12_000, lines=_LESSONS))
    if repeats:
        lines = "\n".join(
            f"{one_line(repeat.hypothesis, 160)} -> {line(repeat.earlier, 120)}" for repeat in repeats[-_REPEATS:]
        )
        parts.append("# Not run, since the very same trainer has its verdict\n\n" + quotes("proposals", lines))
    if stuck := plateau.advice(history):
        parts.append("# A plateau\n\n" + quotes("counted from the record", stuck, characters=6_000, lines=60))
        parts.append("So take another direction than the last ten.")
    elif near := plateau.to_combine(history):
        parts.append("# Near misses\n\n" + quotes("counted from the record", near, characters=3_000, lines=20))
    parts.append("Make the next proposal.")
    return _text_block("\n\n".join(parts))


def _block(quotes: Quotes, title: str, found: Sequence[Experiment]) -> str:
    lines = "\n".join(map(line, found))
    return f"# {title}\n\n" + quotes("the record", lines, characters=8_000, lines=len(found))


def _text_block(text: str) -> Block:
    return {"type": "text", "text": text}
