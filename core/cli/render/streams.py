"""Standard output and error that may be full or closed: the first is named once, the second is done without."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from core.records import UserError


class OutputError(UserError):
    """Standard output can't be written to. `unread`: its reader has closed it, as `head` does."""

    def __init__(self, reason: str, *, unread: bool = False) -> None:
        super().__init__(f"standard output {reason}: not all of the result was printed")
        self.unread = unread


class GuardedStream:
    """A text stream whose first failure to write raises OutputError, or nothing if it is not `needed`.

    After a failure all that is written is dropped. Everything but writing is the stream's own.
    """

    def __init__(self, stream: Any, descriptor: int, *, needed: bool) -> None:
        self._stream = stream if stream is not None else io.StringIO()
        self._descriptor, self._needed = descriptor, needed
        self._closed = stream is None
        self._error: OutputError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text."""
        if text != "":  # so click finds out what kind of stream this is
            with self._guarded():
                self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes the texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Hands what was written to the system."""
        with self._guarded():
            self._stream.flush()

    def finish(self) -> None:
        """Flushes. Raises the failure again if there was one, should someone have taken it for another's."""
        self.flush()
        if self._error is not None and self._needed:
            raise self._error

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._error is not None:
            return (yield)
        try:
            if self._closed:
                self._fail("is closed")
            yield
        except OSError as error:
            unread = isinstance(error, BrokenPipeError)
            what = "was closed by its reader" if unread else f"can't be written to ({error.strerror})"
            self._fail(what, unread=unread)

    def _fail(self, reason: str, *, unread: bool = False) -> None:
        self._error = OutputError(reason, unread=unread)
        with contextlib.suppress(OSError):  # what is buffered goes nowhere when the interpreter ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)
        if self._needed:
            raise self._error from None


def guard() -> GuardedStream:
    """Puts guards before this process's standard output, which is returned, and its standard error.

    Descriptors that are closed are opened on nothing first: else a file of a campaign would be opened as one of them,
    and what any library prints would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console whose encoding lacks a character shows ?
            stream.reconfigure(errors="replace")
    sys.stdout = output = GuardedStream(sys.stdout, 1, needed=True)
    sys.stderr = GuardedStream(sys.stderr, 2, needed=False)
    return output
