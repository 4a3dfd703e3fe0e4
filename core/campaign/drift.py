"""Whether the device's speed has moved while a campaign ran: a pure fold over its trials. Nothing here runs anything.

Speeds compare between trials whose step costs the same. A search mostly changes rates, which leave that cost alone, so
such trials come together although nearly every one is of another trainer.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from core.events import Moved
from core.records import Trial, to_json

MOVED = 0.10
LAST = 5
# What the seconds of a step depend on, as far as a record tells.
COST = ("rows", "device_rows", "sequence_length", "parameters", "flops_per_token", "device", "choices")


class Throughput(NamedTuple):
    """Of one trial: what its step depends on, as JSON of the fields in COST, and its tokens/s."""

    cost: str
    tokens_per_second: float


@dataclass
class _Group:
    first: list[float] = field(default_factory=list)
    last: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))


class DriftDetector:
    """Takes trials in the order they ran, from the campaign's first or from the last re-measurement on."""

    def __init__(self, trials: Iterable[Throughput] = ()) -> None:
        self._groups: dict[str, _Group] = {}
        for one in trials:
            self.add(one)

    def add(self, one: Throughput) -> None:
        """Counts the next trial."""
        group = self._groups.setdefault(_canonical(one.cost), _Group())
        if len(group.first) < LAST:
            group.first.append(one.tokens_per_second)
        group.last.append(one.tokens_per_second)

    def detect(self) -> Moved | None:
        """The largest move of a group by more than a tenth, up or down; None while every one holds its speed."""
        found = []
        for group in self._groups.values():
            if len(group.last) == LAST:
                move = Moved(before=statistics.median(group.first), now=statistics.median(group.last))
                if abs(move.share) > MOVED:
                    found.append(move)
        return max(found, key=lambda move: abs(move.share), default=None)


def throughputs(trials: Iterable[Trial]) -> Iterator[Throughput]:
    """Those of trials that scored; one that failed says nothing of the device's speed."""
    for trial in trials:
        if trial.verdict == "scored" and trial.tokens_per_second:
            record = to_json(trial)
            yield Throughput(json.dumps([record[name] for name in COST]), trial.tokens_per_second)


@functools.lru_cache(maxsize=256)
def _canonical(cost: str) -> str:
    """The same text for the same cost, in whichever order a trainer reports its choices."""
    return json.dumps(json.loads(cost), sort_keys=True)
