"""The channel: what goes in comes out, and nothing that comes in is trusted."""

from __future__ import annotations

import io
import json
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.trial.channel import MAX_BYTES, Channel, ChannelError, ForeignChannel, NotRead

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def receiving(data: bytes) -> Channel:
    return Channel(io.BytesIO(data), io.BytesIO())


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@given(st.lists(st.dictionaries(st.text().filter(lambda key: key not in ("type", "kind")), VALUES, max_size=4)))
def test_messages_arrive_as_sent_and_in_order(contents: list[dict]) -> None:
    wire = io.BytesIO()
    sender = Channel(io.BytesIO(), wire)
    for content in contents:
        sender._writer.write(framed(json.dumps({"type": "x", **content}).encode()))
    receiver = receiving(wire.getvalue())
    assert [receiver.receive() for _ in contents] == [{"type": "x", **content} for content in contents]
    assert receiver.receive() is None


def test_send_writes_one_frame() -> None:
    wire = io.BytesIO()
    Channel(io.BytesIO(), wire).send("report", loss=1.5)
    assert receiving(wire.getvalue()).receive() == {"type": "report", "loss": 1.5}


@given(st.binary(max_size=64))
def test_any_bytes_give_a_message_an_end_or_a_channel_error(data: bytes) -> None:
    channel = receiving(data)
    try:
        message = channel.receive()
    except ChannelError:
        return
    assert message is None or isinstance(message["type"], str)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", MAX_BYTES + 1),
        framed(b"not json"),
        framed(b"[1, 2]"),
        framed(b'{"type": 3}'),
        framed(b'{"no": "type"}'),
        framed(b"[" * 100_000),
        framed(b'{"type": "x", "n": -' + b"9" * 20 + b"}"),
        b"\0\0",
        framed(b'{"type": "cut"}')[:-1],
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ChannelError):
        receiving(data).receive()


def test_an_oversized_message_is_not_sent() -> None:
    wire = io.BytesIO()
    with pytest.raises(ChannelError):
        Channel(io.BytesIO(), wire).send("x", text="a" * MAX_BYTES)
    assert wire.getvalue() == b""


def test_whole_numbers_of_64_bits_arrive_and_texts_from_a_trial_are_cleaned() -> None:
    body = json.dumps({"type": "x", "n": -(2**60), "deep": [{"a\x1b[1m": "b\x9b\u202e\nc"}]}).encode()
    message = ForeignChannel(io.BytesIO(framed(body)), io.BytesIO()).receive()
    assert message == {"type": "x", "n": -(2**60), "deep": [{"a": "b\nc"}]}
    assert receiving(framed(body)).receive() == json.loads(body)


def test_a_message_nobody_takes_is_given_up_at_the_deadline() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb") as writer:
        channel = ForeignChannel(io.BytesIO(), writer)
        begun = time.monotonic()
        with pytest.raises(NotRead, match="64 messages wait to be read"):
            for _ in range(4000):
                channel.post("batch", begun + 0.3, array="x" * 100, progress=0.5)
        assert 0.2 < time.monotonic() - begun < 5
        reader.close()
        channel.close()
        assert channel.broken
