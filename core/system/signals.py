"""Ctrl-C and its kin: a first one ends the work in order, a second one can't disturb that, a third one can.

SIGTERM and a closed terminal (SIGHUP; on Windows Ctrl-Break and a closed console) end it as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Those that the platform has.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

_Handler = Callable[[int, FrameType | None], object]


class Ended(KeyboardInterrupt):
    """What a signal raises in the main thread. `signum` says which it was."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


@contextlib.contextmanager
def orderly(on_second: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it the first signal raises Ended, the second only calls `on_second`, and each later one raises again.

    A signal that was ignored stays so: under nohup a closed terminal ends nothing. In other threads than the main one,
    where Python hears no signals, it does nothing.
    """
    seen = 0

    def hear(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            on_second()
        else:
            raise Ended(signum)

    with _heard(hear, signal.default_int_handler, signal.SIG_DFL):
        yield


def ignored() -> None:
    """From here on signals change nothing: the work has ended in order, and the interpreter is on its way out."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it, or in a function that it decorates, a signal that would raise waits until the end."""
    waiting: list[int] = []
    before: dict[int, _Handler] = {}
    try:
        with _heard(lambda signum, frame: waiting.append(signum)) as before:
            yield
    finally:
        if waiting:
            before[waiting[0]](waiting[0], None)


@contextlib.contextmanager
def _heard(handler: _Handler, *only: object) -> Iterator[dict[int, _Handler]]:
    """Sets the handler in place of Python functions (or of those in `only`); what was there, by signal."""
    before: dict[int, _Handler] = {}
    restored: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                old = signal.getsignal(signum)
                if old in only if only else callable(old):
                    restored[signum] = old
                    if callable(old):
                        before[signum] = old
                    signal.signal(signum, handler)
        yield before
    finally:
        for signum, old in reversed(restored.items()):
            signal.signal(signum, old)
