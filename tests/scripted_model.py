"""A model whose answers are a function's, without a server; and a context of its own. Imported as `scripted_model`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.agents.base import CheckResult
from core.agents.llm.base import Block, Reply, Request, StopReason, Usage
from core.events import Event, Notice, Working

Said = Sequence[Block] | Reply | Exception
_ids = itertools.count()


def use(name: object, given: object = None, **fields: Any) -> Block:
    """A call of a tool; `given` instead of fields for an input that is no object."""
    return {"type": "tool_use", "id": f"use_{next(_ids)}", "name": name, "input": fields if given is None else given}


def said(text: str) -> Block:
    return {"type": "text", "text": text}


def a_reply(*blocks: Block, stop: StopReason | None = None) -> Reply:
    found: StopReason = "tool_use" if any(block.get("type") == "tool_use" for block in blocks) else "end_turn"
    return Reply(content=blocks, stop_reason=stop or found, usage=Usage(input=10, output=5), model="scripted")


class ScriptedModel:
    """`llm.base.ModelClient` whose answers are those of a list, or of a function of the request and the experiment."""

    def __init__(self, answers: Sequence[Said] | Callable[[Request, int], Said]) -> None:
        self.requests: list[Request] = []
        self.experiments: list[int] = []
        self.closed = 0
        self._answers = answers if callable(answers) else _in_turn(answers)

    def ask(self, request: Request, experiment: int) -> Reply:
        self.requests.append(request)
        self.experiments.append(experiment)
        answer = self._answers(request, experiment)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else a_reply(*answer)

    def close(self) -> None:
        self.closed += 1

    def results(self, place: int = -1) -> list[Block]:
        """The tool results in the last message of a request."""
        return [one for one in self.requests[place].messages[-1]["content"] if one["type"] == "tool_result"]


def _in_turn(answers: Sequence[Said]) -> Callable[[Request, int], Said]:
    left = list(answers)

    def answer(request: Request, experiment: int) -> Said:
        assert left, f"the script has no answer to {request.messages[-1]}"
        return left.pop(0)

    return answer


def opening(request: Request) -> str:
    """The first message's text."""
    return "\n".join(str(block["text"]) for block in request.messages[0]["content"])


class PlainContext:
    """A context in a folder, without an engine."""

    def __init__(
        self, root: Path, check: Callable[[str], CheckResult] | None = None, seconds: float = math.inf
    ) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir(exist_ok=True)
        self.told: list[Event] = []
        self.seconds = seconds
        self.checked: list[str] = []
        self._check = check or (lambda text: a_check())

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def check(self, text: str) -> CheckResult:
        self.checked.append(text)
        return self._check(text)

    def seconds_left(self) -> float:
        return self.seconds

    @property
    def notices(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Notice)]

    @property
    def works(self) -> list[str]:
        return [event.what for event in self.told if isinstance(event, Working)]


def a_check(**values: Any) -> CheckResult:
    base: dict[str, Any] = {
        "fault": "", "output": "", "seconds": 1.5, "parameters": 1000, "peak_memory_mb": 50.0, "flops_per_token": 2.0,
    }  # fmt: skip
    return CheckResult(**{**base, **values})
