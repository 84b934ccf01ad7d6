"""What comes before what: nothing is acknowledged before that is done on which it rests.

A kill cannot show most of this, for the page cache outlives it. So the operations are looked at in
the order in which the ring did them, and disks and records are held while others go on.
"""
# Tests look behind doors here: at descriptors, and at what a commit waits for.

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from tests.uringd.conftest import CREDIT, SLOT_BYTES, SlowRing
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ByteRange, ErrorCode, FrameType, UploadState, crc32c
from uringio.lowlevel import Opcode
from uringio.testing import Fault

if TYPE_CHECKING:
    import pytest

    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, Until

Content = Callable[[int], bytes]

UPLOAD_ID = "0123456789abcdef" * 2
PASSES = 50
"""Passes of the scheduler in which what is not held would have happened."""

WRITES = {Opcode.WRITE, Opcode.WRITE_FIXED}


async def let_others_run() -> None:
    for _ in range(PASSES):
        await trio.lowlevel.checkpoint()


class Record:
    """Catches what a server records as progress, and the ring's operations by then."""

    def __init__(self, daemon: Daemon, ring: SlowRing, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[Opcode, int]] = []
        self.reached = False
        self.free = trio.Event()
        original = daemon.server.catalog.record_progress

        async def record(upload_id: str, epoch: int, ranges: Sequence[ByteRange]) -> None:
            if not self.reached:
                self.reached = True
                self.done = [(op.opcode, op.fd) for op, result in ring.history if result >= 0]
                await self.free.wait()
            await original(upload_id, epoch, ranges)

        monkeypatch.setattr(daemon.server.catalog, "record_progress", record)


async def test_a_record_of_progress_rests_on_the_fsyncs_of_file_and_directory(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, content(2 * SLOT_BYTES))
        record = Record(daemon, slow_ring, monkeypatch)
        record.free.set()
        await peer.ask(FrameType.SYNC, pb.Sync(), handle)
        fd = daemon.uploads[UPLOAD_ID]._file.fd
        last_write = max(i for i, (opcode, _) in enumerate(record.done) if opcode in WRITES)
        synced = [of for opcode, of in record.done[last_write:] if opcode is Opcode.FSYNC]
        assert synced == [fd, daemon.server.root.spool_fd]


async def test_nothing_is_durable_before_its_record(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, content(SLOT_BYTES))
        record = Record(daemon, slow_ring, monkeypatch)
        upload = daemon.uploads[UPLOAD_ID]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload.checkpoint)
            await until(lambda: record.reached)
            assert upload.durable == 0
            record.free.set()
        assert upload.durable == SLOT_BYTES


async def test_what_is_written_while_an_fsync_runs_is_not_durable_by_it(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, data[:SLOT_BYTES])
        upload = daemon.uploads[UPLOAD_ID]
        slow_ring.hold(Opcode.FSYNC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload.checkpoint)
            await peer.fill(handle, data, SLOT_BYTES)
            assert upload.written == 2 * SLOT_BYTES
            slow_ring.let_go()
        assert upload.durable == SLOT_BYTES
        found = await daemon.server.catalog.find(UPLOAD_ID)
        assert found is not None
        assert sum(part.length for part in found.ranges) == SLOT_BYTES


async def test_a_commit_behind_a_checkpoint_that_fails_does_not_fsync_again(
    serving: Serving, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    """The second fsync would succeed, and publish what the first one lost."""
    ring = SlowRing(faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, content(SLOT_BYTES))
        upload = daemon.uploads[UPLOAD_ID]
        ring.hold(Opcode.FSYNC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.server._checkpoint, upload)
            await until(lambda: bool(ring.in_flight))
            await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle))
            await until(lambda: upload.state is UploadState.COMMITTING)
            ring.let_go()
        assert (await peer.answer()).message.code == ErrorCode.IO
        synced = [result for operation, result in ring.history if operation.opcode is Opcode.FSYNC]
        assert synced == [-errno.EIO]
        assert not (daemon.server.settings.root / "file").exists()


async def send_and_hold(
    daemon: Daemon, ring: SlowRing, peer: Peer, until: Until, data: bytes
) -> int:
    """Send a chunk whose write stays in flight; the result is its upload's handle."""
    handle = await peer.create(upload_id=UPLOAD_ID)
    ring.held = lambda operation: operation.opcode in WRITES
    await peer.data(handle, 0, data)
    await until(lambda: daemon.uploads[UPLOAD_ID].accepted == len(data))
    return handle


async def test_sync_waits_for_the_writes_in_flight(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await send_and_hold(daemon, slow_ring, peer, until, data)
        await peer.send(peer.request(FrameType.SYNC, pb.Sync(), handle))
        await let_others_run()
        slow_ring.let_go()
        assert (await peer.answer()).message.durable == SLOT_BYTES


async def test_commit_waits_for_the_writes_in_flight(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await send_and_hold(daemon, slow_ring, peer, until, data)
        await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle))
        await until(lambda: daemon.uploads[UPLOAD_ID].state is UploadState.COMMITTING)
        await daemon.server.catalog.find(UPLOAD_ID)  # behind what the commit may have recorded
        await let_others_run()
        assert daemon.published == []
        slow_ring.let_go()
        receipt = (await peer.answer()).message
        assert receipt.crc32c == crc32c(data)
        assert (daemon.root / "file").read_bytes() == data


async def test_a_takeover_is_in_the_catalog_before_it_is_answered(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as first:
        handle = await first.create(upload_id=UPLOAD_ID)
        await first.fill(handle, content(SLOT_BYTES))
        await first.ask(FrameType.SYNC, pb.Sync(), handle)
        async with open_peer(daemon.unix, "resume") as second:
            reply = await second.resume(UPLOAD_ID)
            found = await daemon.server.catalog.find(UPLOAD_ID)
            assert found is not None
            assert found.epoch == reply.epoch == 2


async def test_a_commit_under_way_takes_no_chunk_of_another_lane(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    features = ("resume", "lanes")
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix, *features) as first,
        open_peer(daemon.unix, *features) as second,
    ):
        handle = await first.create(upload_id=UPLOAD_ID)
        await first.fill(handle, data)
        joined = await second.resume(UPLOAD_ID, 1, join=True)
        slow_ring.hold(Opcode.FSYNC)
        await first.send(first.request(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle))
        await until(lambda: daemon.uploads[UPLOAD_ID].state is UploadState.COMMITTING)
        await second.data(joined.upload, 0, data)
        _, error = await second.notice()
        assert error.code == ErrorCode.OUT_OF_ORDER
        slow_ring.let_go()
        assert (await first.answer()).message.size == SLOT_BYTES
        await second.wait_credit(CREDIT)


async def test_a_resume_is_answered_when_all_that_was_received_is_durable(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    """Also while another session has it open: no checkpoint was due, and nobody asked for one."""
    async with serving() as daemon, open_peer(daemon.unix, "resume") as first:
        handle = await first.create(upload_id=UPLOAD_ID)
        await first.fill(handle, content(2 * SLOT_BYTES))
        assert daemon.uploads[UPLOAD_ID].durable == 0
        async with open_peer(daemon.unix, "resume") as second:
            reply = await second.resume(UPLOAD_ID)
            assert sum(part.length for part in reply.durable) == 2 * SLOT_BYTES
            found = await daemon.server.catalog.find(UPLOAD_ID)
            assert found is not None
            assert sum(part.length for part in found.ranges) == 2 * SLOT_BYTES
