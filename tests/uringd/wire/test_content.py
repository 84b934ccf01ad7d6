from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    APART_BYTES_MIN,
    HEADER_BYTES,
    NEED_DATA,
    PUT_BYTES_MAX,
    REQUESTS_MAX,
    ConnectionClosed,
    Control,
    ErrorCode,
    FrameType,
    LocalProtocolError,
    RemoteProtocolError,
)
from uringd.wire.content import content_head, split

if TYPE_CHECKING:
    from uringd.wire import Connection

Pair = tuple["Connection", "Connection"]

LONG = random.Random(1).randbytes(APART_BYTES_MIN + 77)


def parsed(payload: bytes) -> pb.Put:
    """What a receiver makes of a payload, content and all; DecodeError as the parser's."""
    rest, content = split(payload)
    message = pb.Put.FromString(bytes(rest))
    if content is not None:
        assert not message.content
        message.content = bytes(content)
    return message


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 262_144])
def test_the_head_of_a_content_is_what_protocol_buffers_write(length: int) -> None:
    content = bytes(length)
    expected = pb.Put(name="n", content=content).SerializeToString() or content_head(0)
    written = pb.Put(name="n").SerializeToString() + content_head(length) + content
    assert pb.Put.FromString(written) == pb.Put(name="n", content=content)
    assert written == expected or not length


def test_a_content_at_the_end_is_taken_out() -> None:
    message = pb.Put(name="n", overwrite=True, keep_equal=True, content=LONG)
    rest, content = split(message.SerializeToString())
    assert content is not None and bytes(content) == LONG
    message.ClearField("content")
    assert bytes(rest) == message.SerializeToString()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        pb.Put(content=LONG).SerializeToString() + pb.Put(name="n").SerializeToString(),
        2 * pb.Put(content=LONG).SerializeToString(),
        pb.Put(name="n").SerializeToString() * 100 + pb.Put(content=LONG).SerializeToString(),
    ],
    ids=["nothing", "a name behind it", "a second one", "many fields before it"],
)
def test_what_does_not_evidently_end_with_its_content_is_the_parsers(payload: bytes) -> None:
    rest, content = split(payload)
    assert content is None and rest == payload
    assert parsed(payload) == pb.Put.FromString(payload)


@given(before=st.binary(max_size=24), after=st.binary(max_size=6), length=st.integers(0, 300))
def test_whatever_is_around_a_content_means_what_the_parser_says(
    before: bytes, after: bytes, length: int
) -> None:
    payload = before + content_head(length) + bytes(length) + after
    try:
        expected = pb.Put.FromString(payload)
    except DecodeError:
        with pytest.raises(DecodeError):
            parsed(payload)
        return
    assert parsed(payload) == expected


@pytest.mark.parametrize("content", [b"", b"short", LONG], ids=["none", "short", "long"])
@pytest.mark.parametrize("into_memory", [False, True])
def test_a_put_arrives_as_it_was_sent(
    open_pair: Pair, content: bytes, *, into_memory: bool
) -> None:
    client, server = open_pair
    message = pb.Put(name="file", overwrite=True)
    frame = client.send_put(message, content, cookie=2) + content
    server.receive_data(frame[: HEADER_BYTES + 3])
    assert server.next_event() is NEED_DATA
    if into_memory:
        memory = server.put_memory()
        assert len(memory) == server.bytes_wanted == len(frame) - HEADER_BYTES - 3
        memory[:2] = frame[HEADER_BYTES + 3 : HEADER_BYTES + 5]
        server.put_received(2)
        assert server.next_event() is NEED_DATA
        rest = server.put_memory()
        rest[:] = frame[HEADER_BYTES + 5 :]
        server.put_received(len(rest))
    else:
        server.receive_data(frame[HEADER_BYTES + 3 :])
    server.receive_data(client.send_control(FrameType.PING, pb.Ping(), cookie=3))
    event = server.next_event()
    assert isinstance(event, Control)
    assert (event.type, event.cookie, event.message.name) == (FrameType.PUT, 2, "file")
    assert event.message.overwrite and event.content == content
    second = server.next_event()
    assert isinstance(second, Control) and second.type is FrameType.PING
    assert server.next_event() is NEED_DATA


def test_a_damaged_content_is_found(open_pair: Pair) -> None:
    client, server = open_pair
    frame = client.send_put(pb.Put(name="file"), LONG, cookie=2)
    server.receive_data(frame + LONG[:-1] + bytes([LONG[-1] ^ 1]))
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    assert caught.value.code is ErrorCode.BAD_CHECKSUM


def test_an_end_in_the_middle_of_a_put_is_an_error(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_put(pb.Put(name="file"), LONG, cookie=2))
    assert server.next_event() is NEED_DATA
    server.put_memory()
    server.receive_data(b"")
    with pytest.raises(RemoteProtocolError, match="middle of a frame"):
        server.next_event()


def test_memory_of_a_put_is_not_filled_beside_or_beyond_it(open_pair: Pair) -> None:
    client, server = open_pair
    with pytest.raises(LocalProtocolError, match="awaited"):
        server.put_memory()
    server.receive_data(client.send_put(pb.Put(name="file"), LONG, cookie=2))
    assert server.next_event() is NEED_DATA
    length = len(server.put_memory())
    with pytest.raises(LocalProtocolError, match="go to its memory"):
        server.receive_data(b"x")
    with pytest.raises(LocalProtocolError, match="remain"):
        server.put_received(length + 1)


def test_a_session_that_ends_forgets_the_put_that_was_coming(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_put(pb.Put(name="file"), LONG, cookie=2))
    assert server.next_event() is NEED_DATA
    server.put_memory()
    server.send_control(FrameType.ERROR, pb.Error(code=27))  # type: ignore[arg-type]
    assert server.bytes_wanted == 0
    assert isinstance(server.next_event(), ConnectionClosed)


def test_a_put_that_may_not_be_sent_is_not(open_pair: Pair) -> None:
    client, _ = open_pair
    with pytest.raises(LocalProtocolError, match="above the limit"):
        client.send_put(pb.Put(name="file"), bytes(PUT_BYTES_MAX), cookie=1)
    for cookie in range(1, REQUESTS_MAX + 1):
        client.send_put(pb.Put(name="file"), b"x", cookie=cookie)
    with pytest.raises(LocalProtocolError, match="unanswered"):
        client.send_put(pb.Put(name="file"), b"x", cookie=REQUESTS_MAX + 1)
