"""Ctrl-C and other signals. First signal: graceful stop. Second: a message only. Third: immediate exit.

SIGTERM and a closed terminal (SIGHUP; on Windows Ctrl-Break and a closed console) act as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # no platform has all

_Handler = Callable[[int, FrameType | None], object]


class Signalled(KeyboardInterrupt):
    """Raised in the main thread when a signal comes. `signum` is its number."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


@contextlib.contextmanager
def graceful_shutdown(on_second: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A block in which the first signal raises Signalled, the second only calls `on_second`, later ones raise again.

    Signals that were ignored stay ignored: under nohup a closed terminal ends nothing. Does nothing in threads other
    than the main one, where Python gets no signals.
    """
    count = 0

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 2:
            on_second()
        else:
            raise Signalled(signum)

    with _handling(handle, signal.default_int_handler, signal.SIG_DFL):
        yield


def ignore_signals() -> None:
    """Ignores all signals from now on. Call it when the work has ended and the interpreter is about to exit."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """A block, or a decorated function, in which signals wait: the first that came is handled at the end."""
    waiting: list[int] = []
    before: dict[int, _Handler] = {}
    try:
        with _handling(lambda signum, frame: waiting.append(signum)) as before:
            yield
    finally:
        if waiting:
            before[waiting[0]](waiting[0], None)


@contextlib.contextmanager
def _handling(handler: _Handler, *only: object) -> Iterator[dict[int, Any]]:
    """A block in which `handler` replaces the handlers that are Python functions, or those in `only`.

    Yields the replaced handlers by signal.
    """
    replaced: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                old = signal.getsignal(signum)
                if old in only if only else callable(old):
                    replaced[signum] = old
                    signal.signal(signum, handler)
        yield replaced
    finally:
        for signum, old in reversed(replaced.items()):
            signal.signal(signum, old)
