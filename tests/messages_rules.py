"""What the Messages API refuses, and how its prompt becomes tokens and prefixes. Imported as `messages_rules`.

The rules are those of platform.claude.com's pages on tool use, thinking, effort and prompt caching in November 2026.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    def __init__(self, why: str, status: int = 400, kind: str = "invalid_request_error") -> None:
        super().__init__(why)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Boundary:
    """The prompt up to the end of one block."""

    digest: str
    tokens: int
    ttl: str  # of its cache_control; empty without one


def plain(value: Any) -> Any:
    """Without the marks of the cache, which are no part of the prompt; text alone as a block."""
    value = copy.deepcopy(value)
    if isinstance(value, dict):
        value.pop("cache_control", None)
    return value


def blocks_of(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def ttl_of(block: Mapping[str, Any]) -> str:
    mark = block.get("cache_control")
    return "" if mark is None else mark.get("ttl", "5m")


def boundaries(request: Mapping[str, Any]) -> list[Boundary]:
    """Of every block in the order of the prompt: tools, system, messages. A token is four characters."""
    parts = [("tool", tool) for tool in request.get("tools", ())]
    parts += [("system", block) for block in blocks_of(request.get("system", []))]
    for message in request["messages"]:
        parts += [(message["role"], block) for block in blocks_of(message["content"])]
    found, digest, tokens = [], hashlib.sha256(request["model"].encode()), 0
    for role, block in parts:
        written = json.dumps([role, plain(block)], sort_keys=True)
        digest.update(written.encode())
        tokens += math.ceil(len(written) / 4)
        found.append(Boundary(digest.hexdigest(), tokens, ttl_of(block)))
    return found


def signature(request: Mapping[str, Any], thinking: str, messages: Any = None) -> str:
    """Binds a thinking block to its text, its model and the conversation before it."""
    before = merged(request["messages"] if messages is None else messages)
    turns = [[message["role"], [plain(block) for block in message["content"]]] for message in before]
    system = [plain(block) for block in blocks_of(request.get("system", []))]
    whole = json.dumps([request["model"], system, turns, thinking], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def check(
    request: Mapping[str, Any],
    headers: Mapping[str, str],
    key: str,
    models: frozenset[str] | None,
    issued: Mapping[str, list[str]],
) -> None:
    """Raises Refused as the service would. `issued`: the thinking that came before each call of a tool."""
    given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if given != key:
        raise Refused("invalid x-api-key", 401, "authentication_error")
    if not headers.get("anthropic-version"):
        raise Refused("anthropic-version: header is required")
    if models is not None and request["model"] not in models:
        raise Refused(f"model: {request['model']}", 404, "not_found_error")
    if not isinstance(request.get("max_tokens"), int) or request["max_tokens"] < 1:
        raise Refused("max_tokens: must be greater than or equal to 1")
    if request.get("stream") is not True:
        raise Refused("stream: this server only streams")
    unknown = set(request) - {
        "model",
        "max_tokens",
        "messages",
        "system",
        "tools",
        "stream",
        "thinking",
        "output_config",
    }
    if unknown:
        raise Refused(f"{min(unknown)}: Extra inputs are not permitted")
    marks = [place.ttl for place in boundaries(request) if place.ttl]
    if len(marks) > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    if marks != sorted(marks):  # "1h" sorts before "5m"
        raise Refused("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")
    check_thinking(request)
    check_messages(request, issued)


def check_thinking(request: Mapping[str, Any]) -> None:
    thinking, effort = request.get("thinking") or {}, (request.get("output_config") or {}).get("effort")
    version = re.fullmatch(r"claude-(fable|mythos|opus|sonnet|haiku)-(\d+)(?:-(\d))?(?:-\d{8})?", request["model"])
    if version is None:
        return
    family, number = version[1], (int(version[2]), int(version[3] or 0))
    if thinking.get("type") == "enabled":
        if number >= (4, 7):
            raise Refused('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive"')
        if not 1024 <= thinking["budget_tokens"] < request["max_tokens"]:
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`, which must be 1024 or more")
    if thinking.get("type") == "adaptive" and number < (4, 6):
        raise Refused("adaptive thinking is not supported on this model")
    levels = ["low", "medium", "high"]
    levels += ["max"] * (number >= (4, 6)) + ["xhigh"] * (number >= (4, 7))
    none = number < (4, 6) and (family, number) != ("opus", (4, 5))
    if effort is not None and (none or effort not in levels):
        raise Refused(f"output_config.effort: {effort} is not supported on this model")


def check_messages(request: Mapping[str, Any], issued: Mapping[str, list[str]]) -> None:
    messages = merged(request["messages"])
    if not messages or messages[0]["role"] != "user":
        raise Refused("messages: first message must use the user role")
    if messages[-1]["role"] != "user":
        raise Refused(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    for place, message in enumerate(messages):
        if not message["content"]:
            raise Refused(f"messages.{place}: all messages must have non-empty content")
        calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        following = messages[place + 1]["content"] if place + 1 < len(messages) else []
        answered = []
        for block in following:
            if block["type"] != "tool_result":
                break
            answered.append(block["tool_use_id"])
        if missing := [call for call in calls if call not in answered]:
            raise Refused(f"messages.{place}: `tool_use` ids were found without `tool_result` blocks: {missing[0]}")
        if place + 1 < len(messages):
            results = [block["tool_use_id"] for block in following if block["type"] == "tool_result"]
            if strange := [one for one in results if one not in calls] or len(set(results)) < len(results):
                raise Refused(f"messages.{place + 1}: unexpected `tool_use_id` in `tool_result` blocks: {strange}")
        check_blocks(request, messages, place)
    if any(block["type"] == "tool_result" for block in messages[0]["content"]):
        raise Refused("messages.0: `tool_result` block without `tool_use`")
    check_returned(messages, issued)


def check_blocks(request: Mapping[str, Any], messages: list[dict[str, Any]], place: int) -> None:
    for block in messages[place]["content"]:
        if block["type"] == "text" and not block["text"].strip():
            raise Refused(f"messages.{place}: text content blocks must be non-empty")
        if block["type"] == "tool_use" and not isinstance(block["input"], dict):
            raise Refused(f"messages.{place}: tool_use.input: Input should be a valid dictionary")
        if block["type"] in {"tool_use", "thinking"} and messages[place]["role"] != "assistant":
            raise Refused(f"messages.{place}: {block['type']} can only be in an assistant's message")
        if block["type"] == "thinking" and block.get("signature") != signature(
            request, block["thinking"], messages[:place]
        ):
            raise Refused(
                f"messages.{place}: Invalid `signature` in `thinking` block: it or what came before was changed"
            )


def check_returned(messages: list[dict[str, Any]], issued: Mapping[str, list[str]]) -> None:
    """While a tool's result is handed in, the thinking that led to the call has to be there."""
    if len(messages) < 2:
        return
    content = messages[-2]["content"]
    there = [block.get("signature") for block in content if block["type"] == "thinking"]
    for block in content:
        if block["type"] == "tool_use" and any(one not in there for one in issued.get(block["id"], [])):
            raise Refused(f"messages.{len(messages) - 2}: thinking blocks must be passed back with their tool calls")


def merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns of one role in a row are one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] not in {"user", "assistant"}:
            raise Refused(f"messages: unexpected role {message['role']}")
        content = list(blocks_of(message["content"]))
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {"role": message["role"], "content": turns[-1]["content"] + content}
        else:
            turns.append({"role": message["role"], "content": content})
    return turns
