"""Advice when nothing was kept for long: what was changed how often since the champion, and what came close.

Pure functions of a history that look back a bounded number of experiments.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from core.agents.base import History
from core.agents.record_text import measured
from core.records import Constant, Experiment, UserError
from core.trainer.constants import parse
from core.trainer.fingerprint import canonical
from core.trainer.literals import literal

STREAK = 10  # discards in a row that make a plateau
LOOKED_AT = 60  # experiments since the champion
NEAR_LOOKED_AT = 200  # experiments, of earlier champions too
EXHAUSTED = 3  # changes of a region without a keep
CLOSEST = 3  # experiments that count as near misses where none is within the spread
_REGIONS, _NEAR = 12, 6  # that are listed
_LONGEST_NAME = 40  # characters of a trainer's name for something


@dataclass(frozen=True)
class Region:
    """A constant, function, method or other part of the trainer, and the result of changing it since the champion."""

    name: str
    tried: int
    best: float | None  # gain over the champion, bits per byte; None: none of them came to a score


def streak(history: History) -> int:
    """Discarded and stopped ones since the last keep, of the last LOOKED_AT. Failures neither count nor end it."""
    return sum(one.verdict in ("discard", "stopped") for one in since_champion(history))


def since_champion(history: History) -> list[Experiment]:
    """The last experiments on the present champion, oldest first, without their trials."""
    return history.recent(min(LOOKED_AT, len(history) - 1 - history.champion.number))


def regions(history: History) -> list[Region]:
    """What was changed in the present champion, most often tried first."""
    tried: dict[str, list[float | None]] = {}
    for experiment in since_champion(history):
        for name in changed(history, experiment.number):
            tried.setdefault(name, []).append(experiment.gain)
    found = [
        Region(name, len(gains), max((gain for gain in gains if gain is not None), default=None))
        for name, gains in tried.items()
    ]
    return sorted(found, key=lambda region: (-region.tried, region.name))


def changed(history: History, number: int) -> list[str]:
    """Constants and parts in which a trainer differs from the present champion's; none if it can't be parsed."""
    before, after = history.constants(history.champion.number), history.constants(number)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    try:
        old, new = _parts(history.champion_text), _parts(history.text(number))
    except UserError:
        return []
    constants = {**before, **after}
    return names + [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in constants]


def near_misses(history: History, count: int) -> list[Experiment]:
    """Discarded experiments that luck may have decided, else the closest few.

    Their gain is within the deviation of their belief, or, where the policy had none, of the spread of the baseline's
    seeds.

    Those on the present champion first, each kind nearest first; without their trials.
    """
    champion = history.champion
    scored = [one for one in history.recent(NEAR_LOOKED_AT) if one.verdict == "discard" and one.gain is not None]
    scored.sort(key=lambda one: (one.parent != champion.commit, -(one.gain or 0.0), one.number))
    within = [one for one in scored if (noise := _noise(one)) is not None and (one.gain or 0.0) >= -noise]
    return (within or scored[:CLOSEST])[:count]


def _noise(experiment: Experiment) -> float | None:
    """Bits per byte that its gain may be off by luck."""
    return experiment.spread if experiment.deviation is None else experiment.deviation


def advice(history: History) -> str:
    """For the next proposal: what is exhausted, what came close, and to try something else. Empty without a plateau."""
    if (discards := streak(history)) < STREAK:
        return ""
    lines = [
        f"{discards} experiments in a row were discarded since the champion, experiment {history.champion.number}."
    ]
    worn = [region for region in regions(history) if region.tried >= EXHAUSTED]
    if worn:
        lines.append("Changed again and again without a gain (best gain in bits per byte), so leave these alone:")
        for region in worn[:_REGIONS]:
            best = "none came to a score" if region.best is None else f"best {region.best:+.4f}"
            lines.append(f"- {_cut(region.name)}: {region.tried} times, {best}")
    lines += _to_combine(history)
    lines.append(
        "Propose something of another kind: another part of the trainer, a combination of near misses, a discarded "
        "idea turned round, something taken out, or a faster step."
    )
    return "\n".join(lines)


def to_combine(history: History) -> str:
    """The near misses of the present champion; empty if there are fewer than two."""
    near = [one for one in near_misses(history, _NEAR) if one.parent == history.champion.commit]
    return "\n".join(_to_combine(history)) if len(near) > 1 else ""


def _to_combine(history: History) -> list[str]:
    near = [_near(history, experiment) for experiment in near_misses(history, _NEAR)]
    return ["These came close; two that change different things may win together:", *near] if near else []


def _near(history: History, experiment: Experiment) -> str:
    noise = measured(experiment) or ("" if experiment.spread is None else f"spread {experiment.spread:.4f}")
    before, after = history.constants(history.champion.number), history.constants(experiment.number)
    values = [_valued(name, after[name]) for name in after if name in before and after[name] != before[name]]
    parts = [_cut(name) for name in changed(history, experiment.number) if name not in after]
    what = "; ".join([*values, *parts])
    what = what if len(what) <= 200 else what[:196] + " ..."
    on = "" if experiment.parent == history.champion.commit else "on an earlier champion"
    gain = ", ".join(part for part in (f"gain {experiment.gain:+.4f}", noise, on) if part)
    return f"- experiment {experiment.number}: {gain}: differs in {what or 'no part'}"


def _valued(name: str, value: Constant) -> str:
    """A constant with its value; of a string the name alone, since a trainer may write anything into it."""
    return _cut(name) if isinstance(value, str) else f"{_cut(name)} = {literal(value)}"


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


# During a plateau each proposal compares the same trainers: each is parsed once.
@lru_cache(maxsize=2 * LOOKED_AT)
def _parts(text: str) -> dict[str, int]:
    """A hash of every function, method and assignment; classes' own lines and the module's other code as one each."""
    pieces: dict[str, list[str]] = {}
    for node in parse(text).body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                method = f".{inner.name}" if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""
                pieces.setdefault(node.name + method, []).append(canonical(inner))
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            name = "the module's other code"
        pieces.setdefault(name, []).append(canonical(node))
    return {name: hash(tuple(parts)) for name, parts in pieces.items()}
