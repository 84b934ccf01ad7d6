"""Chunks that the server copies out of a client's memory. PROTOCOL.md, "Shared memory"."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.lacking import lacking, need_root
from tests.uringd.conftest import CREDIT, SLOT_BYTES, Refusal
from tests.uringd.sharing import (
    attach,
    attach_memory,
    memory_of,
    place,
    punch,
    released,
    send,
)
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

FUSE = Path(__file__).parents[1] / "disks" / "fuse_disk.py"

pytestmark = pytest.mark.usefixtures("needs_io_uring")


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    async with serving() as running:
        yield running


async def test_chunks_are_copied_out_of_attached_memory(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES + 100)
    async with open_peer(daemon.unix, "copy") as peer:
        fd = await attach_memory(peer, data)
        handle = await peer.create("file", size=len(data))
        for at in (2 * SLOT_BYTES, 0, SLOT_BYTES):
            await place(peer, handle, at, data[at : at + SLOT_BYTES], at)
        receipt = await peer.commit(handle, len(data), crc32c=crc32c(data))
        assert receipt.transport == "copy"
        await peer.wait_credit(CREDIT)
        assert sorted(released(peer)) == [0, SLOT_BYTES, 2 * SLOT_BYTES]
        os.close(fd)
    assert (daemon.root / "file").read_bytes() == data


async def test_the_receipt_names_every_way_that_chunks_came(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, "copy") as peer:
        os.close(await attach_memory(peer, data))
        handle = await peer.create()
        await place(peer, handle, 0, data[:SLOT_BYTES], 0)
        await peer.data(handle, SLOT_BYTES, data[SLOT_BYTES:])
        assert (await peer.commit(handle, len(data))).transport == "copy+unix"
    assert (daemon.root / "file").read_bytes() == data


async def test_what_a_client_changes_after_the_copy_changes_nothing(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "copy") as peer:
        fd = await attach_memory(peer, data)
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        await place(peer, handle, 0, data, 0)
        [upload] = daemon.uploads.values()
        await until(lambda: upload.accepted == len(data))
        os.pwrite(fd, bytes(len(data)), 0)
        os.close(fd)
        slow_ring.let_go()
        await peer.commit(handle, len(data))
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("trick", ["truncated", "cut short", "punched", "rewritten"])
async def test_memory_that_is_not_what_was_said_costs_the_chunk(
    daemon: Daemon, open_peer: OpenPeer, content: Content, trick: str
) -> None:
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, "copy") as peer:
        fd = await attach_memory(peer, data)
        match trick:
            case "truncated":
                os.ftruncate(fd, 0)
            case "cut short":
                os.ftruncate(fd, SLOT_BYTES + 4096)
            case "punched":
                assert punch(fd, len(data)) == 0
            case _:
                os.pwrite(fd, b"x", SLOT_BYTES)
        handle = await peer.create()
        await place(peer, handle, SLOT_BYTES, data[SLOT_BYTES:], SLOT_BYTES)
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.BAD_CHECKSUM, SLOT_BYTES)
        await peer.wait_credit(CREDIT)
        assert released(peer) == [SLOT_BYTES]
        await peer.data(handle, 0, data[:SLOT_BYTES])  # the session, and the upload, go on
        os.close(fd)


@pytest.fixture
def fuse_file(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A file of a file system that is a program's (FUSE), and the program."""
    need_root("mounting FUSE")
    if not Path("/dev/fuse").exists():
        lacking("there is no /dev/fuse")
    point, image = tmp_path / "fuse", tmp_path / "image"
    point.mkdir()
    image.write_bytes(bytes(SLOT_BYTES))
    command = [sys.executable, str(FUSE), str(point), "logged", str(image), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"mounted\n":
            lacking("FUSE cannot be mounted here")
        fd = os.open(point / "disk", os.O_RDWR)
        yield fd, child
        child.send_signal(signal.SIGCONT)
        os.close(fd)
        subprocess.run(["umount", "-l", point], check=True)


def pipe_of_one() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def file_on_disk() -> int:
    return os.open("/var/tmp", os.O_RDWR | os.O_TMPFILE)


def only_a_name() -> int:
    fd = memory_of(bytes(SLOT_BYTES))
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_PATH)
    finally:
        os.close(fd)


def not_readable() -> int:
    fd = memory_of(bytes(SLOT_BYTES))
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


def of_huge_pages() -> int:
    fd = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2 << 20)
    return fd


@pytest.mark.parametrize(
    "make",
    [pipe_of_one, file_on_disk, only_a_name, not_readable, of_huge_pages],
    ids=lambda make: make.__name__,
)
async def test_what_is_no_memory_is_refused_and_closed(
    daemon: Daemon,
    open_peer: OpenPeer,
    until: Until,
    count_descriptors: Callable[[], int],
    make: Callable[[], int],
) -> None:
    async with open_peer(daemon.unix, "copy") as peer:
        before = count_descriptors()
        fd = make()
        refusal = await attach(peer, SLOT_BYTES, [fd])
        os.close(fd)
        assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.UNSUPPORTED
        await until(lambda: count_descriptors() == before)
        os.close(await attach_memory(peer, b"x" * 4096))  # the session goes on


def test_a_file_of_fuse_that_never_answers_is_refused_and_stops_nobody(
    fuse_file: tuple[int, subprocess.Popen[bytes]], serving: Serving, open_peer: OpenPeer
) -> None:
    """Not its size is asked for, and not even its close is waited for."""
    fd, program = fuse_file

    async def main() -> None:
        async with serving() as daemon, open_peer(daemon.unix, "copy", "sealed") as peer:
            program.send_signal(signal.SIGSTOP)
            refusal = await attach(peer, SLOT_BYTES, [fd])
            assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.UNSUPPORTED
            handle = await peer.create()
            await place(peer, handle, 0, bytes(4096), 0, [fd])
            _, error = await peer.notice()
            assert error.code == ErrorCode.UNSUPPORTED
            await peer.ask(FrameType.PING, pb.Ping())

    trio.run(main)


@pytest.mark.parametrize("size", [0, SLOT_BYTES - 1, SLOT_BYTES + 1, 1 << 40])
async def test_memory_of_another_size_than_was_said_is_refused(
    daemon: Daemon, open_peer: OpenPeer, size: int
) -> None:
    async with open_peer(daemon.unix, "copy") as peer:
        fd = memory_of(bytes(SLOT_BYTES))
        refusal = await attach(peer, size, [fd])
        os.close(fd)
        assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(("said", "sent"), [(1, 0), (1, 2), (1, 9), (0, 0), (0, 1)])
async def test_a_wrong_number_of_descriptors_is_refused_and_none_leaks(
    daemon: Daemon,
    open_peer: OpenPeer,
    until: Until,
    count_descriptors: Callable[[], int],
    said: int,
    sent: int,
) -> None:
    async with open_peer(daemon.unix, "copy") as peer:
        before = count_descriptors()
        fd = memory_of(bytes(SLOT_BYTES))
        refusal = await attach(peer, SLOT_BYTES, [fd] * sent, said)
        os.close(fd)
        assert isinstance(refusal, Refusal)
        assert refusal.code == (ErrorCode.BAD_FRAME if said else ErrorCode.UNSUPPORTED)
        await peer.ask(FrameType.PING, pb.Ping())
        await until(lambda: count_descriptors() == before)


async def test_memory_is_attached_once(
    daemon: Daemon, open_peer: OpenPeer, count_descriptors: Callable[[], int]
) -> None:
    async with open_peer(daemon.unix, "copy", "slab") as peer:
        os.close(await attach_memory(peer, bytes(SLOT_BYTES)))
        before = count_descriptors()
        fd = memory_of(bytes(SLOT_BYTES))
        refusal = await attach(peer, SLOT_BYTES, [fd])
        os.close(fd)
        assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.OUT_OF_ORDER
        error = await peer.refusal(FrameType.ATTACH, pb.Attach(mode="MEMORY_MODE_SLAB"))
        assert error.code == ErrorCode.OUT_OF_ORDER
        assert count_descriptors() == before


@pytest.mark.parametrize("features", [("copy",), ()])
async def test_descriptors_with_frames_that_take_none_are_closed(
    daemon: Daemon,
    open_peer: OpenPeer,
    count_descriptors: Callable[[], int],
    features: tuple[str, ...],
) -> None:
    async with open_peer(daemon.unix, *features) as peer:
        before = count_descriptors()
        fd = memory_of(bytes(SLOT_BYTES))
        for _ in range(40):
            await send(peer, peer.request(FrameType.PING, pb.Ping()), [fd])
            await peer.answer()
        handle = await peer.create()
        header = peer.connection.send_data_header(handle, 0, 4096, crc32c(bytes(4096)))
        await send(peer, header + bytes(4096), [fd])
        await peer.commit(handle, 4096)
        os.close(fd)
        await peer.ask(FrameType.PING, pb.Ping())
        assert count_descriptors() == before


async def test_no_memory_is_offered_over_tcp(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.tcp, hello=False) as peer:
        reply = await peer.hello(features=("copy", "sealed", "slab"))
        assert list(reply.features) == []
        for mode in ("MEMORY_MODE_COPY", "MEMORY_MODE_SLAB"):
            error = await peer.refusal(FrameType.ATTACH, pb.Attach(mode=mode))
            assert error.code == ErrorCode.UNSUPPORTED


async def test_no_memory_is_offered_through_threads(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(backend="threads") as daemon,
        open_peer(daemon.unix, hello=False) as peer,
    ):
        reply = await peer.hello(features=("copy", "sealed", "slab"))
        assert list(reply.features) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"memory_offset": 2 * SLOT_BYTES}, ErrorCode.OUT_OF_RANGE),
        ({"memory_offset": SLOT_BYTES + 4096}, ErrorCode.OUT_OF_RANGE),
        ({"memory_offset": (1 << 63) - 4096}, ErrorCode.OUT_OF_RANGE),
        ({"memory_offset": 512}, ErrorCode.MISALIGNED),
        ({"length": SLOT_BYTES + 1}, ErrorCode.TOO_LARGE),
        ({"offset": (1 << 63) - 4096}, ErrorCode.OUT_OF_RANGE),
        ({"descriptors": 1}, ErrorCode.BAD_FRAME),
    ],
)
async def test_a_place_that_is_none_ends_the_session(
    daemon: Daemon,
    open_peer: OpenPeer,
    content: Content,
    fields: dict[str, int],
    code: ErrorCode,
) -> None:
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, "copy", "sealed") as peer:
        os.close(await attach_memory(peer, data))
        handle = await peer.create()
        await place(peer, handle, 0, data[:SLOT_BYTES], 0, wrong=fields)
        error = await peer.last_words()
        assert error is not None and error.code == code


@pytest.mark.parametrize("features", [("copy",), ("sealed",), ()])
async def test_a_chunk_in_no_memory_ends_the_session(
    daemon: Daemon, open_peer: OpenPeer, features: tuple[str, ...]
) -> None:
    async with open_peer(daemon.unix, *features) as peer:
        handle = await peer.create()
        await place(peer, handle, 0, b"x" * 4096, 0)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER


async def test_a_placed_chunk_without_credit_ends_the_session(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content
) -> None:
    data = content(4096)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "copy") as peer:
        os.close(await attach_memory(peer, data))
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        for number in range(CREDIT + 1):
            await place(peer, handle, number * 4096, data, 0)
        error = await peer.last_error()
        assert error is not None and error.code == ErrorCode.CREDIT_EXCEEDED
        slow_ring.let_go()


@pytest.mark.parametrize("held", [Opcode.READ, Opcode.WRITE])
async def test_a_client_that_leaves_with_chunks_in_flight_takes_nothing_along(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
    held: Opcode,
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon:
        before = count_descriptors()
        async with open_peer(daemon.unix, "copy") as peer:
            os.close(await attach_memory(peer, data))
            handle = await peer.create()
            slow_ring.hold(held)
            await place(peer, handle, 0, data, 0)
            await until(lambda: bool(slow_ring.in_flight))
        slow_ring.let_go()
        await until(lambda: not daemon.server.sessions)
        await until(lambda: count_descriptors() == before)
        assert daemon.published == []


async def test_the_same_chunk_again_is_no_conflict_and_another_one_is(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, "copy") as peer:
        os.close(await attach_memory(peer, data))
        handle = await peer.create()
        await place(peer, handle, 0, data[:SLOT_BYTES], 0)
        await peer.data(handle, 0, data[:SLOT_BYTES])
        await place(peer, handle, 0, data[:SLOT_BYTES], 0)
        await place(peer, handle, 0, data[SLOT_BYTES:], SLOT_BYTES)
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.CONFLICT, 0)
        await peer.commit(handle, SLOT_BYTES)
    assert (daemon.root / "file").read_bytes() == data[:SLOT_BYTES]
