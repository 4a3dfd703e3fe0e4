"""Two agents on one history: a thinker (a model or coding agent) and the search, in turn or while the thinker is away.

The history alone decides whose turn it is, so that a run continues where the last one ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from core.agents.base import Agent, AgentContext, History, Unavailable
from core.events import Away, Back, Notice, Repeat, Working
from core.records import Experiment, Proposal, UserError
from core.system import text

TUNED_AFTER_KEEP, TUNED_AFTER_REST = 3, 1  # the search's turns after a thinker's experiment, by how it ended
_LOOKED_AT = 50  # experiments back for the thinker's last one
_WAIT_SECONDS = 1.0  # between two looks at the clock while nobody has anything to propose


class Hybrid(Agent):
    """After each proposal of the thinker the search gets some turns, and every turn while the thinker is unavailable.

    `after_keep`, `after_rest`: the search's turns after an experiment of the thinker that was kept, or was not. With 0
    for both the search only stands in. `alone`: whether the search continues when the thinker has nothing more.
    """

    def __init__(
        self,
        thinker: Agent,
        search: Agent,
        *,
        name: str = "hybrid",
        after_keep: int = TUNED_AFTER_KEEP,
        after_rest: int = TUNED_AFTER_REST,
        alone: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._thinker = thinker
        self._search = search
        self._turns = {True: after_keep, False: after_rest}
        self._alone = alone
        self._clock = clock
        self._sleep = sleep
        self._begun: list[Agent] = []
        self._last_asked = thinker
        self._away_since: float | None = None
        self._again_at = -math.inf
        self._finished = False  # the thinker has nothing more
        self._empty = ""  # why the search has nothing, as the last notice says

    def begin(self, context: AgentContext) -> None:
        super().begin(context)
        for agent in (self._thinker, self._search):
            self._begun.append(agent)
            agent.begin(context)

    def propose(self, history: History) -> Proposal | None:
        """The proposal of the one whose turn it is, else of the other; if neither has one, waits for the thinker."""
        order = [self._from_thinker, self._from_search]
        if self._is_searchs_turn(history):
            order.reverse()
        while True:
            for propose in order:
                if (proposal := propose(history)) is not None:
                    return proposal
            if self._finished or not self._wait():
                self.why_none = self._thinker.why_none
                return None

    def observe(self, experiment: Experiment) -> None:
        self._thinker.observe(experiment)
        self._search.observe(experiment)

    def repeated(self, repeat: Repeat) -> None:
        self._last_asked.repeated(repeat)

    def end(self) -> None:
        while self._begun:
            self._begun.pop().end()

    def _is_searchs_turn(self, history: History) -> bool:
        """Whether the search has turns left after the thinker's last experiment."""
        for had, experiment in enumerate(reversed(history.recent(_LOOKED_AT))):
            if experiment.number == 0:
                return False  # the thinker begins
            if experiment.agent != self._search.name:
                return had < self._turns[experiment.verdict == "keep"]
        return False

    def _from_thinker(self, history: History) -> Proposal | None:
        if self._finished or self._clock() < self._again_at:
            return None
        self._last_asked = self._thinker
        try:
            proposal = self._thinker.propose(history)
        except Unavailable as away:
            now = self._clock()
            self._away_since = now if self._away_since is None else self._away_since
            self._again_at = now + away.seconds
            later = f"asked again in {text.seconds(away.seconds)}"
            notice = f"{self._thinker.name} is away ({away}): {later}, the search stands in"
            self.context.tell(Away(notice, f"{self._thinker.name}: {away}"))
            return None
        if self._away_since is not None:
            away_for = text.seconds(self._clock() - self._away_since)
            self.context.tell(Back(f"{self._thinker.name} is back after {away_for}"))
            self._away_since = None
        if proposal is None:
            self._finished = True
            if self._alone:
                why = self._thinker.why_none or f"{self._thinker.name} has nothing more to propose"
                self._tell(f"{why}: the search goes on alone")
        return proposal

    def _from_search(self, history: History) -> Proposal | None:
        if self._finished and not self._alone:
            return None
        self._last_asked = self._search
        why = "the search has found nothing new in the ranges of this champion"
        try:
            proposal = self._search.propose(history)
        except UserError as error:
            proposal, why = None, str(error)
        if proposal is None and why != self._empty:
            self._tell(why)
        self._empty = "" if proposal is not None else why
        return proposal

    def _wait(self) -> bool:
        """Sleeps a little; False once the run is over."""
        left = self.context.seconds_left()
        away = self._again_at - self._clock()
        if left <= 0:
            return False
        if away > 0:
            self.context.tell(Working(self._thinker.name, f"away, asked again in {text.seconds(away)}"))
            self._sleep(min(_WAIT_SECONDS, away, left))
        return True

    def _tell(self, message: str) -> None:
        self.context.tell(Notice(message))


def stand_in(thinker: Agent, search: Agent) -> Agent:
    """The thinker, with the search in its place while it is unavailable."""
    return Hybrid(thinker, search, name=thinker.name, after_keep=0, after_rest=0, alone=False)
