"""Several sessions fill one upload. PROTOCOL.md, "Lanes"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

LANES = ("resume", "lanes")


async def test_lanes_fill_one_file_and_any_of_them_commits(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(16 * SLOT_BYTES + 77)
    offsets = range(0, len(data), SLOT_BYTES)
    async with (
        open_peer(daemon.unix, *LANES) as first,
        open_peer(daemon.tcp, *LANES) as second,
        open_peer(daemon.unix, *LANES) as third,
    ):
        created = await first.ask(FrameType.CREATE, pb.Create(name="file", size=len(data)))
        handles = [created.upload]
        for lane in (second, third):
            reply = await lane.resume(created.upload_id, created.epoch, join=True)
            assert (reply.epoch, list(reply.durable)) == (1, [])
            handles.append(reply.upload)
        lanes = [first, second, third]

        async def fill(number: int) -> None:
            lane = lanes[number]
            for offset in list(offsets)[number::3]:
                await lane.wait_credit()
                await lane.data(handles[number], offset, data[offset : offset + SLOT_BYTES])
            await lane.wait_credit(CREDIT)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(fill, number)
        receipt = await second.commit(handles[1], len(data), crc32c=crc32c(data))
        assert receipt.crc32c == crc32c(data)
        # For the others the upload has ended, and COMMIT is answered all the same.
        assert await first.commit(handles[0], len(data)) == receipt
        assert not first.notices and not third.notices
    assert (daemon.root / "file").read_bytes() == data


async def test_joining_fences_nobody_and_names_the_epoch(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, *LANES) as peer, open_peer(daemon.unix, *LANES) as other:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        for epoch in (0, 2):
            message = pb.Resume(upload_id=created.upload_id, epoch=epoch, join=True)
            assert (await other.refusal(FrameType.RESUME, message)).code == ErrorCode.FENCED
        await other.resume(created.upload_id, 1, join=True)
        await peer.ask(FrameType.SYNC, pb.Sync(), created.upload)
        assert not peer.notices


async def test_taking_over_fences_every_lane(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with (
        open_peer(daemon.unix, *LANES) as first,
        open_peer(daemon.unix, *LANES) as second,
        open_peer(daemon.unix, "resume") as new,
    ):
        created = await first.ask(FrameType.CREATE, pb.Create(name="file"))
        await second.resume(created.upload_id, 1, join=True)
        await new.resume(created.upload_id, 1)
        for lane in (first, second):
            _, error = await lane.notice()
            assert error.code == ErrorCode.FENCED


async def test_an_upload_lives_as_long_as_one_lane(
    daemon: Daemon, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(2 * SLOT_BYTES)
    async with open_peer(daemon.unix, *LANES) as first:
        created = await first.ask(FrameType.CREATE, pb.Create(name="file"))
        async with open_peer(daemon.unix, *LANES) as second:
            reply = await second.resume(created.upload_id, 1, join=True)
            await second.data(reply.upload, SLOT_BYTES, data[SLOT_BYTES:])
            await second.wait_credit(CREDIT)
        await until(lambda: len(daemon.server.sessions) == 1)
        await first.fill(created.upload, data[:SLOT_BYTES])
        await first.commit(created.upload, len(data), crc32c=crc32c(data))


async def test_lanes_come_back_after_a_restart_by_the_same_epoch(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(4 * SLOT_BYTES)
    async with serving() as daemon, open_peer(daemon.unix, *LANES) as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.data(created.upload, SLOT_BYTES, data[SLOT_BYTES : 2 * SLOT_BYTES])
        await peer.data(created.upload, 3 * SLOT_BYTES, data[3 * SLOT_BYTES :])
        await peer.wait_credit(CREDIT)
    async with (
        serving() as daemon,
        open_peer(daemon.unix, *LANES) as first,
        open_peer(daemon.unix, *LANES) as second,
    ):
        one = await first.resume(created.upload_id, 1, join=True)
        two = await second.resume(created.upload_id, 1, join=True)
        assert [part.offset for part in one.durable] == [SLOT_BYTES, 3 * SLOT_BYTES]
        assert two.epoch == 1
        await first.data(one.upload, 0, data[:SLOT_BYTES])
        await second.data(two.upload, 2 * SLOT_BYTES, data[2 * SLOT_BYTES : 3 * SLOT_BYTES])
        await wait_accepted(first, second, len(data))
        await first.commit(one.upload, len(data), crc32c=crc32c(data))


async def wait_accepted(first: Peer, second: Peer, size: int) -> None:
    """Wait until both lanes' chunks are acknowledged: only then may one of them commit."""
    await first.wait_credit(CREDIT)
    await second.wait_credit(CREDIT)
    positions = [ack.accepted for peer in (first, second) for _, ack in peer.acks]
    assert max(positions) == size


async def test_chunks_of_two_lanes_that_overlap_conflict(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, *LANES) as first, open_peer(daemon.unix, *LANES) as second:
        created = await first.ask(FrameType.CREATE, pb.Create(name="file"))
        reply = await second.resume(created.upload_id, 1, join=True)
        await first.fill(created.upload, bytes(SLOT_BYTES))
        await second.data(reply.upload, 0, b"x" * SLOT_BYTES)
        _, error = await second.notice()
        assert (error.code, error.offset) == (ErrorCode.CONFLICT, 0)


async def test_joining_needs_lanes_in_force(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        message = pb.Resume(upload_id=created.upload_id, epoch=1, join=True)
        assert (await peer.refusal(FrameType.RESUME, message)).code == ErrorCode.UNSUPPORTED


async def test_a_lane_that_waits_to_write_is_told_once_that_the_upload_is_aborted(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix, *LANES) as first,
        open_peer(daemon.unix, *LANES) as second,
        open_peer(daemon.unix) as other,
    ):
        created = await first.ask(FrameType.CREATE, pb.Create(name="file"))
        joined = await second.resume(created.upload_id, created.epoch, join=True)
        lock = daemon.server.registry.open[created.upload_id].filling.lock
        slow_ring.hold(Opcode.FALLOCATE)
        await first.data(created.upload, 0, bytes(SLOT_BYTES))
        await until(lambda: bool(slow_ring.in_flight))
        await other.send(
            other.request(FrameType.ABORT, pb.Abort(upload_id=created.upload_id)),
        )
        await until(lambda: lock.statistics().tasks_waiting == 1)
        await second.data(joined.upload, SLOT_BYTES, bytes(SLOT_BYTES))
        await until(lambda: lock.statistics().tasks_waiting == 2)
        slow_ring.let_go()
        assert (await other.answer()).type is FrameType.ABORT
        for lane in (first, second):
            await lane.ask(FrameType.PING, pb.Ping())
            [(_, error)] = lane.notices
            assert error.code == ErrorCode.NOT_FOUND, error.text
            assert "asked for by" in error.text
        assert (daemon.spool, daemon.published) == ([], [])
