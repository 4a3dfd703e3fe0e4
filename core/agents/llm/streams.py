"""A provider: one request and its streamed answer. Both SDKs come from one generator, so that their clients and errors
have the same names.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from core.agents.llm import errors, network
from core.agents.llm.base import Delta, Outage, Reply, Request, Usage
from core.agents.llm.blocks import encodable


class StreamedReply(ABC):
    """An answer while it streams."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.begun = False  # something of it has come
        self.complete = False

    @abstractmethod
    def take(self, event: Any) -> list[Delta]:
        """Add an event of the SDK. Returns what is new in it."""

    @abstractmethod
    def reply(self, model: str) -> Reply:
        """The whole answer. `model` is the one that was asked."""


class Provider(ABC):
    """Sends requests to one kind of server through its SDK, each once; not for two threads at once.

    Retries, limits and records are the `ModelClient`'s. `make_client` is the SDK's class of clients with its keys,
    `server.timeout` the seconds without a piece of an answer after which it counts as cut off.
    """

    name: str

    def __init__(self, sdk: Any, make_client: Callable[..., Any], server: errors.Server) -> None:
        import httpx2

        self.model = server.model
        self._sdk = sdk
        self._server = server
        self._last_piece = time.monotonic()
        self._streamed: StreamedReply | None = None
        self._client = make_client(
            base_url=server.address,
            timeout=httpx2.Timeout(server.timeout, connect=min(15.0, server.timeout)),
            max_retries=0,
            http_client=network.http_client(sdk, server.address, event_hooks={"response": [self._end_if_idle]}),
        )

    @property
    def so_far(self) -> Usage:
        """The usage of the last request that the server has reported so far, for one that was cut off."""
        return Usage() if self._streamed is None else self._streamed.usage

    def close(self) -> None:
        self._client.close()

    def reply(self, request: Request, on_delta: Callable[[Delta], None]) -> Reply:
        """Stream one answer. Raises Outage if trying again may help, UserError if it can't (key, model).

        The Outage's `seconds` are those that the server asks for, else 0. A tool's input that is no JSON object is the
        text that the model wrote.
        """
        streamed = self._streamed = self._new_reply()
        try:
            with (
                errors.translated(self._sdk, self._server, lambda: streamed.begun),
                self._create(**encodable(self._body(request)), stream=True) as stream,
            ):
                for delta in _deltas(stream, streamed):
                    self._last_piece = time.monotonic()
                    on_delta(delta)
        except errors.TooLong:
            return Reply(content=(), stop_reason="context_full", usage=Usage(), model=self.model)
        if not streamed.complete:
            raise errors.cut_off(self._server, stream.response, streamed.begun)
        with _malformed_as_outage():
            return streamed.reply(self.model)

    def _end_if_idle(self, response: Any) -> None:
        """A hook for the HTTP client: reading the response raises ReadTimeout if `timeout` seconds bring no piece.

        Pings and comments reach no event of an SDK, so it checks whenever bytes come. If no bytes come, the client's
        own timeout acts.
        """
        import httpx2

        provider, inner = self, response.stream

        class Watched(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                for chunk in inner:
                    if time.monotonic() - provider._last_piece > provider._server.timeout:
                        raise httpx2.ReadTimeout("nothing but signs of life", request=response.request)
                    yield chunk

            def close(self) -> None:
                inner.close()

        self._last_piece = time.monotonic()
        response.stream = Watched()

    @abstractmethod
    def _create(self, **body: Any) -> Any:
        """The SDK's stream of the answer to a request with this body."""

    @abstractmethod
    def _body(self, request: Request) -> dict[str, Any]:
        """The request in the protocol's form."""

    @abstractmethod
    def _new_reply(self) -> StreamedReply: ...


@contextmanager
def _malformed_as_outage() -> Iterator[None]:
    """Turns the errors of a malformed event into Outage. `errors.translated` does so for one that is cut off."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (LookupError, AttributeError, TypeError, ValueError):
        raise Outage("the answer can't be read", 0.0) from None


def _deltas(events: Iterable[Any], streamed: StreamedReply) -> Iterator[Delta]:
    """The pieces in the events, as they come. Errors that the consumer of a piece raises pass through unchanged."""
    coming = iter(events)
    while True:
        with _malformed_as_outage():
            try:
                event = next(coming)
            except StopIteration:
                return
            streamed.begun = True
            found = streamed.take(event)
        yield from found


def as_text(value: Any) -> str:
    """Raises TypeError for anything but a str: the SDKs pass on what came, whatever its type."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value
