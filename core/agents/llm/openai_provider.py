"""Any model behind the chat-completions protocol, through the openai SDK: OpenAI's, and servers on this machine.

Ollama, vLLM, LM Studio and llama.cpp speak it too. Blocks are translated both ways.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from core.agents.llm import errors
from core.agents.llm.base import Block, Delta, Effort, Message, Reply, Request, StopReason, Usage
from core.agents.llm.blocks import encodable, tool_input
from core.agents.llm.streams import Provider, StreamedReply, as_text
from core.system.text import one_line

ENDPOINT = "https://api.openai.com/v1"
_STOPS: dict[str, StopReason] = {
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}


class OpenAIProvider(Provider):
    """`Provider` of a server that speaks chat completions. `key` is None for one that needs none.

    A model's reasoning is streamed and kept in the reply, but not sent back: not all servers take it.
    """

    name = "openai"

    def __init__(
        self,
        *,
        model: str,
        key: str | None,
        endpoint: str = ENDPOINT,
        effort: Effort | None = None,
        timeout: float = 300.0,
    ) -> None:
        self._effort = effort
        self._call_numbers = itertools.count(1)  # for the tool calls to which the server gave no id
        # The newer name is the only one that OpenAI's reasoning models take, and not all other servers know it.
        self._limit = "max_completion_tokens" if endpoint == ENDPOINT else "max_tokens"
        server = errors.Server(
            name="OpenAI's API" if endpoint == ENDPOINT else "the server",
            address=endpoint,
            model=model,
            key="OPENAI_API_KEY",
            timeout=timeout,
        )
        import openai

        super().__init__(openai, partial(openai.OpenAI, api_key=key or "none"), server)

    def _create(self, **body: Any) -> Any:
        return self._client.chat.completions.create(**body)

    def _new_reply(self) -> StreamedReply:
        return _Completion(self._call_numbers)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages(request),
            self._limit: request.max_tokens,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
                }
                for tool in request.tools
            ]
        if self._effort is not None:
            body["reasoning_effort"] = self._effort
        return body


class _Completion(StreamedReply):
    def __init__(self, call_numbers: Iterator[int]) -> None:
        super().__init__()
        self._call_numbers = call_numbers
        self._thinking: list[str] = []
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[tuple[Block, list[str]]] = []  # with the pieces of their input
        self._found: list[Delta] = []  # in the current chunk
        self._places: dict[int, int] = {}  # the stream's number of a call -> its place in _calls
        self._model = ""
        self._finish = ""

    def take(self, chunk: Any) -> list[Delta]:
        self._found = []
        self._model = self._model or (chunk.model or "")
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            delta = choice.delta
            self._finish = choice.finish_reason or self._finish
            self.complete = bool(self._finish)
            if delta is None:
                continue
            # DeepSeek, vLLM and llama.cpp say reasoning_content; Ollama and OpenRouter say reasoning.
            reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
            self._add("thinking", self._thinking, reasoning)
            self._add("text", self._text, delta.content)
            self._add("text", self._refusal, delta.refusal)
            for call in delta.tool_calls or ():
                self._call(call)
        return self._found

    def _add(self, kind: Any, pieces: list[str], piece: Any) -> None:
        if isinstance(piece, str) and piece:
            pieces.append(piece)
            self._found.append(Delta(kind=kind, text=piece))

    def _call(self, call: Any) -> None:
        number = len(self._calls) if call.index is None else int(call.index)
        place = self._places.get(number)
        # Some servers send each call whole and give all of them the number 0.
        if place is None or (call.id and call.id != self._calls[place][0]["id"]):
            name = as_text((call.function.name if call.function else None) or "")
            identity = call.id or f"call_{next(self._call_numbers)}"
            block: Block = {"type": "tool_use", "id": identity, "name": name, "input": {}}
            place = self._places[number] = len(self._calls)
            self._calls.append((block, []))
            self._found.append(Delta(kind="tool", text=name))
        if call.function is not None:
            self._add("input", self._calls[place][1], call.function.arguments)

    def reply(self, model: str) -> Reply:
        content: list[Block] = []
        if self._thinking:
            content.append({"type": "thinking", "thinking": "".join(self._thinking)})
        if self._text:
            content.append({"type": "text", "text": "".join(self._text)})
        content += [{**block, "input": tool_input("".join(pieces))} for block, pieces in self._calls]
        stop = _STOPS.get(self._finish, "end_turn")
        if self._refusal:
            stop = "refusal"
        elif self._calls and stop == "end_turn":  # which some servers say of calls too
            stop = "tool_use"
        return Reply(
            content=encodable(tuple(content)),
            stop_reason=stop,
            usage=self.usage,
            model=self._model or model,
            detail=one_line("".join(self._refusal), errors.WIDTH),
        )


def _usage(reported: Any) -> Usage:
    """The prompt's tokens include the cached ones, the completion's include reasoning."""
    details = reported.prompt_tokens_details
    read = int(getattr(details, "cached_tokens", None) or 0)
    written = int(getattr(details, "cache_write_tokens", None) or 0)
    prompt = int(reported.prompt_tokens or 0)
    return Usage(
        input=max(0, prompt - read - written),
        output=int(reported.completion_tokens or 0),
        cache_read=read,
        cache_write=written,
    )


def messages(request: Request) -> list[Message]:
    """The conversation in the protocol's form."""
    turns: list[Message] = [{"role": "system", "content": request.system}] if request.system else []
    for message in request.messages:
        turns += _assistant(message["content"]) if message["role"] == "assistant" else _user(message["content"])
    return turns


def _assistant(content: list[Block]) -> list[Message]:
    text = "".join(block["text"] for block in content if block["type"] == "text")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {
                "name": block["name"],
                "arguments": block["input"] if isinstance(block["input"], str) else json.dumps(block["input"]),
            },
        }
        for block in content
        if block["type"] == "tool_use"
    ]
    turn: Message = {"role": "assistant", "content": text or None}
    if calls:
        turn["tool_calls"] = calls
    return [turn] if text or calls else []


def _user(content: list[Block]) -> list[Message]:
    """Results first: they must follow the calls."""
    turns: list[Message] = [
        {"role": "tool", "tool_call_id": block["tool_use_id"], "content": _result(block)}
        for block in content
        if block["type"] == "tool_result"
    ]
    text = "\n\n".join(block["text"] for block in content if block["type"] == "text" and block["text"])
    return [*turns, {"role": "user", "content": text}] if text else turns


def _result(block: Block) -> str:
    content = block.get("content", "")
    text = content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)
    return f"Error: {text}" if block.get("is_error") else text
