"""A loopback server that speaks as much of the Hugging Face Hub as a download needs. Imported as `hub_server`."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from loopback import Server

REVISION = "5" * 40


@dataclass
class HubServer:
    """What is served, how it misbehaves, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)  # "owner/dataset/name" -> content
    checksums: dict[str, str] = field(default_factory=dict)  # other SHA-256 than the content has
    stall_at: int | None = None  # bytes after which a response neither goes on nor ends
    cut_at: int | None = None  # bytes after which the connection closes, once
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, file, Range
    address: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving() -> Iterator[HubServer]:
    """A server on a port of its own, until the block ends."""
    served = HubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            _, _, owner, dataset, _, _, *rest = self.path.split("/")
            name = f"{owner}/{dataset}/{'/'.join(rest)}"
            asked_range = self.headers.get("Range")
            served.asked.append((self.command, name, asked_range))
            content = served.files.get(name)
            if content is None:
                self.send_response(HTTPStatus.NOT_FOUND)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked_range.removeprefix("bytes=").removesuffix("-")) if asked_range else 0
            checksum = served.checksums.get(name, hashlib.sha256(content).hexdigest())
            self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("X-Linked-Etag", f'"{checksum}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if body:
                self.send(content[start:])

        def send(self, content: bytes) -> None:
            if served.stall_at is not None:
                self.wfile.write(content[: served.stall_at])
                self.wfile.flush()
                served.ended.wait(30)
                self.close_connection = True
            elif served.cut_at is not None:
                content, served.cut_at = content[: served.cut_at], None
                self.wfile.write(content)
                self.close_connection = True
            else:
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
