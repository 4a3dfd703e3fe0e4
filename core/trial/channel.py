"""The channel between supervisor and trial: length-prefixed JSON over a pair of pipes.

Nothing that comes in is trusted: not its size, not its form, not its numbers, not its text. Arrays travel beside it, in
files (`shared_arrays.py`).
"""

from __future__ import annotations

import contextlib
import json
import queue
import struct
import threading
import time
from typing import IO, Any

from core.system.text import clean

Message = dict[str, Any]

MAX_BYTES = 1 << 20
MAX_DIGITS = 19  # of a whole number: about 64 bits, well within a float's range
WAITING_FRAMES = 64  # sent and not yet taken by the pipe
_LENGTH = struct.Struct(">I")


class ChannelError(Exception):
    """What came over the channel, or was to be sent, is no message."""


class NotRead(Exception):
    """The other side reads nothing, so a message could not be sent in time."""


class Channel:
    """Sends and receives messages: JSON objects with a string under "type". One reader, one writer.

    Both streams are buffered ones. Both calls block.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: str, **content: Any) -> None:
        """Sends one message. OSError when the other side is gone."""
        self._write(encode(kind, content))

    def receive(self) -> Message | None:
        """The next message; None when the other side has closed. ChannelError for anything else."""
        head = self._reader.read(_LENGTH.size)
        if not head:
            return None
        (length,) = _LENGTH.unpack(_whole(head, _LENGTH.size))
        if length > MAX_BYTES:
            raise ChannelError(f"a message of {length} bytes is over the limit of {MAX_BYTES}")
        return decode(_whole(self._reader.read(length), length))

    def close(self) -> None:
        """Closes both directions; a reader blocked on the other side sees the end."""
        for stream in (self._writer, self._reader):
            with contextlib.suppress(OSError):
                stream.close()

    def _write(self, frame: bytes) -> None:
        self._writer.write(frame)
        self._writer.flush()


class ForeignChannel(Channel):
    """The supervisor's end. Texts that come in are cleaned, and a trial that reads nothing delays nobody for ever.

    A thread writes, so that `post` waits only for room among `WAITING_FRAMES` messages, and no longer than it is told.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        super().__init__(reader, writer)
        self._frames: queue.Queue[bytes | None] = queue.Queue(WAITING_FRAMES)
        self.broken = False  # the other side is gone: what is posted from then on is dropped
        self._thread = threading.Thread(target=self._write_frames, daemon=True)
        self._thread.start()

    def post(self, kind: str, deadline: float, **content: Any) -> None:
        """Has a message sent. NotRead if there is no room for it by `deadline` (monotonic seconds)."""
        frame = encode(kind, content)
        wait = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        try:
            self._frames.put(frame, timeout=wait)
        except queue.Full:
            raise NotRead(f"{WAITING_FRAMES} messages wait to be read") from None

    def receive(self) -> Message | None:
        try:
            message = super().receive()
            return None if message is None else _cleaned(message)
        except RecursionError as error:
            raise ChannelError("a message is nested too deep") from error

    def close(self) -> None:
        """Closes both directions. Only when the other side has ended, or the writing thread could hold it up."""
        with contextlib.suppress(queue.Full):
            self._frames.put(None, timeout=10)
            self._thread.join(10)
        super().close()

    def _write_frames(self) -> None:
        while (frame := self._frames.get()) is not None:
            if not self.broken:
                try:
                    self._write(frame)
                except (OSError, ValueError):
                    self.broken = True


def encode(kind: str, content: Message) -> bytes:
    """One message as it goes over the pipe. ChannelError if it is over the limit."""
    body = json.dumps({"type": kind, **content}).encode()
    if len(body) > MAX_BYTES:
        raise ChannelError(f"a message of {len(body)} bytes is over the limit of {MAX_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """The message in a frame's body. ChannelError for what is none, or has a whole number of more than 19 digits."""
    try:
        message = json.loads(body, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise ChannelError("a message is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ChannelError('a message is not an object with a "type"')
    return message


def _whole_number(digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > MAX_DIGITS:
        raise ChannelError(f"a message has a whole number of {count} digits")
    return int(digits)


def _cleaned(value: Any) -> Any:
    """JSON with every text in it cleaned, names too."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(one) for name, one in value.items()}
    return value


def _whole(part: bytes, count: int) -> bytes:
    """What a buffered reader gave; it gives less than it was asked for only at the end."""
    if len(part) < count:
        raise ChannelError("the channel closed within a message")
    return part
