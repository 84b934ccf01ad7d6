from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    BUFFER_BYTES_MAX,
    CONTROL_BYTES_MAX,
    HEADER_BYTES,
    NEED_DATA,
    PUT_BYTES_MAX,
    REQUESTS_MAX,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
    State,
    crc32c,
    error_message,
)

Pair = tuple[Connection, Connection]
Deliver = Callable[[Connection, bytes], None]
INSTANCE_ID = bytes(range(16))


def test_hello_opens_the_session_on_both_sides(open_pair: Pair) -> None:
    client, server = open_pair
    assert client.state is server.state is State.OPEN
    assert client.chunk_bytes_max == server.chunk_bytes_max == 1 << 20


def test_a_request_and_its_reply_arrive(open_pair: Pair, deliver: Deliver) -> None:
    client, server = open_pair
    deliver(server, client.send_control(FrameType.CREATE, pb.Create(name="a"), cookie=9))
    asked = server.next_event()
    assert asked == Control(FrameType.CREATE, False, 9, 0, pb.Create(name="a"))
    assert server.next_event() is NEED_DATA
    reply = pb.CreateReply(upload_id="0" * 32, upload=1, chunk_bytes=4096)
    deliver(client, server.send_control(FrameType.CREATE, reply, reply_to=9))
    assert client.next_event() == Control(FrameType.CREATE, True, 9, 0, reply)
    assert client.next_event() is NEED_DATA


def test_a_chunk_can_bypass_the_codec(open_pair: Pair) -> None:
    client, server = open_pair
    assert server.bytes_wanted == HEADER_BYTES
    server.receive_data(client.send_data_header(1, 4096, 8192, 5, more=True))
    assert server.bytes_wanted == 0
    assert server.next_event() == Data(1, 4096, 8192, 5, True)
    assert (server.payload_remaining, server.bytes_wanted) == (8192, 0)
    with pytest.raises(LocalProtocolError, match="unread"):
        server.next_event()
    server.payload_received(8000)
    server.payload_received(192)
    assert (server.payload_remaining, server.bytes_wanted) == (0, HEADER_BYTES)
    assert server.next_event() is NEED_DATA


def test_a_chunk_that_was_read_with_its_header_comes_out_of_the_buffer(
    open_pair: Pair, deliver: Deliver
) -> None:
    client, server = open_pair
    payload = bytes(range(256)) * 16
    frame = client.send_data_header(1, 0, len(payload), crc32c(payload)) + payload
    deliver(server, frame + client.send_control(FrameType.PING, pb.Ping(), cookie=3))
    event = server.next_event()
    assert isinstance(event, Data)
    target = bytearray(len(payload))
    assert server.read_payload_into(memoryview(target)[:100]) == 100
    assert server.read_payload_into(memoryview(target)[100:]) == len(payload) - 100
    assert target == payload and server.payload_remaining == 0
    assert server.read_payload_into(memoryview(bytearray(10))) == 0
    assert server.next_event() == Control(FrameType.PING, False, 3, 0, pb.Ping())


def test_buffered_payload_cannot_be_overtaken(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_data_header(1, 0, 10, 0) + b"12345")
    server.next_event()
    with pytest.raises(LocalProtocolError, match="read_payload_into"):
        server.payload_received(5)
    target = memoryview(bytearray(10))
    assert server.read_payload_into(target) == 5
    for count in (6, -1):
        with pytest.raises(LocalProtocolError):
            server.payload_received(count)
    server.payload_received(5)
    assert server.payload_remaining == 0


def test_reading_what_is_wanted_never_reads_too_much(open_pair: Pair) -> None:
    client, server = open_pair
    stream = client.send_control(FrameType.CREATE, pb.Create(name="a" * 300), cookie=2)
    stream += client.send_data_header(1, 0, 5, crc32c(b"hello")) + b"hello"
    stream += client.send_control(FrameType.PING, pb.Ping(), cookie=3)
    events, at = [], 0
    while at < len(stream):
        wanted = server.bytes_wanted
        assert wanted > 0
        server.receive_data(stream[at : at + wanted])
        at += wanted
        while (event := server.next_event()) is not NEED_DATA:
            events.append(event)
            if isinstance(event, Data):
                assert stream[at : at + 5] == b"hello"
                server.payload_received(5)
                at += 5
    assert [type(event) for event in events] == [Control, Data, Control]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.data())
def test_any_cut_of_a_stream_gives_the_same_events(lengths: list[int], data: st.DataObject) -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    stream = client.send_control(FrameType.HELLO, pb.Hello(), cookie=1)
    server.receive_data(stream)
    server.next_event()
    reply = pb.HelloReply(
        instance_id=INSTANCE_ID, chunk_bytes_max=4096, alignment=1, credit=1, uploads_max=1
    )
    client.receive_data(server.send_control(FrameType.HELLO, reply, reply_to=1))
    client.next_event()
    stream, wanted = b"", []
    for cookie, length in enumerate(lengths, start=2):
        if length % 2:
            payload = bytes([length]) * length
            stream += client.send_data_header(1, cookie, length, crc32c(payload)) + payload
            wanted.append(payload)
        else:
            name = "n" * length
            stream += client.send_control(FrameType.CREATE, pb.Create(name=name), cookie=cookie)
            wanted.append(name.encode())
    got: list[bytes] = []
    at = 0
    while at < len(stream):
        piece = data.draw(st.integers(1, min(len(stream) - at, server.bytes_acceptable)))
        server.receive_data(stream[at : at + piece])
        at += piece
        while True:
            if server.payload_remaining:
                target = memoryview(bytearray(server.payload_remaining))
                count = server.read_payload_into(target)
                got[-1] += bytes(target[:count])
                if server.payload_remaining:
                    break
            event = server.next_event()
            if event is NEED_DATA:
                break
            got.append(event.message.name.encode() if isinstance(event, Control) else b"")
    assert got == wanted


def test_the_buffer_is_bounded(open_pair: Pair) -> None:
    _, server = open_pair
    assert server.bytes_acceptable == BUFFER_BYTES_MAX
    server.receive_data(bytes(BUFFER_BYTES_MAX))
    with pytest.raises(LocalProtocolError, match="can be taken"):
        server.receive_data(b"1")


def test_the_longest_control_frame_fits_the_buffer(open_pair: Pair) -> None:
    client, server = open_pair
    name = "n" * (CONTROL_BYTES_MAX - 4)
    frame = client.send_control(FrameType.CREATE, pb.Create(name=name), cookie=2)
    assert len(frame) == HEADER_BYTES + CONTROL_BYTES_MAX
    server.receive_data(frame)
    event = server.next_event()
    assert isinstance(event, Control) and event.message.name == name


def test_the_longest_put_and_the_header_behind_it_fit_the_buffer(open_pair: Pair) -> None:
    client, server = open_pair
    content = bytes(PUT_BYTES_MAX - 4)
    frame = client.send_control(FrameType.PUT, pb.Put(content=content), cookie=2)
    assert len(frame) == HEADER_BYTES + PUT_BYTES_MAX
    server.receive_data(frame + client.send_control(FrameType.PING, pb.Ping(), cookie=3))
    assert server.bytes_acceptable == 0
    event = server.next_event()
    assert isinstance(event, Control) and event.content == content
    assert isinstance(server.next_event(), Control)


def test_a_put_above_its_limit_is_sent_by_nobody(open_pair: Pair) -> None:
    client, _ = open_pair
    message = pb.Put(content=bytes(PUT_BYTES_MAX - 3))
    with pytest.raises(LocalProtocolError, match="1,052,672"):
        client.send_control(FrameType.PUT, message, cookie=2)


def test_a_server_knows_what_room_a_put_needs_before_it_comes(open_pair: Pair) -> None:
    client, server = open_pair
    put = client.send_control(FrameType.PUT, pb.Put(name="n", content=b"abc"), cookie=2)
    assert server.awaited_put_bytes == 0
    server.receive_data(put[:HEADER_BYTES])
    assert server.next_event() is NEED_DATA
    assert server.awaited_put_bytes == len(put) - HEADER_BYTES == server.bytes_wanted
    server.receive_data(put[HEADER_BYTES:])
    assert isinstance(server.next_event(), Control)
    assert server.awaited_put_bytes == 0
    ping = client.send_control(FrameType.CREATE, pb.Create(name="n"), cookie=3)
    server.receive_data(ping[:HEADER_BYTES])
    assert server.next_event() is NEED_DATA
    assert server.awaited_put_bytes == 0


def test_the_end_between_frames_is_orderly(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_control(FrameType.PING, pb.Ping(), cookie=2))
    server.receive_data(b"")
    assert isinstance(server.next_event(), Control)
    assert isinstance(server.next_event(), ConnectionClosed)
    assert isinstance(server.next_event(), ConnectionClosed)
    assert (server.state, server.bytes_wanted) == (State.CLOSED, 0)
    with pytest.raises(LocalProtocolError):
        server.send_control(FrameType.PING, pb.PingReply(), reply_to=2)


@pytest.mark.parametrize("cut", [1, 63, 64, 66])
def test_the_end_in_a_control_frame_is_the_peers_fault(open_pair: Pair, cut: int) -> None:
    client, server = open_pair
    frame = client.send_control(FrameType.CREATE, pb.Create(name="a"), cookie=2)
    server.receive_data(frame[:cut])
    server.receive_data(b"")
    with pytest.raises(RemoteProtocolError, match="middle of a frame"):
        server.next_event()


def test_the_end_in_a_chunk_is_the_peers_fault(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_data_header(1, 0, 5, 0) + b"hel")
    server.receive_data(b"")
    assert isinstance(server.next_event(), Data)
    assert server.read_payload_into(memoryview(bytearray(5))) == 3
    with pytest.raises(RemoteProtocolError, match="middle of a frame"):
        server.next_event()


def test_bytes_after_the_end_are_our_fault(open_pair: Pair) -> None:
    _, server = open_pair
    server.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="after the end"):
        server.receive_data(b"1")


def test_a_broken_peer_stays_broken_and_still_gets_its_error(new_pair: Pair) -> None:
    client, server = new_pair
    server.receive_data(b"GET / HTTP/1.1\r\n" * 4)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            server.next_event()
        assert caught.value.code is ErrorCode.BAD_FRAME
    assert server.bytes_wanted == 0
    server.receive_data(bytes(1 << 20))
    farewell = error_message(caught.value.code, caught.value.text)
    client.receive_data(server.send_control(FrameType.ERROR, farewell))
    assert client.next_event() == Control(FrameType.ERROR, False, 0, 0, farewell)
    assert isinstance(client.next_event(), ConnectionClosed)
    assert server.state is State.CLOSED


def test_a_refused_hello_ends_the_session(new_pair: Pair) -> None:
    client, server = new_pair
    server.receive_data(client.send_control(FrameType.HELLO, pb.Hello(), cookie=1))
    server.next_event()
    refusal = error_message(ErrorCode.UNAUTHORIZED, "a token is needed")
    client.receive_data(server.send_control(FrameType.ERROR, refusal, reply_to=1))
    assert client.next_event() == Control(FrameType.ERROR, False, 1, 0, refusal)
    assert client.state is server.state is State.CLOSED


def test_an_error_about_an_upload_does_not_end_the_session(open_pair: Pair) -> None:
    client, server = open_pair
    message = error_message(ErrorCode.IO, "cannot write")
    client.receive_data(server.send_control(FrameType.ERROR, message, upload=1))
    assert client.next_event() == Control(FrameType.ERROR, False, 0, 1, message)
    assert client.state is State.OPEN


def test_a_reply_repeats_the_handle_of_its_request(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_control(FrameType.SYNC, pb.Sync(), cookie=2, upload=7))
    server.next_event()
    reply = pb.SyncReply(instance_id=INSTANCE_ID)
    with pytest.raises(LocalProtocolError, match="handle 7"):
        server.send_control(FrameType.SYNC, reply, reply_to=2, upload=8)
    client.receive_data(server.send_control(FrameType.SYNC, reply, reply_to=2))
    assert client.next_event() == Control(FrameType.SYNC, True, 2, 7, reply)


def test_an_error_can_answer_any_request(open_pair: Pair) -> None:
    client, server = open_pair
    server.receive_data(client.send_control(FrameType.SYNC, pb.Sync(), cookie=2, upload=7))
    server.next_event()
    message = error_message(ErrorCode.NOT_FOUND, "no upload 7")
    client.receive_data(server.send_control(FrameType.ERROR, message, reply_to=2))
    assert client.next_event() == Control(FrameType.ERROR, False, 2, 7, message)
    with pytest.raises(LocalProtocolError, match="asks for no"):
        server.send_control(FrameType.ERROR, message, reply_to=2)


def test_a_request_that_arrives_around_our_shutdown_does_not_undo_it(open_pair: Pair) -> None:
    client, server = open_pair
    frame = client.send_control(FrameType.CREATE, pb.Create(name="a"), cookie=2)
    server.receive_data(frame[:-1])
    assert server.next_event() is NEED_DATA
    server.send_control(FrameType.SHUTDOWN, pb.Shutdown(deadline_ms=1000))
    server.receive_data(frame[-1:])
    assert isinstance(server.next_event(), Control)
    assert server.state is State.CLOSING


def test_unanswered_requests_are_limited_on_both_sides(open_pair: Pair) -> None:
    client, server = open_pair
    for cookie in range(1, REQUESTS_MAX + 1):
        server.receive_data(client.send_control(FrameType.PING, pb.Ping(), cookie=cookie))
        server.next_event()
    with pytest.raises(LocalProtocolError):
        client.send_control(FrameType.PING, pb.Ping(), cookie=1000)
    client._requests.clear()
    server.receive_data(client.send_control(FrameType.PING, pb.Ping(), cookie=1000))
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    assert caught.value.code is ErrorCode.TOO_MANY_REQUESTS


@pytest.mark.parametrize(
    ("frame_type", "message", "options"),
    [
        (FrameType.PING, pb.Ping(), {}),
        (FrameType.HELLO, pb.Hello(), {"cookie": 2}),
        (FrameType.SYNC, pb.Sync(), {"cookie": 2}),
        (FrameType.PING, pb.Ping(), {"cookie": 2, "upload": 1}),
        (FrameType.PING, pb.Ping(), {"cookie": 2**64}),
        (FrameType.PING, pb.Create(), {"cookie": 2}),
        (FrameType.PING, pb.Ping(), {"reply_to": 2}),
        (FrameType.ERROR, pb.Error(code=1), {}),  # type: ignore[arg-type]
        (FrameType.ACK, pb.Ack(instance_id=INSTANCE_ID), {"upload": 1}),
        (FrameType.DATA, pb.Ping(), {"upload": 1}),
    ],
)
def test_a_client_cannot_send_what_the_protocol_has_not(
    open_pair: Pair, frame_type: FrameType, message: pb.Ping, options: dict[str, int]
) -> None:
    client, server = open_pair
    with pytest.raises(LocalProtocolError):
        client.send_control(frame_type, message, **options)
    server.receive_data(client.send_control(FrameType.PING, pb.Ping(), cookie=2))
    assert isinstance(server.next_event(), Control)


@pytest.mark.parametrize(
    ("frame_type", "message", "options"),
    [
        (FrameType.PING, pb.PingReply(), {"reply_to": 2}),
        (FrameType.PING, pb.PingReply(), {"cookie": 2}),
        (FrameType.PING, pb.PingReply(), {}),
        (FrameType.ACK, pb.Ack(), {}),
        (FrameType.SHUTDOWN, pb.Shutdown(), {"upload": 1}),
    ],
)
def test_a_server_cannot_send_what_the_protocol_has_not(
    open_pair: Pair, frame_type: FrameType, message: pb.PingReply, options: dict[str, int]
) -> None:
    _, server = open_pair
    with pytest.raises(LocalProtocolError):
        server.send_control(frame_type, message, **options)
    assert server.state is State.OPEN


@pytest.mark.parametrize(
    ("upload", "offset", "length"),
    [(0, 0, 1), (1, 0, 0), (1, 0, (1 << 20) + 1), (1, 2**63 - 1, 1), (1, -1, 5)],
)
def test_a_chunk_that_would_be_refused_is_not_sent(
    open_pair: Pair, upload: int, offset: int, length: int
) -> None:
    client, _ = open_pair
    with pytest.raises(LocalProtocolError):
        client.send_data_header(upload, offset, length, 0)


def test_no_chunk_is_sent_before_hello_is_answered_or_by_a_server(
    new_pair: Pair, open_pair: Pair
) -> None:
    for connection in (Connection(Role.CLIENT), open_pair[1]):
        with pytest.raises(LocalProtocolError):
            connection.send_data_header(1, 0, 1, 0)


@pytest.mark.parametrize("chunk_bytes_max", [0, -1, (16 << 20) + 1])
def test_the_longest_chunk_has_its_bounds(chunk_bytes_max: int) -> None:
    with pytest.raises(LocalProtocolError):
        Connection(Role.SERVER, chunk_bytes_max=chunk_bytes_max)
