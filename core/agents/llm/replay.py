"""Replays the recorded replies of a campaign, without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from core.agents.llm.archive import Archive
from core.agents.llm.base import Reply, Request
from core.records import UserError
from core.system.text import one_line

_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?")
SHOWN = 60  # characters of each side of a difference


class ReplayClient:
    """`ModelClient` of an archive, which it closes with itself. Requests that failed are left out.

    `on_difference(experiment, text)` is called if a request differs from the recorded one.
    """

    def __init__(
        self, archive: Archive, on_difference: Callable[[int, str], None] = lambda experiment, text: None
    ) -> None:
        self._archive = archive
        self._on_difference = on_difference
        self._experiment: int | None = None
        self._replied: list[tuple[Request, Reply]] = []  # of that experiment
        self._used: dict[int, int] = {}  # the number of an experiment's replies that are used up

    def ask(self, request: Request, experiment: int) -> Reply:
        if experiment != self._experiment:
            self._experiment = experiment
            exchanges = self._archive.exchanges(experiment)
            self._replied = [(one.request, one.reply) for one in exchanges if one.reply is not None]
        place = self._place(request, self._used.get(experiment, 0))
        if place >= len(self._replied):
            count = len(self._replied)
            raise UserError(
                f"{self._archive.path} holds {count} {'reply' if count == 1 else 'replies'} for experiment "
                f"{experiment}, and one more was asked for: the record ends there, or the campaign took another turn"
            )
        recorded, reply = self._replied[place]
        self._used[experiment] = place + 1
        if changed := difference(recorded, request):
            self._on_difference(experiment, f"request {place + 1}: {changed}")
        return reply

    def _place(self, request: Request, first: int) -> int:
        """The place of the reply: that of the last equal request, else the next one.

        A conversation that was interrupted and started again has its beginning twice, and only the second went on.
        """
        places = range(len(self._replied) - 1, first - 1, -1)
        return next((place for place in places if not difference(self._replied[place][0], request)), first)

    def close(self) -> None:
        self._archive.close()


def difference(recorded: Request, asked: Request) -> str:
    """The first difference, in a line; empty if there is none.

    `max_tokens` and numbers in messages don't count: a campaign that is run again has other scores, steps and seconds.
    """
    if recorded.system != asked.system:
        return f"the system prompt {_first(recorded.system, asked.system)}"
    if recorded.tools != asked.tools:
        names = [", ".join(tool.name for tool in request.tools) for request in (recorded, asked)]
        return f"the tools {_first(*names)}" if names[0] != names[1] else "a tool's description or schema differs"
    for place, (one, other) in enumerate(zip(recorded.messages, asked.messages, strict=False)):
        if one != other and _NUMBER.sub("0", _written(one)) != _NUMBER.sub("0", _written(other)):
            return f"message {place + 1} {_first(_written(one), _written(other))}"
    if len(recorded.messages) != len(asked.messages):
        return f"{len(recorded.messages)} messages were recorded, {len(asked.messages)} are asked"
    return ""


def _written(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False)


def _first(recorded: str, asked: str) -> str:
    same = next(
        (place for place, (one, other) in enumerate(zip(recorded, asked, strict=False)) if one != other),
        min(len(recorded), len(asked)),
    )
    start = max(0, same - 20)
    one, other = (one_line(text[start : start + SHOWN]) for text in (recorded, asked))
    return f"was {one!r}, is {other!r}"
