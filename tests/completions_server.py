"""A loopback server that speaks chat completions as a stream. Imported as `completions_server`.

Smaller than `messages_server`: it checks the order of turns, counts tokens, and misbehaves when told to.
"""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import Server

Request = dict[str, Any]


@dataclass(frozen=True)
class Completion:
    """What one request gets: pieces of reasoning and text, calls as (name, arguments in JSON), and what goes wrong."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    finish: str | None = "stop"
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # chunks
    error_after: int | None = None  # chunks, followed by one with an error in it
    comments_after: int | None = None  # chunks, after which nothing but comments comes, 20 a second, for 5 s
    instead: dict[int, str] = field(default_factory=dict)  # the data of chunks, by number, as no service sends it
    usage: bool = True
    one_number: bool = False  # every call whole and numbered 0


@dataclass
class CompletionsServer:
    answer: Callable[[Request], Completion]
    faults: dict[int, Completion] = field(default_factory=dict)
    key: str | None = None  # that it asks for
    cached: int = 0  # prompt tokens that it says were read from a cache
    requests: list[Request] = field(default_factory=list)
    billed: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    url: str = ""

    def chunks(self, request: Request, answer: Completion) -> Iterator[dict[str, Any]]:
        def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
            return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}

        yield delta(role="assistant", content="")
        for at in range(0, len(answer.reasoning), 20):
            yield delta(reasoning_content=answer.reasoning[at : at + 20])
        for at in range(0, len(answer.text), 20):
            yield delta(content=answer.text[at : at + 20])
        if answer.refusal:
            yield delta(refusal=answer.refusal)
        for number, (name, arguments) in enumerate(answer.calls):
            identity = f"call_{len(self.requests)}_{number}"
            if answer.one_number:
                whole = {"name": name, "arguments": arguments}
                yield delta(tool_calls=[{"index": 0, "id": identity, "type": "function", "function": whole}])
                continue
            start = {"name": name, "arguments": ""}
            yield delta(tool_calls=[{"index": number, "id": identity, "type": "function", "function": start}])
            for at in range(0, len(arguments), 20):
                yield delta(tool_calls=[{"index": number, "function": {"arguments": arguments[at : at + 20]}}])
        if answer.finish is not None:
            yield delta(answer.finish)
        if answer.usage:
            prompt = len(json.dumps(request["messages"])) // 4
            written = sum(len(one) for one in (answer.text, answer.reasoning, *(call[1] for call in answer.calls))) // 4
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": written,
                "total_tokens": prompt + written,
                "prompt_tokens_details": {"cached_tokens": self.cached},
                "completion_tokens_details": {"reasoning_tokens": len(answer.reasoning) // 4},
            }
            self.billed.append(usage)
            yield {"choices": [], "usage": usage}


def wrong(request: Request) -> str:
    """Why the request's turns are out of order; empty if they are not."""
    open_calls: list[str] = []
    for turn in request["messages"]:
        if turn["role"] == "tool":
            if turn["tool_call_id"] not in open_calls:
                return "a tool's answer without its call"
            open_calls.remove(turn["tool_call_id"])
            continue
        if open_calls:
            return "a call without its answer"
        for call in turn.get("tool_calls") or ():
            open_calls.append(call["id"])
            if not isinstance(call["function"]["arguments"], str):
                return "arguments are a text"
    return "a call without its answer" if open_calls else ""


@contextmanager
def serving(answer: Callable[[Request], Completion], **settings: Any) -> Iterator[CompletionsServer]:
    """A server on a port of its own, until the block ends."""
    served = CompletionsServer(answer, **settings)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = len(served.requests)
            served.requests.append(request)
            if served.key is not None and self.headers["Authorization"] != f"Bearer {served.key}":
                self.fail(Completion(status=401, error={"message": "Incorrect API key", "code": "invalid_api_key"}))
                return
            if why := wrong(request):
                served.refused.append(why)
                self.fail(Completion(status=400, error={"message": why}))
                return
            told = served.faults.get(number) or served.answer(request)
            if told.status != 200:
                self.fail(told)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for place, chunk in enumerate(served.chunks(request, told)):
                if told.cut_after is not None and place >= told.cut_after:
                    return
                if told.error_after is not None and place >= told.error_after:
                    self.send({"error": {"message": "the worker died", "type": "server_error", "code": None}})
                    return
                if told.comments_after is not None and place >= told.comments_after:
                    for _ in range(100):
                        self.wfile.write(b": at work\n\n")
                        time.sleep(0.05)
                    return
                whole = {"id": "one", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
                self.put(told.instead.get(place) or json.dumps({**whole, **chunk}))
            self.wfile.write(b"data: [DONE]\n\n")

        def send(self, chunk: dict[str, Any]) -> None:
            self.put(json.dumps(chunk))

        def put(self, data: str) -> None:
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()

        def fail(self, told: Completion) -> None:
            body = json.dumps({"error": told.error or {"message": "failed", "type": "server_error"}}).encode()
            self.send_response(told.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
