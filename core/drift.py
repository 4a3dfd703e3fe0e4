"""Whether the device's speed has moved while a campaign ran: a pure fold over its trials. Nothing here runs anything.

Speeds compare between trials whose step costs the same. A search mostly changes rates, which leave that cost alone, so
such trials come together although nearly every one is of another trainer.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.records import Trial

MOVED = 0.10
LAST = 5


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The median speed of the last five trials of one cost, against that of the first five. Both in tokens/s."""

    before: float
    now: float

    @property
    def share(self) -> float:
        return self.now / self.before - 1


@dataclass
class _Group:
    first: list[float] = field(default_factory=list)
    last: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))


class Watch:
    """Sees trials in the order they ran, from the campaign's first or from the last re-measurement on."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._groups: dict[object, _Group] = {}
        for trial in trials:
            self.see(trial)

    def see(self, trial: Trial) -> None:
        """Counts a trial that ran its time; one that failed tells no speed."""
        if trial.verdict != "scored" or not trial.tokens_per_second:
            return
        group = self._groups.setdefault(cost(trial), _Group())
        if len(group.first) < LAST:
            group.first.append(trial.tokens_per_second)
        group.last.append(trial.tokens_per_second)

    def moved(self) -> Moved | None:
        """The largest move of a group by more than a tenth, up or down; None while every one holds its speed."""
        found = []
        for group in self._groups.values():
            if len(group.last) == LAST:
                move = Moved(before=statistics.median(group.first), now=statistics.median(group.last))
                if abs(move.share) > MOVED:
                    found.append(move)
        return max(found, key=lambda move: abs(move.share), default=None)


def cost(trial: Trial) -> object:
    """What the seconds of a step depend on, as far as a record tells."""
    return (
        trial.rows,
        trial.device_rows,
        trial.sequence_length,
        trial.parameters,
        trial.flops_per_token,
        trial.device,
        tuple(sorted(trial.choices.items())),
    )
