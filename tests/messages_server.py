"""A loopback server that speaks the Messages API as a stream. Imported as `messages_server`.

It checks what comes in as the service does, counts tokens with a cache of prefixes, keeps its own account of what it
billed, and misbehaves when told to. What it answers is a function's choice, so that a test can script a model.
"""

import http.server
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from loopback import Server
from messages_rules import Refused, boundaries, check, signature

Request = dict[str, Any]
Block = dict[str, Any]
KEY = "sk-ant-test-7f3a9c51e0d24b68"  # what the server takes for a key; a test looks for it in files
MINIMUM = 512  # tokens of the shortest prefix that is cached
LOOK_BACK = 20  # blocks before a breakpoint in which a cached prefix is found


@dataclass(frozen=True)
class Answer:
    """What one request gets. Blocks alone are a good answer; the rest says how it goes wrong."""

    blocks: tuple[Block, ...] = ()
    stop_reason: str | None = None  # found from the blocks if None
    stop_details: dict[str, Any] | None = None
    status: int = 200
    error: str = "api_error"  # the type of a status other than 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # events, after which the connection ends in the middle of the next one
    end_after: int | None = None  # events, after which the stream ends as if it were whole
    error_after: tuple[int, str] | None = None  # events, and the type of the error event that follows them
    pause: float = 0.0  # seconds before each event
    pings_after: int | None = None  # events, after which nothing but pings comes, 20 a second, for 5 s
    instead: Mapping[int, str] = field(default_factory=dict)  # the data of events, by number, as no service sends it
    page: str = ""  # of HTML, as a server of another kind gives
    stall: bool = False  # neither answers nor closes, until the server stops


def text(what: str) -> Block:
    return {"type": "text", "text": what}


def thinking(what: str) -> Block:
    return {"type": "thinking", "thinking": what}


def tool(name: str, arguments: Any) -> Block:
    """A call of a tool. Arguments that are a str are streamed as they are: malformed JSON."""
    return {"type": "tool_use", "name": name, "input": arguments}


def rate_limited(retry_after: float | None = None) -> Answer:
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return Answer(status=429, error="rate_limit_error", headers=headers)


def overloaded() -> Answer:
    return Answer(status=529, error="overloaded_error")


def server_error(status: int = 500) -> Answer:
    return Answer(status=status, error="api_error")


def cut(*blocks: Block, after: int = 4) -> Answer:
    return Answer(blocks=blocks or (text("This will be cut off in the middle of a sentence. " * 20),), cut_after=after)


def overloaded_in_stream(*blocks: Block, after: int = 4) -> Answer:
    return Answer(blocks=blocks or (text("The server gives up soon. " * 20),), error_after=(after, "overloaded_error"))


def refusal(category: str = "frontier_llm") -> Answer:
    details = {"type": "refusal", "category": category, "explanation": None}
    return Answer(stop_reason="refusal", stop_details=details)


def out_of_tokens(*blocks: Block) -> Answer:
    return Answer(blocks=blocks or (text("and so on and"),), stop_reason="max_tokens")


def context_full() -> Answer:
    return Answer(blocks=(text("no room"),), stop_reason="model_context_window_exceeded")


Script = Callable[[Request], "list[Block] | Answer"]


@dataclass
class MessagesServer:
    """What is answered, and what was asked and billed. Requests are numbered from 0, refused ones too."""

    answer: Script
    faults: dict[int, Answer] = field(default_factory=dict)  # by number; these requests never reach `answer`
    key: str = KEY
    models: frozenset[str] | None = None  # that it serves; None for any
    piece: int = 60  # characters of a delta
    requests: list[Request] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # why, of each request that got a 400
    billed: list[dict[str, int]] = field(default_factory=list)  # the usage of each answer that was begun
    port: int = 0
    _cached: set[str] = field(default_factory=set)
    _issued: dict[str, list[str]] = field(default_factory=dict)  # tool call -> signatures of the thinking before it
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _connections: set[socket.socket] = field(default_factory=set)
    _server: Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens; after `stop` on the same port."""
        self._stopping.clear()
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """From now on nobody can connect, and the connections that are open break off."""
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Empties the cache, as five minutes do."""
        self._cached.clear()

    def decide(self, body: bytes, headers: Message) -> tuple[Answer, Request]:
        with self._lock:
            number = len(self.requests)
            request = json.loads(body)
            self.requests.append(request)
            try:
                check(
                    request,
                    {name.lower(): value for name, value in headers.items()},
                    self.key,
                    self.models,
                    self._issued,
                )
            except Refused as refused:
                self.refused.append(str(refused))
                return Answer(blocks=(text(str(refused)),), status=refused.status, error=refused.kind), request
        if number in self.faults:
            return self.faults[number], request
        answered = self.answer(request)
        return answered if isinstance(answered, Answer) else Answer(blocks=tuple(answered)), request

    def bill(self, request: Request) -> dict[str, int]:
        """Input, by what of it is in the cache; what it marks is cached from now on."""
        places = boundaries(request)
        marked = [at for at, place in enumerate(places) if place.ttl and place.tokens >= MINIMUM]
        read = 0
        for at in marked:
            for place in places[max(0, at - LOOK_BACK) : at + 1]:
                if place.digest in self._cached:
                    read = max(read, place.tokens)
        last = max((places[at].tokens for at in marked), default=0)
        hour = max((places[at].tokens for at in marked if places[at].ttl == "1h"), default=0)
        self._cached.update(places[at].digest for at in marked)
        return {
            "input_tokens": places[-1].tokens - last,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": last - read,
            "ephemeral_1h_input_tokens": max(0, hour - read),
            "output_tokens": 1,
        }

    def sign(self, request: Request, blocks: tuple[Block, ...]) -> list[Block]:
        """The blocks with what the service adds: identities of calls, signatures of thinking."""
        signed: list[Block] = []
        for place, told in enumerate(blocks):
            block = dict(told)
            if block["type"] == "tool_use":
                block.setdefault("id", f"toolu_{len(self.requests):05d}_{place}")
                self._issued[block["id"]] = [one["signature"] for one in signed if one["type"] == "thinking"]
            elif block["type"] == "thinking":
                block["signature"] = signature(request, block["thinking"])
            signed.append(block)
        return signed

    def events(self, answer: Answer, request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._lock:
            usage = self.bill(request)
            blocks = self.sign(request, answer.blocks)
            self.billed.append(usage)
        hour = usage["ephemeral_1h_input_tokens"]
        creation = {
            "ephemeral_5m_input_tokens": usage["cache_creation_input_tokens"] - hour,
            "ephemeral_1h_input_tokens": hour,
        }
        message = {
            "id": f"msg_{len(self.requests):05d}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**plain_usage(usage), "cache_creation": creation, "service_tier": "standard"},
        }
        yield "message_start", {"message": message}
        yield "ping", {}
        written = 0  # characters
        for index, block in enumerate(blocks):
            empty, deltas = pieces(block, self.piece)
            yield "content_block_start", {"index": index, "content_block": empty}
            for delta in deltas:
                yield "content_block_delta", {"index": index, "delta": delta}
                # What was sent is billed, whether or not it is ever told.
                written += sum(len(value) for name, value in delta.items() if name not in {"type", "signature"})
                usage["output_tokens"] = 1 + math.ceil(written / 4)
            yield "content_block_stop", {"index": index}
        called = any(block["type"] == "tool_use" for block in blocks)
        reason = answer.stop_reason or ("tool_use" if called else "end_turn")
        end: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None, "stop_details": answer.stop_details}
        yield "message_delta", {"delta": end, "usage": {"output_tokens": usage["output_tokens"]}}
        yield "message_stop", {}


def plain_usage(usage: dict[str, int]) -> dict[str, int]:
    return {name: tokens for name, tokens in usage.items() if not name.startswith("ephemeral")}


def pieces(block: Block, size: int) -> tuple[Block, list[dict[str, str]]]:
    """How a block is streamed: what it starts as, and its deltas."""

    def split(whole: str, kind: str, name: str) -> list[dict[str, str]]:
        return [{"type": kind, name: whole[at : at + size]} for at in range(0, len(whole), size)]

    if block["type"] == "text":
        return {"type": "text", "text": ""}, split(block["text"], "text_delta", "text")
    if block["type"] == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = split(block["thinking"], "thinking_delta", "thinking")
        return start, [*deltas, {"type": "signature_delta", "signature": block["signature"]}]
    if block["type"] == "tool_use":
        raw = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
        call = {"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}
        return call, [
            {"type": "input_json_delta", "partial_json": ""},
            *split(raw, "input_json_delta", "partial_json"),
        ]
    return block, []  # such as redacted_thinking, which comes whole


class _Server(Server):
    def __init__(self, address: tuple[str, int], served: MessagesServer) -> None:
        self.served = served
        super().__init__(address, _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.served._connections.add(self.connection)

    def finish(self) -> None:
        self.server.served._connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        served = self.server.served
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.partition("?")[0] != "/v1/messages":
            self.fail(404, "not_found_error", f"no such path: {self.path}", {})
            return
        answer, request = served.decide(body, self.headers)
        if answer.stall:
            served._stopping.wait(60)
            self.close_connection = True
            return
        if answer.status != 200:
            why = answer.blocks[0]["text"] if answer.blocks else answer.error.replace("_", " ")
            self.fail(answer.status, answer.error, why, answer.headers)
            return
        self.send_response(200)
        if answer.page:
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(answer.page)))
            self.end_headers()
            self.wfile.write(answer.page.encode("ascii"))
            return
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("request-id", f"req_{len(served.requests):05d}")
        self.end_headers()
        for number, (name, event) in enumerate(served.events(answer, request)):
            if answer.pause and served._stopping.wait(answer.pause):
                self.close_connection = True
                return
            last = name == "message_stop"  # what is to break off does so, however short it is
            if answer.cut_after is not None and (last or number >= answer.cut_after):
                self.send(f'event: {name}\ndata: {{"type":"{name}","ind')
                self.close_connection = True
                return
            if answer.error_after is not None and (last or number >= answer.error_after[0]):
                error = {"type": "error", "error": {"type": answer.error_after[1], "message": "Overloaded"}}
                self.send(f"event: error\ndata: {json.dumps(error)}\n\n")
                break
            if answer.end_after is not None and (last or number >= answer.end_after):
                break
            if answer.pings_after is not None and number >= answer.pings_after:
                for _ in range(100):
                    self.send('event: ping\ndata: {"type": "ping"}\n\n')
                    if served._stopping.wait(0.05):
                        break
                self.close_connection = True
                return
            data = answer.instead.get(number) or json.dumps({"type": name, **event})
            self.send(f"event: {name}\ndata: {data}\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def send(self, what: str) -> None:
        chunk = what.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.flush()

    def fail(self, status: int, kind: str, message: str, headers: Mapping[str, str]) -> None:
        body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(answer: Script, **settings: Any) -> Iterator[MessagesServer]:
    """A server on a port of its own, until the block ends. `settings` are the fields of MessagesServer."""
    served = MessagesServer(answer, **settings)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """For what another thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
