"""The model's tools: they read the record, edit a draft in memory, check it and hand it in.

No tool takes a path, a command or an address, which bounds the harm of a model that follows injected instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.agents.api import prompts, reading
from core.agents.api.arguments import ToolError, validated
from core.agents.api.draft import Draft
from core.agents.api.quoting import Quotes, escaped
from core.agents.api.tools import CHECKS, LISTED, LONGEST_HYPOTHESIS, LONGEST_LESSON, TOOLS
from core.agents.base import AgentContext, History
from core.agents.lessons import Lessons
from core.agents.llm.base import Block
from core.agents.record_text import line
from core.events import Working
from core.records import UserError
from core.system.text import one_line
from core.trainer.check import refusal

_TOOLS = {tool.name: tool for tool in TOOLS}
_LONGEST_RESULT = 120_000  # characters; every tool stays below it by its own bounds


@dataclass
class Workbench:
    """The draft of one proposal, and the tools that work on it. `hypothesis` or `ended` is set by the last of them."""

    history: History
    context: AgentContext
    lessons: Lessons
    quote: Quotes
    agent: str
    draft: Draft
    hypothesis: str = ""  # of the proposal that was handed in
    ended: str = ""  # why there is nothing more to propose
    failed_edits: int = 0
    checks: int = 0  # that were made
    end_refused: bool = False  # once, by a request to think again

    @property
    def done(self) -> bool:
        return bool(self.hypothesis or self.ended)

    def answer(self, use: Block) -> Block:
        """The tool_result of a tool_use block, whatever is in it."""
        wrong = False
        try:
            name = use.get("name")
            if not isinstance(name, str) or name not in _TOOLS:
                raise ToolError(f"there is no tool {str(name)[:80]!r}; there are {', '.join(_TOOLS)}")
            answer: str = getattr(self, f"_{name}")(**validated(_TOOLS[name], use.get("input")))
        except ToolError as error:
            wrong = True
            self.failed_edits += use.get("name") in ("edit", "write_trainer")
            answer = str(error)
            if error.quoted:
                answer += "\n" + self.quote("what that is about", error.quoted, characters=2_000, lines=40)
        except UserError as error:  # such as an object of git that is damaged
            wrong = True
            answer = "this can't be done now:\n" + self.quote("why", str(error), characters=2_000, lines=20)
        return {
            "type": "tool_result",
            "tool_use_id": use["id"],
            "content": answer[:_LONGEST_RESULT],
            "is_error": wrong,
        }

    # Reading

    def _read_trainer(self, experiment: int | None = None, first: int = 1, last: int | None = None) -> str:
        if experiment is None:
            what, text = "your draft of train.py", self.draft.text
        else:
            self._require(experiment)
            what, text = f"train.py of experiment {experiment}", self.history.text(experiment)
        count = len(text.splitlines())
        if first > max(count, 1) or (last is not None and last < first):
            raise ToolError(f"lines {first} to {last or count}: there are lines 1 to {count}")
        self.status(f"reads {'the trainer' if experiment is None else f'the trainer of experiment {experiment}'}")
        return reading.trainer(self.quote, what, text, first, last)

    def _read_program(self) -> str:
        self.status("reads program.md")
        return self.history.program.prose[:_LONGEST_RESULT].strip() or "program.md is empty."

    def _list_experiments(
        self,
        first: int = 0,
        last: int | None = None,
        verdict: str | None = None,
        sort: str = "number",
        count: int = 30,
    ) -> str:
        newest = len(self.history) - 1
        last = newest if last is None else min(last, newest)
        self.status(f"lists experiments {first} to {last}")
        found, there = reading.listed(self.history, first, last, verdict, sort == "score", min(count, LISTED))
        if not found:
            return f"none; there are experiments 0 to {newest}"
        head = f"{len(found)} of {there}" + (f" with verdict {verdict}" if verdict else "")
        lines = "\n".join(map(line, found))
        return head + "\n" + self.quote("the record", lines, characters=40_000, lines=LISTED)

    def _read_experiment(self, number: int) -> str:
        self._require(number)
        self.status(f"reads experiment {number}")
        return reading.full(self.history, self.quote, number)

    # The draft

    def _edit(self, old: str, new: str, all: bool = False) -> str:  # noqa: A002 - the field's name
        self.status("edits")
        return self.draft.edit(old, new, all)

    def _write_trainer(self, text: str) -> str:
        self.status("writes the trainer")
        self.draft.write(text)
        return f"your draft has {len(self.draft.text.splitlines())} lines now"

    def _diff(self) -> str:
        changed = self.draft.diff()
        if not changed:
            return "Your draft is the champion's text."
        return self.quote("your draft against the champion", escaped(changed), characters=40_000, lines=1_000)

    def _reset_draft(self) -> str:
        self.draft.reset()
        return "Your draft is the champion's text again."

    def _check(self) -> str:
        if self.checks >= CHECKS:
            raise ToolError(f"a proposal may be checked {CHECKS} times, and was: propose it, or change your mind")
        self.checks += 1
        self.status("checks the draft")
        found = self.context.check(self.draft.text)
        if found.fault:
            answer = "It fails.\n" + self.quote("the fault", found.fault, characters=2_000, lines=20)
        else:
            answer = f"It runs: {found.cost}. This says nothing of how well it learns."
        if found.output.strip():
            answer += "\n" + reading.printed_end(self.quote, found.output)
        return f"{answer}\n{CHECKS - self.checks} checks are left."

    # The end

    def _lesson(self, text: str) -> str:
        note = one_line(text, LONGEST_LESSON)
        if not note:
            raise ToolError("expected a line of text")
        self.status("leaves a lesson")
        if not self.lessons.append(note):
            raise ToolError("the lessons' file can't be written now; go on without")
        return "kept"

    def _propose(self, hypothesis: str) -> str:
        said = one_line(hypothesis, LONGEST_HYPOTHESIS)
        if not said:
            raise ToolError("expected a hypothesis: what should get better, and why")
        text = self.draft.text
        if not self.draft.changed:
            raise ToolError("your draft is the champion's text: there is nothing to try yet")
        if (refused := refusal(text, self.draft.champion, self.history.program.fixed)) is not None:
            raise ToolError("this can't be tried; mend it first:", refused.reason)
        if (earlier := self.history.repeat_of(text)) is not None:
            if earlier.number == self.history.champion.number:
                raise ToolError("but for layout and comments this is the champion: there is nothing to try yet")
            raise ToolError("this very trainer was tried already; it came to:", line(earlier))
        self.hypothesis = said
        return "handed in"

    def _nothing_more(self, reason: str) -> str:
        if not self.end_refused:
            self.end_refused = True
            raise ToolError(prompts.ONCE_MORE)
        self.ended = one_line(reason, LONGEST_HYPOTHESIS) or "no reason given"
        return "the run ends"

    def _require(self, number: int) -> None:
        if not 0 <= number < len(self.history):
            raise ToolError(f"there is no experiment {number}; there are 0 to {len(self.history) - 1}")

    def status(self, what: str) -> None:
        self.context.tell(Working(self.agent, what))


def working_on(block: Any) -> bool:
    """Whether a block of a reply asks for a tool and can be answered."""
    return isinstance(block, dict) and block.get("type") == "tool_use" and isinstance(block.get("id"), str)
