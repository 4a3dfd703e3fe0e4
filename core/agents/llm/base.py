"""What a model is asked and what it answers, whoever serves it. Blocks and messages have the Messages API's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# {"type": "text", "text": ...}, {"type": "tool_use", "id", "name", "input"}, {"type": "tool_result", "tool_use_id",
# "content", "is_error"}; what a provider adds of its own (thinking, signatures) goes back to it as it came.
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
    """One request. `system` and `tools` are the same throughout a campaign, so that they can be cached."""

    system: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    max_tokens: int  # of the answer, thinking included


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as they are billed: `input` leaves out what was read from a cache or written to one."""

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
    detail: str = ""  # why it was refused, where the service says so


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of an answer while it streams."""

    kind: Literal["thinking", "text", "tool", "input"]  # of a tool its name, then its input: JSON in pieces
    text: str


class Outage(Exception):
    """No answer for now: rate limit, overload, a cut stream, no network. `seconds`: when it is worth asking again."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class LimitReached(Exception):
    """The next request could exceed what may be spent; it was not sent."""


class TimeOver(Exception):
    """The run ended meanwhile; what was left of the answer was not waited for."""


class Provider(Protocol):
    """One kind of server. Asks once: waiting, limits and records are its caller's."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def so_far(self) -> Usage:
        """What the last request used as far as the server told: all that is known of one that was cut off."""
        ...

    def reply(self, request: Request, on_delta: Callable[[Delta], None]) -> Reply:
        """Streams one answer. Raises Outage where trying again may help, UserError where it can't (key, model).

        The Outage's `seconds` are the server's own wish, 0 where it has none. A tool's input that is no JSON object
        comes as the text that the model wrote.
        """
        ...

    def close(self) -> None: ...


class ModelClient(Protocol):
    """Who takes an agent's requests: a server behind its limits and records, or the recorded replies of a campaign."""

    def ask(self, request: Request, experiment: int) -> Reply:
        """The reply. `experiment` is whose proposal is worked on.

        Raises Outage, LimitReached, TimeOver and UserError.
        """
        ...

    def close(self) -> None: ...
