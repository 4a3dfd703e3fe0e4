"""What the streams of both SDKs share: a server that only shows signs of life, and events that can't be read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from core.agents.llm.base import Delta, Outage


class Silence:
    """Ends an answer that has brought nothing for `timeout` seconds, though pings and comments arrive.

    Those reach no event of an SDK, so it looks whenever bytes come. A server that sends none is the client's to time.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._since = clock()

    def broken(self) -> None:
        """Something of the answer came."""
        self._since = self._clock()

    def watch(self, response: Any) -> None:
        """A hook for the HTTP client's responses. Their bytes raise its ReadTimeout."""
        import httpx2

        silence, inner = self, response.stream

        class Watched(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                for chunk in inner:
                    if silence._clock() - silence._since > silence._timeout:
                        raise httpx2.ReadTimeout("nothing but signs of life", request=response.request)
                    yield chunk

            def close(self) -> None:
                inner.close()

        self.broken()
        response.stream = Watched()


def client(sdk: Any, timeout: float, silence: Silence) -> dict[str, Any]:
    """What both SDKs' clients are made with: waiting is their caller's, and a server that is there answers at once."""
    import httpx2

    return {
        "timeout": httpx2.Timeout(timeout, connect=min(15.0, timeout)),
        "max_retries": 0,
        "http_client": sdk.DefaultHttpxClient(event_hooks={"response": [silence.watch]}),
    }


@contextmanager
def readable() -> Iterator[None]:
    """What goes wrong over a malformed event, as Outage. One that breaks off is left to `refusals.told`."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (LookupError, AttributeError, TypeError, ValueError):
        raise Outage("the answer can't be read", 0.0) from None


def read(events: Iterable[Any], take: Callable[[Any], list[Delta]]) -> Iterator[Delta]:
    """What `take` finds in each event, as it comes. Errors of who is handed a piece stay their own."""
    coming = iter(events)
    while True:
        with readable():
            try:
                event = next(coming)
            except StopIteration:
                return
            found = take(event)
        yield from found


def as_text(value: Any) -> str:
    """Raises TypeError for anything but a str: the SDKs hand on what came, whatever its type."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value
