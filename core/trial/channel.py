"""The channel between supervisor and trial: length-prefixed JSON over a pair of pipes.

Nothing that comes in is trusted: not its size, not its form. Arrays travel beside it, in files (`shared_arrays.py`).
"""

from __future__ import annotations

import contextlib
import json
import struct
from typing import IO, Any

Message = dict[str, Any]

MAX_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")


class ChannelError(Exception):
    """What came over the channel, or was to be sent, is no message."""


class Channel:
    """Sends and receives messages: JSON objects with a string under "type". Blocking; one reader, one writer.

    Both streams are buffered ones.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: str, **content: Any) -> None:
        """Sends one message. OSError when the other side is gone."""
        body = json.dumps({"type": kind, **content}).encode()
        if len(body) > MAX_BYTES:
            raise ChannelError(f"a message of {len(body)} bytes is over the limit of {MAX_BYTES}")
        self._writer.write(_LENGTH.pack(len(body)) + body)
        self._writer.flush()

    def receive(self) -> Message | None:
        """The next message; None when the other side has closed. ChannelError for anything else."""
        head = self._reader.read(_LENGTH.size)
        if not head:
            return None
        (length,) = _LENGTH.unpack(_whole(head, _LENGTH.size))
        if length > MAX_BYTES:
            raise ChannelError(f"a message of {length} bytes is over the limit of {MAX_BYTES}")
        body = _whole(self._reader.read(length), length)
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ChannelError("a message is not JSON") from error
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ChannelError('a message is not an object with a "type"')
        return message

    def close(self) -> None:
        """Closes both directions; a reader blocked on the other side sees the end."""
        for stream in (self._writer, self._reader):
            with contextlib.suppress(OSError):
                stream.close()


def _whole(part: bytes, count: int) -> bytes:
    """What a buffered reader gave; it gives less than it was asked for only at the end."""
    if len(part) < count:
        raise ChannelError("the channel closed within a message")
    return part
