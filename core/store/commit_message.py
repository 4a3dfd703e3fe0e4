"""A candidate's commit message: its hypothesis, and trailers that say which experiment it is and who proposed it.

The message is all that a pending candidate has until its row is written, so it reads back exactly.
"""

from __future__ import annotations

import re

from core.system.text import clean

_LONGEST = 20_000  # characters of a hypothesis; what an agent writes beyond that is cut, and says so
_TRAILERS = re.compile(r"\n\nExperiment: (?P<number>\d+)\nAgent: (?P<agent>[^\n]*)\n?\Z")


def canonical(hypothesis: str) -> str:
    """A hypothesis as it is recorded: no control characters, and an empty line behind the first line if more follow."""
    text = clean(hypothesis)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}\n... cut after {_LONGEST} characters"
    first, _, rest = text.strip().partition("\n")
    rest = rest.strip("\n").rstrip()
    return f"{first.rstrip()}\n\n{rest}" if rest else first.rstrip() or "(no hypothesis)"


def compose(hypothesis: str, number: int, agent: str) -> str:
    """The commit message of experiment `number`; hypothesis and agent are in the form in which they are recorded."""
    return f"{hypothesis}\n\nExperiment: {number}\nAgent: {agent}\n"


def parse(message: str) -> tuple[str, int, str] | None:
    """(hypothesis, number, agent) of a message that `compose` wrote, None for any other."""
    match = _TRAILERS.search(message)
    return None if match is None else (message[: match.start()], int(match["number"]), match["agent"])
