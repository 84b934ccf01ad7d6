"""A PUT's payload, received into memory that the caller brings."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    HEADER_BYTES,
    NAME_BYTES_MAX,
    NEED_DATA,
    Control,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    crc32c,
)
from uringd.wire.codes import Flag
from uringd.wire.content import HEAD_BYTES, content_head
from uringd.wire.header import Header, encode_header

if TYPE_CHECKING:
    from uringd.wire import Connection

Pair = tuple["Connection", "Connection"]

LONG = random.Random(2).randbytes(100_000)


def received(server: Connection, payload: bytes, memory: memoryview, piece: int) -> Control:
    """Give the payload to the server as a receiver does: its head, then its content in pieces."""
    head = server.put_head_wanted
    assert 0 < head <= HEAD_BYTES
    server.receive_data(payload[:head])
    rest = payload[head:]
    while rest:
        assert server.next_event() is NEED_DATA
        assert server.put_head_wanted == 0
        view = server.put_memory(memory)
        count = min(piece, len(view), len(rest))
        view[:count] = rest[:count]
        server.put_received(count)
        rest = rest[count:]
    event = server.next_event()
    assert isinstance(event, Control)
    return event


def await_put(server: Connection, header: bytes) -> None:
    server.receive_data(header)
    assert server.next_event() is NEED_DATA


@pytest.mark.parametrize("name", ["n", "x" * 200 + "/" + "y" * 200, "d/" * 510 + "f"])
@pytest.mark.parametrize("piece", [1_000_000, 4096, 777])
def test_the_content_begins_where_the_memory_does(open_pair: Pair, name: str, piece: int) -> None:
    assert len(name) <= NAME_BYTES_MAX
    client, server = open_pair
    frame = client.send_put(pb.Put(name=name, overwrite=True), LONG, cookie=2) + LONG
    memory = memoryview(bytearray(b"\xff" * (len(LONG) + 100)))
    await_put(server, frame[:HEADER_BYTES])
    event = received(server, frame[HEADER_BYTES:], memory, piece)
    assert (event.type, event.message.name, event.message.overwrite) == (FrameType.PUT, name, True)
    assert memory[: len(LONG)] == LONG == event.content
    assert memory[len(LONG) :] == b"\xff" * 100, "nothing is written behind it"
    assert event.content_crc32c == crc32c(LONG)


def test_what_does_not_fit_gets_memory_of_its_own(open_pair: Pair) -> None:
    client, server = open_pair
    frame = client.send_put(pb.Put(name="n"), LONG, cookie=2) + LONG
    memory = memoryview(bytearray(len(LONG) - 1))
    await_put(server, frame[:HEADER_BYTES])
    event = received(server, frame[HEADER_BYTES:], memory, 4096)
    assert event.content == LONG and event.content_crc32c == crc32c(LONG)
    assert not any(memory)


def test_a_content_that_is_not_the_end_is_the_parsers(open_pair: Pair) -> None:
    _, server = open_pair
    payload = content_head(len(LONG)) + LONG + pb.Put(name="last").SerializeToString()
    header = Header(FrameType.PUT, Flag.NONE, 2, 0, 0, len(payload), crc32c(payload))
    memory = memoryview(bytearray(2 * len(LONG)))
    await_put(server, encode_header(header))
    event = received(server, payload, memory, 4096)
    assert (event.message.name, event.content, event.content_crc32c) == ("last", LONG, crc32c(LONG))
    assert not any(memory)


@pytest.mark.parametrize("at", [0, 50_000, len(LONG) - 1])
def test_a_damaged_content_is_found_in_memory_too(open_pair: Pair, at: int) -> None:
    client, server = open_pair
    head = client.send_put(pb.Put(name="n"), LONG, cookie=2)
    damaged = LONG[:at] + bytes([LONG[at] ^ 1]) + LONG[at + 1 :]
    await_put(server, head[:HEADER_BYTES])
    with pytest.raises(RemoteProtocolError) as caught:
        received(server, head[HEADER_BYTES:] + damaged, memoryview(bytearray(len(LONG))), 4096)
    assert caught.value.code is ErrorCode.BAD_CHECKSUM


def test_a_damaged_message_before_it_is_found(open_pair: Pair) -> None:
    client, server = open_pair
    head = client.send_put(pb.Put(name="nnnn"), LONG, cookie=2)
    payload = bytearray(head[HEADER_BYTES:] + LONG)
    payload[3] ^= 1  # a letter of the name
    await_put(server, head[:HEADER_BYTES])
    with pytest.raises(RemoteProtocolError) as caught:
        received(server, bytes(payload), memoryview(bytearray(len(LONG))), 4096)
    assert caught.value.code is ErrorCode.BAD_CHECKSUM
