"""Chunks in memory that nobody can change. PROTOCOL.md, "Shared memory"."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from tests.uringd.sharing import (
    ALL_SEALS,
    F_ADD_SEALS,
    GROW,
    SEAL,
    SHRINK,
    WRITE,
    memory_of,
    place,
    released,
)
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

pytestmark = pytest.mark.usefixtures("needs_io_uring")


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    async with serving() as running:
        yield running


async def test_chunks_are_written_from_sealed_memory(
    daemon: Daemon,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
) -> None:
    """Several chunks of one memory, and each with one of its own; a tail is copied."""
    data = content(4 * SLOT_BYTES + 100)
    async with open_peer(daemon.unix, "sealed") as peer:
        before = count_descriptors()
        handle = await peer.create("file", size=len(data))
        both = memory_of(data[: 2 * SLOT_BYTES], ALL_SEALS)
        for at in (0, SLOT_BYTES):
            await place(peer, handle, at, data[at : at + SLOT_BYTES], at, [both])
        os.close(both)
        for at in range(2 * SLOT_BYTES, len(data), SLOT_BYTES):
            own = memory_of(data[at : at + SLOT_BYTES], ALL_SEALS)
            await place(peer, handle, at, data[at : at + SLOT_BYTES], 0, [own])
            os.close(own)
        receipt = await peer.commit(handle, len(data), crc32c=crc32c(data))
        assert receipt.transport == "sealed"
        await peer.wait_credit(CREDIT)
        assert released(peer) == []
        await until(lambda: count_descriptors() == before)
    assert (daemon.root / "file").read_bytes() == data


async def test_a_descriptor_behind_a_chunk_of_the_stream_is_not_lost(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    """Who asked for a payload and the header behind it would close what comes with that header."""
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        first, second = data[:SLOT_BYTES], data[SLOT_BYTES:]
        header = peer.connection.send_data_header(handle, 0, SLOT_BYTES, crc32c(first))
        message = pb.Placed(
            offset=SLOT_BYTES, length=SLOT_BYTES, crc32c=crc32c(second), descriptors=1
        )
        placed = peer.connection.send_control(FrameType.PLACED, message, upload=handle)
        memory = memory_of(second, ALL_SEALS)
        with socket.socket(fileno=os.dup(peer.stream.socket.fileno())) as stream:
            # At once, so that both are there before the server reads either.
            stream.sendall(header + first)
            socket.send_fds(stream, [placed], [memory])
        os.close(memory)
        receipt = await peer.commit(handle, len(data), crc32c=crc32c(data))
        assert receipt.transport == "unix+sealed"


@pytest.mark.parametrize(
    "seals",
    [0, SEAL | SHRINK | GROW, SEAL | SHRINK | GROW | 16, WRITE | SHRINK | GROW, SEAL | WRITE | GROW,
     SEAL | WRITE | SHRINK],
)  # fmt: skip
async def test_memory_that_could_change_is_refused(
    daemon: Daemon, open_peer: OpenPeer, content: Content, seals: int
) -> None:
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        fd = memory_of(data, seals)
        await place(peer, handle, 0, data, 0, [fd])
        os.close(fd)
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.UNSUPPORTED, 0)
        await peer.wait_credit(CREDIT)
        await peer.data(handle, 0, data)
        await peer.commit(handle, len(data))
    assert (daemon.root / "file").read_bytes() == data


async def test_a_chunk_beyond_the_memorys_end_is_refused(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        for size, at in [(SLOT_BYTES - 1, 0), (SLOT_BYTES, 4096), (4096, 1 << 40), (100, 0)]:
            fd = memory_of(data[:size], ALL_SEALS)
            await place(peer, handle, 0, data, at, [fd])
            os.close(fd)
            _, error = await peer.notice()
            assert error.code == ErrorCode.UNSUPPORTED


async def test_memory_with_holes_is_refused(daemon: Daemon, open_peer: OpenPeer) -> None:
    """A page that is not there would be made on the server's account, and kept by the client."""
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        fd = memory_of(b"x")
        os.ftruncate(fd, SLOT_BYTES)
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
        await place(peer, handle, 0, b"x" + bytes(SLOT_BYTES - 1), 0, [fd])
        os.close(fd)
        _, error = await peer.notice()
        assert error.code == ErrorCode.UNSUPPORTED and "holes" in error.text


async def test_other_bytes_than_the_checksums_cost_the_chunk(
    daemon: Daemon,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
) -> None:
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        before = count_descriptors()
        fd = memory_of(data, ALL_SEALS)
        await place(peer, handle, 0, data, 0, [fd], {"crc32c": 1})
        os.close(fd)
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.BAD_CHECKSUM, 0)
        await peer.wait_credit(CREDIT)
        await until(lambda: count_descriptors() == before)


@pytest.mark.parametrize(("said", "sent"), [(1, 0), (1, 2)])
async def test_a_wrong_number_of_descriptors_ends_the_session(
    daemon: Daemon,
    open_peer: OpenPeer,
    until: Until,
    count_descriptors: Callable[[], int],
    said: int,
    sent: int,
) -> None:
    before = count_descriptors()
    async with open_peer(daemon.unix, "sealed") as peer:
        handle = await peer.create()
        fd = memory_of(bytes(4096), ALL_SEALS)
        await place(peer, handle, 0, bytes(4096), 0, [fd] * sent, {"descriptors": said})
        os.close(fd)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.BAD_FRAME
    await until(lambda: count_descriptors() == before)


async def test_a_chunk_of_no_upload_is_refused_and_its_memory_closed(
    daemon: Daemon, open_peer: OpenPeer, until: Until, count_descriptors: Callable[[], int]
) -> None:
    async with open_peer(daemon.unix, "sealed") as peer:
        before = count_descriptors()
        fd = memory_of(bytes(4096), ALL_SEALS)
        await place(peer, 99, 0, bytes(4096), 0, [fd])
        os.close(fd)
        _, error = await peer.notice()
        assert error.code == ErrorCode.NOT_FOUND
        await peer.wait_credit(CREDIT)
        await until(lambda: count_descriptors() == before)


async def test_memory_stays_until_the_write_from_it_has_completed(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
) -> None:
    """The client has closed its descriptor, and its connection; the upload can be resumed."""
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon:
        before = count_descriptors()
        async with open_peer(daemon.unix, "sealed", "resume") as peer:
            upload_id = "0123456789abcdef" * 2
            handle = await peer.create(upload_id=upload_id)
            slow_ring.hold(Opcode.WRITE)
            fd = memory_of(data, ALL_SEALS)
            await place(peer, handle, 0, data, 0, [fd])
            os.close(fd)
            await until(lambda: bool(slow_ring.in_flight))
        slow_ring.let_go()
        await until(lambda: not daemon.uploads)
        await until(lambda: count_descriptors() == before)
        async with open_peer(daemon.unix, "resume") as peer:
            reply = await peer.resume(upload_id)
            assert [(part.offset, part.length) for part in reply.durable] == [(0, SLOT_BYTES)]
            await peer.commit(reply.upload, SLOT_BYTES)
        assert (daemon.root / "file").read_bytes() == data
