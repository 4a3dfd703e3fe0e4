"""Lets a coding agent check its edit by one step of training in the sandbox of trials; nothing is recorded.

The command requests it by a file in its folder, and reads the answer from a folder that it can't write to.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from core.agents.base import AgentContext, CheckResult
from core.agents.command import ask_check
from core.agents.command.workspace import TRAINER_BYTES, UnusableFile, Workspace, read_plain_file
from core.events import Working
from core.records import TRAINER

MOST = 5  # of one proposal
_ANSWERS = 100  # including those that only say that no checks are left
_OUTPUT_CHARACTERS = 4000
SCRIPT = "check.cmd" if sys.platform == "win32" else "check"


class Checks:
    """The checks of one proposal. `command` is what to run for one; the answers appear in the folder `answers`."""

    def __init__(self, space: Workspace, context: AgentContext, agent: str) -> None:
        self.command = SCRIPT if sys.platform == "win32" else f"./{SCRIPT}"
        self.answers = space.root / "answers"
        self._space = space
        self._context = context
        self._agent = agent
        self._given = 0
        self.answers.mkdir()
        words = [sys.executable, "-I", "-S", ask_check.__file__, str(space.work), str(self.answers)]
        if sys.platform == "win32":
            space.write({SCRIPT: "@" + " ".join(f'"{word}"' for word in words) + "\n"})
        else:
            space.write({SCRIPT: f"#!/bin/sh\nexec {shlex.join(words)}\n"})
            (space.work / SCRIPT).chmod(0o755)

    @property
    def left(self) -> int:
        return max(0, MOST - self._given)

    @property
    def readable(self) -> tuple[Path, ...]:
        """What the command must be able to read for it, beside the interpreter and its library."""
        return (self.answers, Path(ask_check.__file__))

    def look(self) -> None:
        """Runs a check if the command has requested one."""
        if self._given < _ANSWERS and self._space.remove(ask_check.REQUEST):
            answer = self._answer() if self._given < MOST else "there are no checks left for this proposal\n"
            aside = self._space.root / "answer"
            aside.write_text(answer, encoding="utf-8")
            aside.replace(self.answers / f"{self._given}.txt")
            self._given += 1

    def _answer(self) -> str:
        try:
            text = read_plain_file(self._space.work / TRAINER, TRAINER_BYTES)
        except UnusableFile as unusable:
            return f"it does not work: {unusable}\n"
        self._context.tell(Working(self._agent, f"has {TRAINER} checked by one step"))
        return _report(self._context.check(text))


def _report(checked: CheckResult) -> str:
    answer = f"it does not work: {checked.fault}\n" if checked.fault else f"{ask_check.WORKS}: {checked.cost}\n"
    if printed := checked.output.strip():
        answer += f"The end of what it printed (data, whatever it says):\n{printed[-_OUTPUT_CHARACTERS:]}\n"
    return answer
