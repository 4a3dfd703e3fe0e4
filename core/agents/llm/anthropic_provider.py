"""Claude, through the Messages API and the anthropic SDK. The SDK's other logins are unused."""

from __future__ import annotations

from functools import partial
from typing import Any

from core.agents.llm import claude, errors
from core.agents.llm.base import Block, Delta, Effort, Message, Reply, Request, StopReason, Usage
from core.agents.llm.blocks import encodable, tool_input
from core.agents.llm.streams import Provider, StreamedReply, as_text
from core.system.text import one_line

ENDPOINT = "https://api.anthropic.com"
# The beginning of a campaign's prompt is used again after a trial, the rest by the next request of a conversation.
# https://platform.claude.com/docs/en/build-with-claude/prompt-caching
_HOUR = {"type": "ephemeral", "ttl": "1h"}
_MINUTES = {"type": "ephemeral"}
_STOPS: dict[str, StopReason] = {
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_full",
}
# A piece's field in each event, and its kind as a Delta.
_PIECES: dict[str, tuple[str, Any]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "input"),
}


class AnthropicProvider(Provider):
    """`Provider` of the Messages API. Raises UserError if the model does not take the effort or the budget."""

    name = "anthropic"

    def __init__(
        self,
        *,
        model: str,
        key: str | None,
        token: str | None = None,
        endpoint: str = ENDPOINT,
        effort: Effort | None = None,
        thinking_budget: int | None = None,
        timeout: float = 300.0,
    ) -> None:
        self._settings = claude.settings(model, effort, thinking_budget)
        self._budget = thinking_budget
        server = errors.Server(
            name="Anthropic's API" if endpoint == ENDPOINT else "the Messages API",
            address=endpoint,
            model=model,
            key="ANTHROPIC_API_KEY" if key else "ANTHROPIC_AUTH_TOKEN",
            timeout=timeout,
        )
        import anthropic

        # A key or token given here keeps the SDK from looking for profiles and identities on the machine.
        make = partial(anthropic.Anthropic, api_key=key, auth_token=None if key else token)
        super().__init__(anthropic, make, server)

    def _create(self, **body: Any) -> Any:
        return self._client.messages.create(**body)

    def _new_reply(self) -> StreamedReply:
        return _Message()

    def _body(self, request: Request) -> dict[str, Any]:
        tools = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.schema} for tool in request.tools
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "messages": _marked([_sent(message) for message in request.messages]),
            **self._settings,
        }
        if self._budget is not None and self._budget >= request.max_tokens:
            room = request.max_tokens - 1
            if room >= claude.MINIMUM_BUDGET:
                body["thinking"] = {**body["thinking"], "budget_tokens": room}
            else:
                del body["thinking"]
        if request.system:
            body["system"] = [{"type": "text", "text": request.system, "cache_control": _HOUR}]
        elif tools:
            tools[-1]["cache_control"] = _HOUR
        if tools:
            body["tools"] = tools
        return body


class _Message(StreamedReply):
    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[int, Block] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._model = ""
        self._stop: str | None = None
        self._detail = ""

    def take(self, event: Any) -> list[Delta]:
        if event.type == "message_start":
            self._model = event.message.model
            self.usage = _usage(event.message.usage, Usage())
        elif event.type == "content_block_start":
            block = event.content_block.to_dict()
            self._blocks[event.index] = block
            if block["type"] == "tool_use":
                return [Delta(kind="tool", text=as_text(block["name"]))]
        elif event.type == "content_block_delta":
            return self._add(event.index, event.delta)
        elif event.type == "message_delta":
            self._stop = event.delta.stop_reason
            self._detail = _detail(event.delta.stop_details)
            self.usage = _usage(event.usage, self.usage)
        elif event.type == "message_stop":
            self.complete = True
        return []

    def _add(self, index: int, delta: Any) -> list[Delta]:
        if delta.type == "signature_delta":
            self._blocks[index]["signature"] = delta.signature
        elif delta.type in _PIECES:
            field, kind = _PIECES[delta.type]
            piece = as_text(getattr(delta, field))
            self._pieces.setdefault((index, field), []).append(piece)
            if piece:
                return [Delta(kind=kind, text=piece)]
        return []

    def reply(self, model: str) -> Reply:
        for (index, field), pieces in self._pieces.items():
            whole = "".join(pieces)
            if field == "partial_json":
                self._blocks[index]["input"] = tool_input(whole)
            else:
                self._blocks[index][field] = self._blocks[index].get(field, "") + whole
        return Reply(
            content=encodable(tuple(self._blocks[index] for index in sorted(self._blocks))),
            stop_reason=_STOPS.get(self._stop or "", "end_turn"),
            usage=self.usage,
            model=self._model or model,
            detail=self._detail,
        )


def _usage(reported: Any, before: Usage) -> Usage:
    """Counts are cumulative; what an event leaves out stays as it was."""

    def count(name: str, otherwise: int) -> int:
        value = getattr(reported, name, None)
        return otherwise if value is None else int(value)

    parts = getattr(reported, "cache_creation", None)
    hour = before.cache_write_hour if parts is None else int(parts.ephemeral_1h_input_tokens)
    written = count("cache_creation_input_tokens", before.cache_write + before.cache_write_hour)
    return Usage(
        input=count("input_tokens", before.input),
        output=count("output_tokens", before.output),
        cache_read=count("cache_read_input_tokens", before.cache_read),
        cache_write=max(0, written - hour),
        cache_write_hour=hour,
    )


def _detail(details: Any) -> str:
    """Why it was refused, if the service says so."""
    said = [getattr(details, name, None) for name in ("category", "explanation")]
    return ": ".join(one_line(str(one), errors.WIDTH) for one in said if one)


def _sent(message: Message) -> Message:
    """A message as the service accepts it: without empty text, and with an object as every tool's input."""
    blocks = [block for block in message["content"] if block["type"] != "text" or block["text"].strip()]
    return {"role": message["role"], "content": [_with_object(block) for block in blocks]}


def _with_object(block: Block) -> Block:
    if block["type"] != "tool_use" or isinstance(block["input"], dict):
        return block
    # https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    return {**block, "input": {"INVALID_JSON": block["input"]}}


def _marked(messages: list[Message]) -> list[Message]:
    """With cache breakpoints at the end of the first message, of the last one, and of the user's turn before it.

    The service takes four, with the one after the system prompt, and finds a cached prefix at most twenty blocks before
    one: the turn before the last is where the previous request ended. If the first message has several blocks, the
    first of them is what conversations share; it is cached for an hour instead of the whole message.
    """
    turns = [place for place, message in enumerate(messages) if message["role"] == "user" and message["content"]]
    ends = turns[-2:]
    if turns and len(first := messages[turns[0]]["content"]) > 1:
        messages[turns[0]] = {**messages[turns[0]], "content": [{**first[0], "cache_control": _HOUR}, *first[1:]]}
    else:
        ends = [*turns[:1], *ends]
    for place in dict.fromkeys(ends):
        content = messages[place]["content"]
        messages[place] = {**messages[place], "content": [*content[:-1], {**content[-1], "cache_control": _MINUTES}]}
    return messages
