"""The frames of protos/vectors, as a second implementation would use them."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from uringd.wire import (
    HEADER_BYTES,
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    Event,
    FrameType,
    RemoteProtocolError,
    Role,
    State,
    decode_header,
    parse,
)

PROTOS = Path(__file__).resolve().parents[3] / "protos"
FILES = sorted((PROTOS / "vectors").glob("*.json"))
VECTORS: dict[str, dict[str, Any]] = {
    vector["name"]: vector for path in FILES for vector in json.loads(path.read_text())
}
CHUNK_BYTES_MAX = 1 << 20
HEADINGS = {
    line.lstrip("#").strip()
    for line in (PROTOS / "PROTOCOL.md").read_text().splitlines()
    if line.startswith("#")
}


def frame_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex("".join(vector["frame"]))


def send(connection: Connection, frame: bytes) -> None:
    """Let a connection send a frame, and hold its bytes against the vector's."""
    header = decode_header(frame)
    if header.type is FrameType.DATA:
        made = connection.send_data_header(
            header.upload,
            header.offset,
            header.payload_length,
            header.payload_crc32c,
            more=bool(header.flags),
        )
        assert made == frame[:HEADER_BYTES]
        return
    from_server = connection.role is Role.SERVER
    message = parse(header.type, frame[HEADER_BYTES:], from_server=from_server)
    made = connection.send_control(
        header.type,
        message,
        cookie=0 if from_server else header.cookie,
        reply_to=header.cookie if from_server else 0,
        upload=header.upload,
    )
    assert made == frame


def receive(connection: Connection, data: bytes, piece: int) -> list[Event]:
    """Feed data in pieces; return all events, with payloads taken and thrown away."""
    events: list[Event] = []
    for at in range(0, len(data), piece):
        connection.receive_data(data[at : at + piece])
        events += drain(connection)
    return events


def drain(connection: Connection) -> list[Event]:
    events: list[Event] = []
    while True:
        connection.read_payload_into(memoryview(bytearray(connection.payload_remaining)))
        if connection.payload_remaining:
            return events
        event = connection.next_event()
        if event is NEED_DATA:
            return events
        events.append(event)
        if isinstance(event, ConnectionClosed):
            return events


def replay(vector: dict[str, Any]) -> tuple[Connection, Connection]:
    """Return sender and receiver of a vector, after the frames that come before it."""
    client = Connection(Role.CLIENT)
    server = Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES_MAX)
    for name in vector["after"]:
        before = VECTORS[name]
        ends = (client, server) if before["direction"] == "C" else (server, client)
        send(ends[0], frame_of(before))
        receive(ends[1], frame_of(before), 1 << 20)
    return (client, server) if vector["direction"] == "C" else (server, client)


def described(event: Event) -> Any:
    """Return an event as the vectors have it."""
    match event:
        case ConnectionClosed():
            return "closed"
        case Data():
            return {
                "type": "DATA",
                "upload": event.upload,
                "offset": event.offset,
                "length": event.length,
                "crc32c": event.crc32c,
                "more": event.more,
            }
        case Control():
            return {
                "type": event.type.name,
                "reply": event.is_reply,
                "cookie": event.cookie,
                "upload": event.upload,
                "message": MessageToDict(event.message, preserving_proto_field_name=True),
            }


def test_there_are_many_and_no_name_twice() -> None:
    count = sum(len(json.loads(path.read_text())) for path in FILES)
    assert count == len(VECTORS) >= 100


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_says_what_it_tests(name: str) -> None:
    vector = VECTORS[name]
    assert vector["section"] in HEADINGS
    assert vector["direction"] in ("C", "S")
    assert ("event" in vector) != ("error" in vector)


@pytest.mark.parametrize("piece", [1 << 20, 1, 63], ids=["whole", "bytes", "odd"])
@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_received_as_it_says(name: str, piece: int) -> None:
    vector = VECTORS[name]
    _, receiver = replay(vector)
    if "error" in vector:
        with pytest.raises(RemoteProtocolError) as caught:
            receive_all(receiver, vector, piece)
        assert caught.value.code.name == vector["error"]
    else:
        events = receive_all(receiver, vector, piece)
        assert described(events[0]) == vector["event"]
        assert len(events) == 1 or receiver.state is State.CLOSED


def receive_all(receiver: Connection, vector: dict[str, Any], piece: int) -> list[Event]:
    events = receive(receiver, frame_of(vector), piece)
    if vector.get("end"):
        receiver.receive_data(b"")
        if receiver.payload_remaining:
            receiver.next_event()
        events += drain(receiver)
    return events


@pytest.mark.parametrize("name", [name for name in VECTORS if "error" in VECTORS[name]])
def test_what_follows_a_malformed_frame_changes_nothing(name: str) -> None:
    vector = VECTORS[name]
    if vector.get("end"):
        return
    _, receiver = replay(vector)
    with pytest.raises(RemoteProtocolError) as caught:
        receive(receiver, frame_of(vector) + bytes(100), 1 << 20)
    assert caught.value.code.name == vector["error"]


@pytest.mark.parametrize(
    "name",
    [n for n, v in VECTORS.items() if "event" in v and not v.get("end")],
)
def test_a_valid_vector_is_what_our_side_sends(name: str) -> None:
    sender, receiver = replay(VECTORS[name])
    send(sender, frame_of(VECTORS[name]))
    assert sender.state is receiver.state or sender.state > receiver.state


@pytest.mark.parametrize(
    "name",
    [n for n, v in VECTORS.items() if v.get("event") not in (None, "closed")],
)
def test_trailing_bytes_wait_for_their_own_frame(name: str) -> None:
    vector = VECTORS[name]
    _, receiver = replay(vector)
    events = receive(receiver, frame_of(vector) + b"URIO\x01", 1 << 20)
    assert described(events[0]) == vector["event"]
