"""Sessions: greetings, bad frames, patience, and clients that vanish or will not listen."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    HEADER_BYTES,
    Connection,
    ErrorCode,
    Flag,
    FrameType,
    Header,
    Role,
    crc32c,
    encode_header,
)
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

BLOCK = 4096
SLOT_BYTES = 64 << 10
SLOTS = 16
CREDIT = 8


def hello_frame() -> bytes:
    return Connection(Role.CLIENT).send_control(FrameType.HELLO, pb.Hello(), cookie=1)


def resealed(header: bytes) -> bytes:
    """Give a header that was changed the checksum it should have."""
    return header[:60] + struct.pack("<I", crc32c(header[:60]))


def changed(frame: bytes, at: int, value: bytes) -> bytes:
    """Change bytes of a frame's header, with a right checksum."""
    whole = frame[:at] + value + frame[at + len(value) :]
    return resealed(whole[:HEADER_BYTES]) + whole[HEADER_BYTES:]


async def test_hello_says_what_holds(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(idle_timeout_s=7.5, uploads_per_connection_max=3) as daemon,
        open_peer(daemon.unix, hello=False) as peer,
    ):
        reply = await peer.hello()
    assert reply.instance_id == daemon.server.instance_id
    assert reply.server.startswith("uringd/")
    assert (reply.chunk_bytes_max, reply.alignment) == (SLOT_BYTES, 4096)
    assert (reply.credit, reply.uploads_max, reply.idle_timeout_ms) == (CREDIT, 3, 7500)


@pytest.mark.parametrize("slots", [2, 3, 8, 100])
async def test_no_session_gets_more_than_half_of_the_slots(
    serving: Serving, open_peer: OpenPeer, slots: int
) -> None:
    async with serving(slots=slots) as daemon, open_peer(daemon.unix) as peer:
        assert peer.credit == max(1, min(8, slots // 2))
        await peer.upload("file", bytes(3 * SLOT_BYTES))


@pytest.mark.parametrize("token", ["", "wrong", "secre", "secret2", "sécret"])
async def test_a_missing_or_wrong_token_is_refused_in_the_same_words(
    serving: Serving, open_peer: OpenPeer, token: str
) -> None:
    async with serving(token="secret") as daemon, open_peer(daemon.tcp, hello=False) as peer:
        error = await peer.refusal(FrameType.HELLO, pb.Hello(token=token))
        assert error.code == ErrorCode.UNAUTHORIZED
        assert "missing or wrong" in error.text
        assert await peer.stream.receive_some(1) == b""


async def test_the_right_token_opens_the_session(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(token="sécret") as daemon,
        open_peer(daemon.tcp, hello=False) as peer,
    ):
        await peer.hello(token="sécret")
        await peer.upload("file", b"x")


async def test_a_token_that_nobody_asked_for_does_no_harm(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, hello=False) as peer:
        await peer.hello(token="whatever")


async def test_neither_the_token_nor_its_guess_gets_into_the_log(
    serving: Serving, open_peer: OpenPeer
) -> None:
    with capture_logs() as events:
        async with serving(token="secret") as daemon:
            assert "secret" not in repr(daemon.server.settings)
            async with open_peer(daemon.unix, hello=False) as peer:
                await peer.refusal(FrameType.HELLO, pb.Hello(token="guess"))
    assert "secret" not in repr(events) and "guess" not in repr(events)


PING = encode_header(Header(FrameType.PING, Flag.NONE, 1, 0, 0, 0, 0))
DATA = encode_header(Header(FrameType.DATA, Flag.NONE, 0, 1, 0, BLOCK, 0))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + b"\r\n" * 64, ErrorCode.BAD_FRAME),
        (bytes(1 << 20), ErrorCode.BAD_FRAME),
        (PING[:-1] + bytes([PING[-1] ^ 1]), ErrorCode.BAD_CHECKSUM),
        (changed(PING, 4, b"\x02"), ErrorCode.UNSUPPORTED_VERSION),
        (changed(PING, 5, b"\x63"), ErrorCode.UNSUPPORTED),
        (changed(PING, 45, b"\x01"), ErrorCode.BAD_FRAME),
        (changed(PING, 6, b"\x02"), ErrorCode.BAD_FRAME),
        (changed(PING, 8, bytes(8)), ErrorCode.BAD_FRAME),
        (changed(PING, 32, struct.pack("<I", (64 << 10) + 1)), ErrorCode.TOO_LARGE),
        (changed(PING, 32, b"\xff" * 4), ErrorCode.TOO_LARGE),
        (changed(DATA, 32, b"\xff" * 4), ErrorCode.TOO_LARGE),
        (changed(DATA, 32, bytes(4)), ErrorCode.BAD_FRAME),
        (changed(DATA, 24, b"\xff" * 8), ErrorCode.OUT_OF_RANGE),
        (changed(PING, 32, struct.pack("<II", 3, 1)) + b"xyz", ErrorCode.BAD_CHECKSUM),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
async def test_a_bad_frame_costs_its_session_and_no_other(
    daemon: Daemon, open_peer: OpenPeer, frame: bytes, code: ErrorCode, *, greeted: bool
) -> None:
    if not greeted and len(frame) == HEADER_BYTES + 3:
        code = ErrorCode.OUT_OF_ORDER  # judged by its header, before its payload
    async with open_peer(daemon.unix) as other, open_peer(daemon.unix, hello=greeted) as peer:
        if greeted:
            await peer.create("unfinished")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, frame)
            error = await peer.last_words()
        assert error is not None and error.code == code
        await other.upload("other", b"fine")
        assert (daemon.published, daemon.spool) == (["other"], [])


async def test_hello_comes_once(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.send(hello_frame())
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER


@pytest.mark.parametrize("frame_type", [FrameType.PING, FrameType.LIST])
async def test_the_first_frame_has_to_be_hello(
    daemon: Daemon, open_peer: OpenPeer, frame_type: FrameType
) -> None:
    async with open_peer(daemon.unix, hello=False) as peer:
        await peer.send(encode_header(Header(frame_type, Flag.NONE, 1, 0, 0, 0, 0)))
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER


async def test_a_client_that_says_nothing_is_sent_away(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, hello=False) as peer:
        await peer.send(hello_frame()[:40])
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(9.9)
        await trio.testing.wait_all_tasks_blocked()
        assert daemon.server.sessions
        mock_clock.jump(0.2)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.TIMEOUT


async def test_an_idle_session_ends_and_ping_keeps_it(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        for _ in range(3):
            mock_clock.jump(299)
            await peer.ask(FrameType.PING, pb.Ping())
        mock_clock.jump(299)
        await trio.testing.wait_all_tasks_blocked()
        assert len(daemon.spool) == 1
        mock_clock.jump(2)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.TIMEOUT
        assert daemon.spool == []


async def test_a_chunk_that_comes_too_slowly_ends_the_session_and_frees_its_slot(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.send(peer.connection.send_data_header(handle, 0, SLOT_BYTES, 0))
        await peer.send(bytes(SLOT_BYTES - 1))
        await until(lambda: daemon.free_slots == SLOTS - 1)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(13.9)  # 10 s of grace, and 64 KiB at 16 KiB/s
        await trio.testing.wait_all_tasks_blocked()
        assert daemon.server.sessions
        mock_clock.jump(0.2)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.TIMEOUT
        assert daemon.free_slots == SLOTS
        assert daemon.spool == []


async def test_clients_that_stall_in_mid_chunk_give_way_to_who_waits_for_a_slot(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(slots=2, contended_chunk_s=0.05) as daemon:
        async with (
            open_peer(daemon.unix) as first,
            open_peer(daemon.unix) as second,
            open_peer(daemon.unix) as third,
        ):
            for number, peer in enumerate((first, second)):
                handle = await peer.create(f"stalled-{number}")
                await peer.send(peer.connection.send_data_header(handle, 0, SLOT_BYTES, 0))
                await peer.send(bytes(100))
            await until(lambda: daemon.free_slots == 0)
            receipt = await third.upload("whole", bytes(3 * SLOT_BYTES))
            assert receipt.size == 3 * SLOT_BYTES
            error = await first.last_words()
            assert error is not None and error.code == ErrorCode.TIMEOUT
        assert daemon.published == ["whole"]


async def test_a_stalled_client_is_let_be_while_nobody_waits(
    mock_clock: trio.testing.MockClock, serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with (
        serving(slots=2, contended_chunk_s=1.0) as daemon,
        open_peer(daemon.unix) as stalled,
        open_peer(daemon.unix) as other,
    ):
        handle = await stalled.create("stalled")
        await stalled.send(stalled.connection.send_data_header(handle, 0, SLOT_BYTES, 0))
        await until(lambda: daemon.free_slots == 1)
        mock_clock.jump(5.0)
        await other.upload("whole", bytes(3 * SLOT_BYTES))
        assert len(daemon.server.sessions) == 2


async def test_a_client_that_never_reads_is_not_read_from_and_ends(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    with capture_logs() as events:
        async with open_peer(daemon.unix) as peer:
            await peer.create()
            sent = 0

            async def flood() -> None:
                nonlocal sent
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await peer.stream.send_all(PING)
                        sent += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                await trio.testing.wait_all_tasks_blocked()
                assert sent < 100_000, "somebody keeps the answers"
                mock_clock.jump(60.1)
                await until(lambda: not daemon.server.sessions)
    assert daemon.spool == []
    [event] = [event for event in events if event["event"] == "upload"]
    assert "took no acknowledgement" in event["reason"]


async def test_a_client_that_never_reads_hurts_no_other(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as deaf, open_peer(daemon.unix) as other:
        handle = await deaf.create("deaf")
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                while True:
                    await deaf.stream.send_all(PING)

            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            await other.upload("other", bytes(5 * SLOT_BYTES))
            nursery.cancel_scope.cancel()
        assert daemon.published == ["other"]
        assert handle


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "before the header": lambda _: b"",
    "in mid-header": lambda frame: frame[:40],
    "behind the header": lambda frame: frame[:HEADER_BYTES],
    "in mid-chunk": lambda frame: frame[: HEADER_BYTES + 3000],
    "before commit": lambda frame: frame,
}


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_vanishes_leaves_nothing_behind(
    daemon: Daemon,
    open_peer: OpenPeer,
    until: Until,
    count_descriptors: Callable[[], int],
    transport: str,
    where: str,
    *,
    reset: bool,
) -> None:
    url = daemon.tcp if transport == "tcp" else daemon.unix
    before = count_descriptors()
    instance_id = daemon.server.instance_id
    async with open_peer(url) as peer:
        handle = await peer.create("a/b", size=10 * BLOCK)
        await peer.data(handle, 0, bytes(BLOCK))
        payload = bytes(BLOCK)
        header = peer.connection.send_data_header(handle, BLOCK, BLOCK, crc32c(payload))
        await peer.send(CUTS[where](header + payload))
        if reset and transport == "tcp":
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: not daemon.server.sessions)
    await until(lambda: count_descriptors() == before)
    assert (daemon.spool, daemon.published, daemon.uploads) == ([], [], {})
    assert daemon.free_slots == SLOTS
    assert daemon.server.instance_id == instance_id, "nobody else lost anything"


async def test_a_client_that_vanishes_while_its_writes_are_in_flight_costs_nobody_else(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(slow_ring) as daemon:
        before = daemon.server.instance_id
        async with open_peer(daemon.unix) as peer:
            handle = await peer.create()
            slow_ring.hold(Opcode.WRITE)
            for block in range(CREDIT):
                await peer.data(handle, block * BLOCK, bytes(BLOCK))
            await until(lambda: daemon.free_slots == SLOTS - CREDIT)
        async with open_peer(daemon.unix) as other:
            await other.ask(FrameType.PING, pb.Ping())
            assert len(daemon.spool) == 1
            slow_ring.let_go()
            await until(lambda: daemon.spool == [])
            assert daemon.server.instance_id == before


async def test_a_client_that_resets_before_it_is_accepted_does_no_harm(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    for _ in range(20):
        raw = socket.create_connection((daemon.tcp.host, daemon.tcp.port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    async with open_peer(daemon.tcp) as peer:
        await peer.upload("file", b"fine")


async def test_a_client_that_closes_its_half_has_ended_its_session(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        await peer.stream.send_eof()
        assert await peer.last_words() is None
        assert daemon.spool == []


async def test_frames_may_come_in_pieces_of_any_size(daemon: Daemon, open_peer: OpenPeer) -> None:
    data = bytes(range(256)) * 16 + b"tail"
    async with open_peer(daemon.tcp) as peer:
        handle = await peer.create()
        header = peer.connection.send_data_header(handle, 0, len(data), crc32c(data))
        commit = peer.request(FrameType.COMMIT, pb.Commit(size=len(data)), handle)
        stream = header + data + commit
        for start in range(0, len(stream), 97):
            await peer.send(stream[start : start + 97])
            await trio.lowlevel.checkpoint()
        assert (await peer.answer()).type is FrameType.COMMIT
    assert (daemon.root / "file").read_bytes() == data


async def test_everything_may_be_sent_at_once(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.tcp) as peer:
        handle = await peer.create()
        frames = []
        for block in range(CREDIT):
            payload = bytes([block]) * BLOCK
            header = peer.connection.send_data_header(
                handle, block * BLOCK, BLOCK, crc32c(payload), more=True
            )
            frames.append(header + payload)
        frames.append(peer.request(FrameType.COMMIT, pb.Commit(size=CREDIT * BLOCK), handle))
        frames.append(peer.request(FrameType.PING, pb.Ping()))
        await peer.send(b"".join(frames))
        assert (await peer.answer()).type is FrameType.COMMIT
        assert (await peer.answer()).type is FrameType.PING
    expected = b"".join(bytes([block]) * BLOCK for block in range(CREDIT))
    assert (daemon.root / "file").read_bytes() == expected
