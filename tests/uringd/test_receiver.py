"""The receiver: payloads and headers from real sockets, in pieces of any size."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from uringd.receiver import PIECE_BYTES, PUTS_TURN_BYTES, TURN_BYTES, WAKE_BYTES, Receiver
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    APART_BYTES_MIN,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    Role,
    crc32c,
)

CHUNK_BYTES = 4 << 20
PATIENCE_S = 30


class Pair:
    """A receiver past HELLO, and the client's end of its socket."""

    def __init__(self, ours: trio.socket.SocketType, theirs: trio.socket.SocketType) -> None:
        self.client = Connection(Role.CLIENT)
        self.server = Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES)
        self.receiver = Receiver(ours, self.server, self.make_room)
        self.room: list[int] = []
        self.socket = theirs
        self.stream = trio.SocketStream(theirs)
        self.server.receive_data(self.client.send_control(FrameType.HELLO, pb.Hello(), cookie=1))
        self.server.next_event()
        reply = pb.HelloReply(
            instance_id=bytes(16), chunk_bytes_max=CHUNK_BYTES, alignment=1, credit=1, uploads_max=1
        )
        self.client.receive_data(self.server.send_control(FrameType.HELLO, reply, reply_to=1))
        self.client.next_event()

    def data(self, payload: bytes) -> bytes:
        return self.client.send_data_header(1, 0, len(payload), crc32c(payload)) + payload

    async def make_room(self, length: int) -> None:
        """Note what room was asked for: there is as much as is wanted."""
        self.room.append(length)

    def put(self, content: bytes, cookie: int) -> bytes:
        return self.client.send_put(pb.Put(name="file"), content, cookie=cookie) + content

    def ping(self, cookie: int) -> bytes:
        return self.client.send_control(FrameType.PING, pb.Ping(), cookie=cookie)

    async def chunk(self) -> bytes:
        """Receive a header and its payload; the checksum has to be that of the bytes."""
        with trio.fail_after(PATIENCE_S):
            event = await self.receiver.next_event()
            assert isinstance(event, Data)
            memory = bytearray(event.length)
            crc = await self.receiver.receive_payload(memoryview(memory))
        assert crc == crc32c(memory) == event.crc32c
        return bytes(memory)

    async def control(self) -> Control | ConnectionClosed:
        with trio.fail_after(PATIENCE_S):
            event = await self.receiver.next_event()
        assert isinstance(event, Control | ConnectionClosed)
        return event


OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.fixture(params=["tcp", "unix"])
def open_pair(request: pytest.FixtureRequest) -> OpenPair:
    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Pair]:
        if request.param == "unix":
            ours, theirs = trio.socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                accepted, _ = listener.accept()
            ours, theirs = map(trio.socket.from_stdlib_socket, (accepted, client))
        with ours, theirs:
            yield Pair(ours, theirs)

    return connect


@pytest.mark.parametrize("step", [1, 63, 64, 65, 1000, 70_000])
async def test_frames_arrive_as_they_were_whatever_their_pieces(
    open_pair: OpenPair, content: Callable[[int], bytes], step: int
) -> None:
    payload = content(1000 if step < 1000 else 100_000)
    async with open_pair() as pair:
        frames = pair.ping(2) + pair.data(payload) + pair.data(payload[::-1]) + pair.ping(3)

        async def send() -> None:
            for start in range(0, len(frames), step):
                await pair.stream.send_all(frames[start : start + step])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            first = await pair.control()
            assert [await pair.chunk(), await pair.chunk()] == [payload, payload[::-1]]
            second = await pair.control()
    assert isinstance(first, Control) and first.cookie == 2
    assert isinstance(second, Control) and second.cookie == 3


async def test_chunks_longer_than_a_piece_a_wake_and_a_turn_arrive(
    open_pair: OpenPair, content: Callable[[int], bytes]
) -> None:
    sizes = [PIECE_BYTES + 1, WAKE_BYTES - 1, WAKE_BYTES + 1, TURN_BYTES]
    payloads = [content(size) for size in sizes]
    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.stream.send_all, b"".join(map(pair.data, payloads)))
        for payload in payloads:
            assert await pair.chunk() == payload


async def test_the_last_byte_of_a_chunk_is_all_that_is_waited_for(
    open_pair: OpenPair, content: Callable[[int], bytes]
) -> None:
    """A mark above what is still to come would wait for ever: nothing follows this chunk."""
    payload = content(2 * WAKE_BYTES + 1)
    async with open_pair() as pair:
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await pair.chunk())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await pair.stream.send_all(pair.data(payload)[:-1])
            await trio.testing.wait_all_tasks_blocked()
            assert not received
            await pair.stream.send_all(payload[-1:])
        assert received == [payload]


async def test_a_short_frame_behind_a_chunk_is_heard_at_once(
    open_pair: OpenPair, content: Callable[[int], bytes]
) -> None:
    """Shorter than what the rest of the chunk before was waited for with."""
    payload, rest = content(2 * WAKE_BYTES), 10_000
    async with open_pair() as pair:

        async def receive(cookie: int) -> None:
            assert await pair.chunk() == payload
            event = await pair.control()
            assert isinstance(event, Control) and event.cookie == cookie

        for cookie in (2, 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, cookie)
                frame = pair.data(payload)
                for part in (frame[:-rest], frame[-rest:], pair.ping(cookie)):
                    await pair.stream.send_all(part)
                    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("sent", [0, 1, WAKE_BYTES - 1, WAKE_BYTES + 1])
async def test_an_end_in_the_middle_of_a_chunk_is_heard_at_once(
    open_pair: OpenPair, sent: int
) -> None:
    async with open_pair() as pair:
        frame = pair.data(bytes(2 * WAKE_BYTES))
        with pytest.RaisesGroup(RemoteProtocolError) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.chunk)
                await pair.stream.send_all(frame[: len(frame) - 2 * WAKE_BYTES + sent])
                await trio.testing.wait_all_tasks_blocked()
                pair.socket.shutdown(socket.SHUT_WR)
        [error] = caught.value.exceptions
        assert isinstance(error, RemoteProtocolError) and error.code == ErrorCode.BAD_FRAME


async def test_a_reset_in_the_middle_of_a_chunk_is_heard_at_once(open_pair: OpenPair) -> None:
    async with open_pair() as pair:
        ended = trio.Event()

        async def receive() -> None:
            with pytest.raises((OSError, RemoteProtocolError)):
                await pair.chunk()
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await pair.stream.send_all(pair.data(bytes(WAKE_BYTES))[:1000])
            await trio.testing.wait_all_tasks_blocked()
            with contextlib.suppress(OSError):  # a Unix socket does not linger
                pair.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
            pair.socket.close()
            with trio.fail_after(PATIENCE_S):
                await ended.wait()


async def test_others_run_between_chunks_that_are_there_already(open_pair: OpenPair) -> None:
    """Without that, one client as fast as we are would keep the event loop to itself."""
    ran = trio.Event()

    async def run() -> None:
        ran.set()

    async with open_pair() as pair, trio.open_nursery() as nursery:
        await pair.stream.send_all(pair.data(bytes(10_000)) * 3)
        nursery.start_soon(run)
        for _ in range(3):
            await pair.chunk()
        assert ran.is_set()


async def test_a_payload_that_is_thrown_away_leaves_what_follows_it(open_pair: OpenPair) -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.stream.send_all, pair.data(bytes(CHUNK_BYTES)) + pair.ping(2))
        assert isinstance(await pair.receiver.next_event(), Data)
        await pair.receiver.discard_payload()
        event = await pair.control()
        assert isinstance(event, Control) and event.cookie == 2


async def test_what_waits_for_a_chunk_can_be_cancelled(open_pair: OpenPair) -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        await pair.stream.send_all(pair.data(bytes(WAKE_BYTES))[:1000])
        nursery.start_soon(pair.chunk)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("step", [1000, 16_000, 70_000, 1 << 20])
async def test_small_uploads_arrive_as_they_were_whatever_their_pieces(
    open_pair: OpenPair, content: Callable[[int], bytes], step: int
) -> None:
    sizes = [4096, 65_536, 200, 262_144, APART_BYTES_MIN, 65_536, 1]
    contents = [content(size) for size in sizes]
    async with open_pair() as pair:
        frames = b"".join(pair.put(data, number) for number, data in enumerate(contents, 2))
        frames += pair.ping(100)

        async def send() -> None:
            for start in range(0, len(frames), step):
                await pair.stream.send_all(frames[start : start + step])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for data in contents:
                event = await pair.control()
                assert isinstance(event, Control) and event.content == data
            last = await pair.control()
        assert isinstance(last, Control) and last.cookie == 100
        assert all(length <= 262_144 + 100 for length in pair.room)


async def test_room_for_a_long_small_upload_is_asked_for_once_and_before_it_is_received(
    open_pair: OpenPair, content: Callable[[int], bytes]
) -> None:
    data = content(200_000)
    async with open_pair() as pair:
        frame = pair.put(data, 2)
        received: list[object] = []

        async def receive() -> None:
            received.append(await pair.control())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for part in (frame[:64], frame[64:100_000], frame[100_000:-1]):
                await pair.stream.send_all(part)
                await trio.testing.wait_all_tasks_blocked()
                assert (pair.room, received) == ([len(frame) - 64], [])
            await pair.stream.send_all(frame[-1:])
        [event] = received
        assert isinstance(event, Control) and event.content == data


async def test_others_run_between_small_uploads_that_are_there_already(
    open_pair: OpenPair,
) -> None:
    """Each is received as it is there: without a pass now and then nobody else would run."""
    ran = trio.Event()

    async def run() -> None:
        await trio.lowlevel.checkpoint()
        ran.set()

    size = 64 << 10
    async with open_pair() as pair, trio.open_nursery() as nursery:
        frames = [pair.put(bytes(size), number) for number in range(2, 34)]
        nursery.start_soon(pair.stream.send_all, b"".join(frames))
        await pair.control()
        nursery.start_soon(run)
        for _ in range(2 * PUTS_TURN_BYTES // size):
            await pair.control()
        assert ran.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [0, 1, 100_000])
async def test_an_end_in_the_middle_of_a_small_upload_is_heard_at_once(
    open_pair: OpenPair, sent: int
) -> None:
    async with open_pair() as pair:
        frame = pair.put(bytes(200_000), 2)
        with pytest.RaisesGroup(RemoteProtocolError) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.control)
                await pair.stream.send_all(frame[: 64 + sent])
                await trio.testing.wait_all_tasks_blocked()
                pair.socket.shutdown(socket.SHUT_WR)
        [error] = caught.value.exceptions
        assert isinstance(error, RemoteProtocolError) and error.code == ErrorCode.BAD_FRAME
