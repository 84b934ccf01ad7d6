"""Whole uploads: what arrives is what was sent, and the receipt says what was done with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from uringd.client import connect
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType, UploadState, crc32c
from uringio.lowlevel import Opcode
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing

Content = Callable[[int], bytes]

SLOT_BYTES = 64 << 10
SIZES = [0, 1, 511, 4096, 4097, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, 5 * SLOT_BYTES + 13]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_arrives_byte_for_byte(
    daemon: Daemon, content: Content, size: int, transport: str, *, declared: bool
) -> None:
    data = content(size)
    async with (
        connect(daemon.tcp if transport == "tcp" else daemon.unix) as client,
        client.upload("a/file", size if declared else None) as upload,
    ):
        await upload.write(data)
        receipt = await upload.commit()
    assert (daemon.root / "a/file").read_bytes() == data
    assert (receipt.name, receipt.size, receipt.sent_bytes) == ("a/file", size, size)
    assert receipt.crc32c == f"{crc32c(data):08x}"
    assert receipt.durability == "published"
    assert receipt.transport == transport
    assert receipt.upload_id == upload.id
    assert receipt.instance_id == daemon.server.instance_id.hex()
    assert receipt.seconds > 0
    assert daemon.published == ["a", "a/file"]


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_slots_of_the_usual_size_do_as_well(
    serving: Serving, content: Content, extra: int
) -> None:
    data = content(3 * (1 << 20) + extra)
    async with (
        serving(slots=4, slot_bytes=1 << 20) as daemon,
        connect(daemon.unix) as client,
        client.upload("file") as upload,
    ):
        await upload.write(data)
        receipt = await upload.commit()
        assert (daemon.root / "file").read_bytes() == data
    assert receipt.crc32c == f"{crc32c(data):08x}"


async def test_pieces_of_any_length_make_the_same_file(daemon: Daemon, content: Content) -> None:
    data = content(3 * SLOT_BYTES)
    async with connect(daemon.unix) as client, client.upload("file") as upload:
        position = 0
        for length in [1, 4095, 0, 70_000, 1, len(data)]:
            await upload.write(data[position : position + length])
            position += length
        await upload.commit()
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.root
async def test_a_disk_is_written_past_the_page_cache_by_io_uring(
    small_disk: Path, needs_io_uring: None, serving: Serving
) -> None:
    async with (
        serving(root=small_disk / "root") as daemon,
        connect(daemon.unix) as client,
        client.upload("file") as upload,
    ):
        await upload.write(b"x" * 100_001)
        receipt = await upload.commit()
    assert (receipt.backend, receipt.direct) == ("io_uring", True)
    assert (daemon.root / "file").read_bytes() == b"x" * 100_001


async def test_tmpfs_is_not_called_direct(
    shared_memory: Path, serving: Serving, content: Content
) -> None:
    data = content(SLOT_BYTES + 77)
    async with (
        serving(root=shared_memory / "root") as daemon,
        connect(daemon.unix) as client,
        client.upload("file") as upload,
    ):
        await upload.write(data)
        receipt = await upload.commit()
        assert (daemon.root / "file").read_bytes() == data
    assert receipt.direct is False


async def test_threads_do_the_same_work_and_say_so(serving: Serving, content: Content) -> None:
    async with serving(backend="threads") as daemon, connect(daemon.tcp) as client:
        for size in SIZES:
            data = content(size)
            async with client.upload(f"{size}", size) as upload:
                await upload.write(data)
                receipt = await upload.commit()
            assert receipt.backend == "threads"
            assert (daemon.root / f"{size}").read_bytes() == data


@pytest.mark.parametrize("level", ["written", "durable", "published"])
async def test_the_receipt_names_the_level_that_was_asked_for(daemon: Daemon, level: str) -> None:
    async with (
        connect(daemon.unix) as client,
        client.upload("file", durability=level) as upload,
    ):
        await upload.write(b"x")
        receipt = await upload.commit()
    assert receipt.durability == level
    assert (daemon.root / "file").read_bytes() == b"x"


@pytest.mark.parametrize(("level", "synced"), [("written", 0), ("durable", 2), ("published", 2)])
async def test_a_level_costs_the_syncs_it_promises_and_no_other(
    slow_ring: SlowRing, serving: Serving, level: str, synced: int
) -> None:
    """Of a durable one the name may be lost: then its bytes need the name that they had before."""
    async with (
        serving(slow_ring) as daemon,
        connect(daemon.unix) as client,
        client.upload("file", durability=level) as upload,
    ):
        await upload.write(b"x")
        await upload.commit()
        opcodes = [operation.opcode for operation, _ in slow_ring.history]
    assert opcodes.count(Opcode.FSYNC) == synced
    if level != "written":
        renamed = opcodes.index(Opcode.RENAMEAT)
        first, last = (i for i, opcode in enumerate(opcodes) if opcode is Opcode.FSYNC)
        assert first < renamed, "data, then the name"
        assert (renamed < last) == (level == "published"), "then the directory"


async def test_commit_may_ask_for_another_level_than_create(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create("file", durability=int(Durability.WRITTEN))
        receipt = await peer.commit(handle, 0, durability=int(Durability.DURABLE))
        assert Durability(receipt.durability) is Durability.DURABLE
        handle = await peer.create("other", durability=int(Durability.WRITTEN))
        receipt = await peer.commit(handle, 0)
        assert Durability(receipt.durability) is Durability.WRITTEN


async def test_chunks_in_any_order_make_the_file(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(7 * 4096 + 5)
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create(size=len(data))
        for block in [3, 0, 7, 6, 1, 5, 2, 4]:
            await peer.wait_credit()
            await peer.data(handle, block * 4096, data[block * 4096 : (block + 1) * 4096])
        receipt = await peer.commit(handle, len(data), crc32c=crc32c(data))
    assert receipt.crc32c == crc32c(data)
    assert (daemon.root / "file").read_bytes() == data


async def test_acknowledged_positions_count_only_what_has_no_hole_before_it(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 4096, bytes(4096))
        await peer.wait_credit(8)
        _, ack = peer.acks[-1]
        assert (ack.accepted, ack.written, ack.durable) == (0, 0, 0)
        await peer.data(handle, 0, bytes(4096))
        await peer.wait_credit(8)
        _, ack = peer.acks[-1]
        assert (ack.accepted, ack.written, ack.durable) == (8192, 8192, 0)


async def test_written_is_not_said_before_the_write_is_done(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        slow_ring.hold(Opcode.WRITE)
        upload_id = (await peer.ask(FrameType.CREATE, pb.Create(name="file"))).upload_id
        await peer.data(1, 0, bytes(8192))
        stat = await peer.ask(FrameType.STAT, pb.Stat(upload_id=upload_id))
        assert (stat.upload.accepted, stat.upload.written) == (8192, 0)
        assert peer.acks == []
        slow_ring.let_go()
        await peer.wait_credit(8)
        assert peer.acks[-1][1].written == 8192


async def test_sync_makes_durable_what_was_sent_before_it(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        assert (await peer.ask(FrameType.SYNC, pb.Sync(), handle)).durable == 0
        await peer.data(handle, 0, bytes(8192))
        await peer.data(handle, 16384, bytes(4096))
        reply = await peer.ask(FrameType.SYNC, pb.Sync(), handle)
        assert reply.durable == 8192, "a position, and there is a hole"
        assert reply.instance_id == daemon.server.instance_id
        await peer.data(handle, 8192, bytes(8192))
        await peer.wait_credit(8)
        _, ack = peer.acks[-1]
        assert (ack.accepted, ack.written, ack.durable) == (20480, 20480, 8192)
        assert (await peer.ask(FrameType.SYNC, pb.Sync(), handle)).durable == 20480


async def test_commit_with_holes_lists_them_and_the_upload_goes_on(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 4096, b"b" * 4096)
        await peer.data(handle, 12288, b"d" * 4096)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=20000), handle)
        assert (error.code, error.retryable) == (ErrorCode.INCOMPLETE, True)
        assert error.missing == ((0, 4096), (8192, 4096), (16384, 3616))
        await peer.data(handle, 0, b"a" * 4096)
        await peer.data(handle, 8192, b"c" * 4096)
        await peer.data(handle, 16384, b"e" * 3616)
        await peer.commit(handle, 20000)
    letters = [(b"a", 4096), (b"b", 4096), (b"c", 4096), (b"d", 4096), (b"e", 3616)]
    assert (daemon.root / "file").read_bytes() == b"".join(x * count for x, count in letters)


@pytest.mark.parametrize(
    ("declared", "committed", "code"),
    [
        (8192, 4096, ErrorCode.OUT_OF_RANGE),
        (8192, 12288, ErrorCode.OUT_OF_RANGE),
        (None, 4096, ErrorCode.OUT_OF_RANGE),
        (None, 8191, ErrorCode.OUT_OF_RANGE),
        (None, 8193, ErrorCode.INCOMPLETE),
    ],
)
async def test_a_size_that_is_not_that_of_the_upload_is_refused(
    daemon: Daemon,
    open_peer: OpenPeer,
    declared: int | None,
    committed: int,
    code: ErrorCode,
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create(size=declared)
        await peer.data(handle, 0, bytes(8192))
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=committed), handle)
        assert error.code == code
        assert (await peer.commit(handle, 8192)).size == 8192


async def test_a_whole_file_with_another_checksum_is_not_published(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 0, bytes(4096))
        commit = pb.Commit(size=4096, crc32c=1)
        error = await peer.refusal(FrameType.COMMIT, commit, handle)
        assert error.code == ErrorCode.CONTENT_MISMATCH
        assert daemon.published == []
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert daemon.spool == []


async def test_an_upload_that_broke_by_an_error_of_the_disk_stays_broken(
    serving: Serving, open_peer: OpenPeer
) -> None:
    ring = SimulatedRing(1, faults=[Fault(Opcode.WRITE, 2, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        before = daemon.server.instance_id
        reply = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        handle = reply.upload
        await peer.data(handle, 0, bytes(4096))
        await peer.wait_credit(8)
        await peer.data(handle, 4096, bytes(4096))
        told, error = await peer.notice()
        assert (told, error.code, error.offset) == (handle, ErrorCode.IO, None), "the whole upload"
        assert "offset 4096" in error.text
        assert daemon.server.instance_id != before, "what was only written may be lost"
        # What is still on its way is thrown away without a word, and its credit comes back.
        for block in range(2, 6):
            await peer.data(handle, block * 4096, bytes(4096))
        await peer.wait_credit(8)
        assert peer.acks[-1][1].instance_id == daemon.server.instance_id
        stat = await peer.ask(FrameType.STAT, pb.Stat(upload_id=reply.upload_id))
        assert stat.upload.state == UploadState.BROKEN
        error = await peer.refusal(FrameType.SYNC, pb.Sync(), handle)
        assert error.code == ErrorCode.IO
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=24576), handle)
        assert error.code == ErrorCode.IO
        assert not peer.notices, "an upload breaks once"
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert (daemon.published, daemon.spool) == ([], [])
        # The session lives, and so does the server.
        await peer.upload("other", b"fine")


async def test_a_sync_that_fails_breaks_the_upload_and_renews_the_instance_id(
    serving: Serving, open_peer: OpenPeer
) -> None:
    ring = SimulatedRing(2, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        before = daemon.server.instance_id
        handle = await peer.create()
        await peer.data(handle, 0, bytes(4096))
        error = await peer.refusal(FrameType.SYNC, pb.Sync(), handle)
        assert error.code == ErrorCode.IO
        assert daemon.server.instance_id != before
        # The kernel answers the next fsync with success: nobody may ask it.
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=4096), handle)
        assert error.code == ErrorCode.IO
        await peer.data(handle, 4096, bytes(4096))
        await peer.wait_credit(8)
        assert not peer.notices, "it was told as the answer of the request that failed"
        assert daemon.published == []
    assert [operation.opcode for operation, _ in ring.history].count(Opcode.FSYNC) == 1


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_commit_whose_fsync_fails_is_no_success(
    serving: Serving, open_peer: OpenPeer, nth: int
) -> None:
    ring = SimulatedRing(3, faults=[Fault(Opcode.FSYNC, nth, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        before = daemon.server.instance_id
        handle = await peer.create()
        await peer.data(handle, 0, bytes(4096))
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=4096), handle)
        assert error.code == ErrorCode.IO
        assert daemon.server.instance_id != before
        # The second one is the directory's: the name is there by then, and promised to nobody.
        assert daemon.published == ([] if nth == 1 else ["file"])


@pytest.mark.root
async def test_a_disk_that_is_too_small_is_known_at_create(
    small_disk: Path, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(root=small_disk / "root") as daemon, open_peer(daemon.unix) as peer:
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="file", size=64 << 20))
        assert error.code == ErrorCode.NO_SPACE
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="file", size=1 << 62))
        assert error.code == ErrorCode.NO_SPACE
        assert daemon.spool == []
        await peer.upload("small", b"it fits")
    assert (daemon.root / "small").read_bytes() == b"it fits"


@pytest.mark.root
async def test_a_disk_that_gets_full_breaks_the_upload_and_is_free_again_after_it(
    small_disk: Path, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(root=small_disk / "root") as daemon, open_peer(daemon.unix) as peer:
        free = os.statvfs(small_disk).f_bfree
        handle = await peer.create()
        offset = 0
        while not peer.notices:
            await peer.data(handle, offset, bytes(SLOT_BYTES))
            offset += SLOT_BYTES
            assert offset < 64 << 20, "a disk of 16 MiB was never full"
            await peer.wait_credit()
        _, error = peer.notices.popleft()
        assert error.code == ErrorCode.NO_SPACE
        await peer.wait_credit(8)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=offset), handle)
        assert error.code == ErrorCode.NO_SPACE
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert (daemon.published, daemon.spool) == ([], [])
        assert os.statvfs(small_disk).f_bfree == free
        await peer.upload("small", b"there is room again")


async def test_each_end_of_an_upload_is_one_event_in_the_log_and_no_chunk_is(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    with capture_logs() as events:
        async with open_peer(daemon.unix) as peer:
            receipt = await peer.upload("published", bytes(5 * SLOT_BYTES))
            handle = await peer.create("aborted")
            await peer.data(handle, 0, bytes(SLOT_BYTES))
            await peer.ask(FrameType.ABORT, pb.Abort(), handle)
    assert [event["event"] for event in events] == ["upload", "upload"]
    published, aborted = events
    assert published["outcome"] == "published"
    assert published["upload_id"] == receipt.upload_id
    assert published["name"] == "published"
    assert published["accepted_bytes"] == 5 * SLOT_BYTES
    assert published["transport"] == "unix"
    assert published["peer"] == f"pid {os.getpid()} uid {os.getuid()}"
    assert published["crc32c"] == f"{receipt.crc32c:08x}"
    assert (published["backend"], published["direct"]) == (receipt.backend, receipt.direct)
    assert (aborted["outcome"], aborted["name"]) == ("aborted", "aborted")
    assert aborted["log_level"] == "info"
