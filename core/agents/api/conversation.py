"""One proposal's conversation: asks the model, runs its tools, and reminds it where it calls none.

Each answer of the model goes back into the next request as it came, without what no server would accept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.agents.api import prompts
from core.agents.api.quoting import escaped
from core.agents.api.tools import TOOLS
from core.agents.api.workbench import Workbench, working_on
from core.agents.llm.base import Block, Message, ModelClient, Reply, Request, TimeOver

MOST_ANSWERS = 40
MOST_NUDGES = 2
MOST_BEGINNINGS = 3  # each but the first since the context was full


class GivenUp(Exception):
    """The model made no proposal; the text says why."""


@dataclass
class Conversation:
    """Requests and tool results in turn, until a tool ends the proposal."""

    client: ModelClient
    bench: Workbench
    opening: tuple[Block, ...]
    max_tokens: int
    resumed: str = ""  # why the draft comes from an earlier conversation
    replies: int = 0

    def run(self) -> None:
        """Returns when a tool has ended the proposal. Raises GivenUp, TimeOver, and what `client.ask` raises."""
        messages = self._begin(self.resumed)
        nudges, beginnings = 0, 1
        for answer in range(MOST_ANSWERS):
            if self.bench.context.seconds_left() <= 0:
                raise TimeOver
            self.bench.status("thinks" if answer == 0 else f"thinks, answer {answer + 1}")
            request = Request(system=prompts.SYSTEM, tools=TOOLS, messages=tuple(messages), max_tokens=self.max_tokens)
            reply = self.client.ask(request, len(self.bench.history))
            self.replies += 1
            if reply.stop_reason == "context_full":
                beginnings += 1
                if beginnings > MOST_BEGINNINGS:
                    raise GivenUp(f"its context was full {MOST_BEGINNINGS} times")
                messages = self._begin("the context was full")
                continue
            uses = [block for block in reply.content if working_on(block)]
            if uses and reply.stop_reason != "max_tokens" and reply.stop_reason != "refusal":
                messages += [_message(reply), {"role": "user", "content": self._answers(uses)}]
                if self.bench.done:
                    return
                continue
            nudges += 1
            if nudges > MOST_NUDGES:
                raise GivenUp(_reason(reply))
            messages = self._nudged(messages, reply)
        raise GivenUp(f"{MOST_ANSWERS} answers without a proposal")

    def _begin(self, why: str) -> list[Message]:
        content = list(self.opening)
        if why and (changed := self.bench.draft.diff()):
            shown = self.bench.quote("your draft against the champion", escaped(changed))
            content.append({"type": "text", "text": f"{prompts.ANEW.format(why=why)}\n{shown}"})
        return [{"role": "user", "content": content}]

    def _answers(self, uses: list[Block]) -> list[Block]:
        """A result for every tool call up to the one that ends the proposal; later ones are not run."""
        results: list[Block] = []
        for use in uses:
            results.append(self.bench.answer(use))
            if self.bench.done:
                break
        return results

    def _nudged(self, messages: list[Message], reply: Reply) -> list[Message]:
        """The conversation with a text that asks for a tool call."""
        if reply.stop_reason == "refusal":  # the next request must not hold what was declined
            return _with_text(self._begin("an answer was declined"), prompts.DECLINED)
        if reply.stop_reason == "max_tokens":  # half a thought or half a tool's input is refused by servers
            return _with_text(messages, prompts.CUT.format(tokens=self.max_tokens))
        message = _message(reply)
        if not message["content"]:
            return _with_text(messages, prompts.NO_TOOL)
        return [*messages, message, {"role": "user", "content": [{"type": "text", "text": prompts.NO_TOOL}]}]


def _with_text(messages: list[Message], text: str) -> list[Message]:
    """The conversation with a text behind its last message, which is the user's."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": [*last["content"], {"type": "text", "text": text}]}]


def _message(reply: Reply) -> Message:
    """The reply for the next request: without empty texts and calls that can't be answered, inputs as objects."""
    content: list[Block] = []
    for block in reply.content:
        kind = block.get("type")
        if kind == "text" and not str(block.get("text") or "").strip():
            continue
        if kind != "tool_use":
            content.append(block)
        elif working_on(block):
            content.append({**block, "name": _name(block.get("name")), "input": _object(block.get("input"))})
    return {"role": "assistant", "content": content}


def _name(name: Any) -> str:
    """A tool's name as servers accept it: 1 to 64 letters, digits, dashes and underscores."""
    kept = "".join(char for char in str(name) if char.isascii() and (char.isalnum() or char in "-_"))[:64]
    return kept or "unnamed"


def _object(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {"not_an_object": str(given)[:2_000]}


def _reason(reply: Reply) -> str:
    return {
        "refusal": "it declined to answer",
        "max_tokens": "its answers were cut off at the limit of tokens",
    }.get(reply.stop_reason, "it stopped without a proposal")
