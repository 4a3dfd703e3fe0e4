"""Requests and replies of any model, and who sends them. Blocks and messages have the Messages API's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

# {"type": "text", "text": ...}, {"type": "tool_use", "id", "name", "input"}, {"type": "tool_result", "tool_use_id",
# "content", "is_error"}. What a provider adds of its own (thinking, signatures) is sent back to it unchanged.
Block = dict[str, Any]
Message = dict[str, Any]  # {"role": "user" or "assistant", "content": [Block, ...]}
Effort = Literal["low", "medium", "high", "xhigh", "max"]
StopReason = Literal["end_turn", "tool_use", "max_tokens", "refusal", "context_full"]


@dataclass(frozen=True, kw_only=True)
class Tool:
    name: str
    description: str
    schema: dict[str, Any]  # JSON Schema of its input, an object


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. `system` and `tools` stay the same throughout a campaign, so that they can be cached."""

    system: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    max_tokens: int  # of the answer, thinking included


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as they are billed: `input` excludes what was read from a cache or written to one."""

    input: int = 0
    output: int = 0  # thinking included
    cache_read: int = 0
    cache_write: int = 0  # kept for five minutes
    cache_write_hour: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write + self.cache_write_hour


@dataclass(frozen=True, kw_only=True)
class Reply:
    content: tuple[Block, ...]
    stop_reason: StopReason
    usage: Usage
    model: str  # that answered
    detail: str = ""  # why it was refused, if the service says so


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of an answer while it streams."""

    kind: Literal["thinking", "text", "tool", "input"]  # "tool": its name; "input": a piece of the tool's input, JSON
    text: str


class Outage(Exception):
    """No answer for now: rate limit, overload, a cut stream, no network. Asking again may help after `seconds`."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class LimitReached(Exception):
    """The next request could exceed the budget, and was not sent."""


class TimeOver(Exception):
    """The run's time ended while an answer streamed; the answer was cut off."""


class ModelClient(Protocol):
    """Answers an agent's requests: through a server, within a budget and with a record, or from a campaign's record."""

    def ask(self, request: Request, experiment: int) -> Reply:
        """The reply to a request that helps to propose `experiment`.

        Raises Outage, LimitReached, TimeOver and UserError.
        """
        ...

    def close(self) -> None: ...
