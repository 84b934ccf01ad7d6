"""Uploads that outlive their session. PROTOCOL.md, "Resume and fencing"."""

from __future__ import annotations

import errno
import itertools
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState, crc32c
from uringio.lowlevel import Opcode
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

SIZE = 5 * SLOT_BYTES + 13


def ranges(reply: pb.ResumeReply) -> list[tuple[int, int, int]]:
    return [(part.offset, part.length, part.crc32c) for part in reply.durable]


async def pass_by() -> None:
    """Let everybody else run for a while."""
    for _ in range(200):
        await trio.lowlevel.checkpoint()


async def test_what_was_received_is_not_asked_for_again(
    daemon: Daemon, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SIZE)
    half = 2 * SLOT_BYTES
    upload_id = secrets.token_hex(16)
    async with open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("file", size=SIZE, upload_id=upload_id)
        await peer.fill(handle, data[:half])
    await until(lambda: not daemon.uploads)
    async with open_peer(daemon.unix, "resume") as peer:
        found = await peer.ask(FrameType.STAT, pb.Stat(upload_id=upload_id))
        assert found.upload.state == UploadState.SUSPENDED
        assert (found.upload.durable, found.upload.size) == (half, SIZE)
        reply = await peer.resume(upload_id, 1)
        assert ranges(reply) == [(0, half, crc32c(data[:half]))]
        assert (reply.epoch, reply.name, reply.size) == (2, "file", SIZE)
        await peer.fill(reply.upload, data, half)
        receipt = await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))
    assert receipt.upload_id == upload_id
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("backend", ["io_uring", "threads"])
async def test_an_upload_goes_on_after_the_server_was_restarted(
    serving: Serving, open_peer: OpenPeer, content: Content, backend: str
) -> None:
    data = content(SIZE)
    async with serving(backend=backend) as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, data[: 3 * SLOT_BYTES])
        first_life = daemon.server.instance_id
    async with serving(backend=backend) as daemon, open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id)
        assert reply.instance_id != first_life
        assert not reply.HasField("size"), "nobody has said it yet"
        await peer.fill(reply.upload, data, reply.durable[0].length)
        await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))
        assert (daemon.root / "file").read_bytes() == data


async def test_a_tail_that_came_is_the_size_after_a_restart_too(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(SIZE)
    tail = SIZE - SIZE % SLOT_BYTES
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.data(created.upload, tail, data[tail:])
        await peer.wait_credit(CREDIT)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id)
        assert ranges(reply) == [(tail, SIZE - tail, crc32c(data[tail:]))]
        assert reply.size == SIZE
        await peer.data(reply.upload, tail + 4096, bytes(4096))
        _, error = await peer.notice()
        assert error.code == ErrorCode.OUT_OF_RANGE
        await peer.fill(reply.upload, data[:tail])
        await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))
        assert (daemon.root / "file").read_bytes() == data


async def test_a_chunk_of_a_life_before_is_compared_by_its_bytes(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, data)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id)
        await peer.data(reply.upload, SLOT_BYTES, data[SLOT_BYTES:])
        await peer.data(reply.upload, SLOT_BYTES, bytes(SLOT_BYTES))
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.CONFLICT, SLOT_BYTES)
        await peer.commit(reply.upload, len(data), crc32c=crc32c(data))


async def test_what_cannot_be_read_back_is_not_published(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(2 * SLOT_BYTES)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, data)
    ring = SimulatedRing(1, faults=[Fault(Opcode.READ, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id)
        await peer.data(reply.upload, 0, data[:SLOT_BYTES])
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.IO, None)
        commit = pb.Commit(size=len(data))
        assert (await peer.refusal(FrameType.COMMIT, commit, reply.upload)).code == ErrorCode.IO
        await peer.ask(FrameType.ABORT, pb.Abort(), reply.upload)
        assert daemon.spool == []


async def test_a_newer_client_fences_the_older_at_once(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(3 * SLOT_BYTES)
    async with open_peer(daemon.unix, "resume") as old, open_peer(daemon.tcp, "resume") as new:
        created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
        await old.fill(created.upload, data[:SLOT_BYTES])
        reply = await new.resume(created.upload_id)
        handle, error = await old.notice()
        assert (handle, error.code) == (created.upload, ErrorCode.FENCED)
        # What the old one still sends is thrown away without a word, and its credit comes back.
        await old.data(created.upload, SLOT_BYTES, bytes(SLOT_BYTES))
        await old.wait_credit(CREDIT)
        for frame_type, message in [
            (FrameType.SYNC, pb.Sync()),
            (FrameType.COMMIT, pb.Commit(size=SLOT_BYTES)),
            (FrameType.ABORT, pb.Abort()),
        ]:
            error = await old.refusal(frame_type, message, created.upload)
            assert error.code == ErrorCode.FENCED
        assert not old.notices
        await new.fill(reply.upload, data, SLOT_BYTES)
        await new.commit(reply.upload, len(data), crc32c=crc32c(data))
        assert await old.upload("other", b"the session goes on")
    assert (daemon.root / "file").read_bytes() == data


async def test_who_was_fenced_cannot_take_the_upload_back_by_its_old_epoch(
    serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        async with open_peer(daemon.unix, "resume") as other:
            assert (await other.resume(created.upload_id, 1)).epoch == 2
        message = pb.Resume(upload_id=created.upload_id, epoch=1)
        assert (await peer.refusal(FrameType.RESUME, message)).code == ErrorCode.FENCED
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.RESUME, message)
        assert error.code == ErrorCode.FENCED, "not after a restart either"
        assert (await peer.resume(created.upload_id, 2)).epoch == 3


async def test_a_chunk_under_way_when_its_session_is_fenced_is_thrown_away(
    daemon: Daemon, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "resume") as old, open_peer(daemon.unix, "resume") as new:
        created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
        header = old.connection.send_data_header(created.upload, 0, SLOT_BYTES, crc32c(data))
        await old.send(header + data[:1000])
        await until(lambda: daemon.server.receiving != {})
        reply = await new.resume(created.upload_id)
        old.credit -= 1
        await old.send(data[1000:])
        await old.wait_credit(CREDIT)
        other = bytes(SLOT_BYTES)
        await new.data(reply.upload, 0, other)
        await new.commit(reply.upload, SLOT_BYTES, crc32c=crc32c(other))


async def test_resuming_while_the_last_session_lets_go_loses_nothing(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(2 * SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        async with open_peer(daemon.unix, "resume") as old:
            created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
            await old.fill(created.upload, data)
            slow_ring.hold(Opcode.FSYNC)
        # The old session's end waits for an fsync now.
        await until(lambda: bool(slow_ring.in_flight))
        async with trio.open_nursery() as nursery:
            replies: list[pb.ResumeReply] = []

            async def resume() -> None:
                replies.append(await peer.resume(created.upload_id))

            nursery.start_soon(resume)
            await pass_by()
            assert not replies
            slow_ring.let_go()
        assert ranges(replies[0]) == [(0, len(data), crc32c(data))]
        await peer.commit(replies[0].upload, len(data), crc32c=crc32c(data))


async def test_a_broken_upload_is_not_kept(
    serving: Serving, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    ring = SimulatedRing(1, faults=[Fault(Opcode.FSYNC, result=-errno.EIO)])
    async with serving(ring) as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
            await peer.fill(created.upload, content(SLOT_BYTES))
            error = await peer.refusal(FrameType.SYNC, pb.Sync(), created.upload)
            assert error.code == ErrorCode.IO
        await until(lambda: not daemon.uploads)
        assert daemon.spool == []
        async with open_peer(daemon.unix, "resume") as peer:
            message = pb.Resume(upload_id=created.upload_id)
            assert (await peer.refusal(FrameType.RESUME, message)).code == ErrorCode.NOT_FOUND


async def test_commit_is_answered_with_the_same_receipt_however_often(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(SIZE)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, data)
        receipt = await peer.commit(created.upload, SIZE)
        assert await peer.commit(created.upload, SIZE, crc32c=crc32c(data)) == receipt
        wrong = pb.Commit(size=SIZE, crc32c=crc32c(data) ^ 1)
        error = await peer.refusal(FrameType.COMMIT, wrong, created.upload)
        assert error.code == ErrorCode.CONTENT_MISMATCH
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=1), created.upload)
        assert error.code == ErrorCode.OUT_OF_RANGE
        await peer.data(created.upload, 0, data[:SLOT_BYTES])
        _, error = await peer.notice()
        assert error.code == ErrorCode.NOT_FOUND
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id, 1)
        assert ranges(reply) == [(0, SIZE, crc32c(data))]
        assert (reply.epoch, reply.size) == (1, SIZE)
        assert await peer.commit(reply.upload, SIZE) == receipt
        found = await peer.ask(FrameType.STAT, pb.Stat(upload_id=created.upload_id))
        assert found.upload.state == UploadState.PUBLISHED


async def test_without_resume_a_receipt_is_given_once(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create("file")
        await peer.commit(handle, 0)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=0), handle)
        assert error.code == ErrorCode.NOT_FOUND


async def test_resuming_waits_for_a_commit_at_work_and_gets_its_receipt(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as new:
        async with open_peer(daemon.unix, "resume") as old:
            created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
            await old.fill(created.upload, data)
            slow_ring.hold(Opcode.FSYNC)
            commit = pb.Commit(size=SLOT_BYTES)
            await old.send(old.request(FrameType.COMMIT, commit, created.upload))
            upload = daemon.uploads[created.upload_id]
            await until(lambda: upload.state is UploadState.COMMITTING)
            abort = pb.Abort(upload_id=created.upload_id)
            assert (await new.refusal(FrameType.ABORT, abort)).code == ErrorCode.BUSY
        # The client is gone; its commit is not.
        async with trio.open_nursery() as nursery:
            replies: list[pb.ResumeReply] = []

            async def resume() -> None:
                replies.append(await new.resume(created.upload_id, 1))

            nursery.start_soon(resume)
            await pass_by()
            slow_ring.let_go()
        receipt = await new.commit(replies[0].upload, SLOT_BYTES)
        assert receipt.upload_id == created.upload_id
        assert (daemon.root / "file").read_bytes() == data


async def test_an_id_is_given_once(daemon: Daemon, open_peer: OpenPeer) -> None:
    upload_id = "ab" * 16
    message = pb.Create(name="file", upload_id=upload_id)
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, message)
        assert (created.upload_id, created.epoch) == (upload_id, 1)
        for _ in range(2):
            error = await peer.refusal(FrameType.CREATE, message)
            assert (error.code, error.retryable) == (ErrorCode.BUSY, True)
            if created.upload:
                await peer.commit(created.upload, 0)
                created.upload = 0
        assert daemon.published == ["file"]


async def test_an_id_of_nobody_is_not_found(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id="0" * 32))
        assert (error.code, error.retryable) == (ErrorCode.NOT_FOUND, False)


async def test_an_upload_of_a_session_without_resume_ends_with_it(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    async with open_peer(daemon.unix) as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        assert created.epoch == 0
        await peer.data(created.upload, 0, bytes(SLOT_BYTES))
        await peer.wait_credit(CREDIT)
    await until(lambda: not daemon.uploads)
    assert daemon.spool == []
    async with open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=created.upload_id))
        assert error.code == ErrorCode.NOT_FOUND


async def test_an_upload_of_a_session_without_resume_cannot_be_taken_from_it(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as owner, open_peer(daemon.unix, "resume") as other:
        created = await owner.ask(FrameType.CREATE, pb.Create(name="file"))
        message = pb.Resume(upload_id=created.upload_id)
        assert (await other.refusal(FrameType.RESUME, message)).code == ErrorCode.NOT_FOUND
        await owner.commit(created.upload, 0)


async def test_a_chunk_that_waits_its_turn_when_it_is_fenced_is_thrown_away(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    """What RESUME did not answer for never comes to be there afterwards."""
    data = content(2 * SLOT_BYTES)
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix, "resume") as old,
        open_peer(daemon.unix, "resume") as new,
    ):
        created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
        filling = daemon.uploads[created.upload_id].filling
        async with filling.lock:
            await old.data(created.upload, 0, bytes(SLOT_BYTES))
            await until(lambda: filling.lock.statistics().tasks_waiting == 1)
            await new.send(new.request(FrameType.RESUME, pb.Resume(upload_id=created.upload_id)))
            await until(lambda: daemon.uploads[created.upload_id].epoch == 2)
        event = await new.answer()
        assert ranges(event.message) == []
        await old.wait_credit(CREDIT)
        await new.fill(event.message.upload, data)
        await new.commit(event.message.upload, len(data), crc32c=crc32c(data))


async def test_an_upload_that_is_resumed_again_and_again_uses_up_nothing(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    limit = daemon.server.settings.uploads_per_connection_max
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        handles = [created.upload]
        while len(handles) < 2 * limit:
            reply = await peer.resume(created.upload_id)
            handles.append(reply.upload)
        for handle in handles[:-1]:
            error = await peer.refusal(FrameType.SYNC, pb.Sync(), handle)
            assert error.code == ErrorCode.FENCED
        await peer.commit(handles[-1], 0)


async def test_who_holds_an_upload_is_told_that_somebody_aborted_it(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, "resume") as owner, open_peer(daemon.unix) as other:
        created = await owner.ask(FrameType.CREATE, pb.Create(name="file"))
        await other.ask(FrameType.ABORT, pb.Abort(upload_id=created.upload_id))
        handle, error = await owner.notice()
        assert (handle, error.code) == (created.upload, ErrorCode.NOT_FOUND)
        assert "asked for by" in error.text
        own = await owner.ask(FrameType.CREATE, pb.Create(name="file"))
        await owner.ask(FrameType.ABORT, pb.Abort(), own.upload)
        await owner.ask(FrameType.PING, pb.Ping())
        assert not owner.notices, "who aborts knows it"
    assert daemon.spool == []


async def test_a_suspended_upload_can_be_listed_and_aborted_by_anybody(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="a/file", size=SIZE))
    await until(lambda: not daemon.uploads)
    async with open_peer(daemon.unix) as peer:
        listed = await peer.ask(FrameType.LIST, pb.List(uploads=True, prefix="a/"))
        [found] = listed.uploads
        assert (found.upload_id, found.state) == (created.upload_id, UploadState.SUSPENDED)
        await peer.ask(FrameType.ABORT, pb.Abort(upload_id=created.upload_id))
        assert not (await peer.ask(FrameType.LIST, pb.List(uploads=True))).uploads
        error = await peer.refusal(FrameType.ABORT, pb.Abort(upload_id=created.upload_id))
        assert error.code == ErrorCode.NOT_FOUND
    assert daemon.spool == []


async def test_an_upload_is_made_durable_now_and_then_and_its_client_told(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(4 * SLOT_BYTES)
    async with (
        serving(checkpoint_bytes=2 * SLOT_BYTES) as daemon,
        open_peer(daemon.unix, "resume") as peer,
    ):
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, data)
        while not any(ack.durable >= 2 * SLOT_BYTES for _, ack in peer.acks):
            await peer.next_event()
        record = await daemon.server.catalog.find(created.upload_id)
        assert record is not None
        part = record.ranges[0]
        assert part.length >= 2 * SLOT_BYTES
        assert part.crc32c == crc32c(data[: part.length])


async def test_positions_never_go_down(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(40 * SLOT_BYTES)
    async with (
        serving(checkpoint_bytes=SLOT_BYTES) as daemon,
        open_peer(daemon.unix, "resume") as peer,
    ):
        handle = await peer.create("file")
        await peer.fill(handle, data)
        await peer.commit(handle, len(data))
    positions = [(ack.accepted, ack.written, ack.durable) for _, ack in peer.acks]
    for before, after in itertools.pairwise(positions):
        assert all(a <= b for a, b in zip(before, after, strict=True))
    assert all(a >= w >= d for a, w, d in positions)


async def test_each_end_and_rest_of_an_upload_is_one_event(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    with capture_logs() as events:
        async with open_peer(daemon.unix, "resume") as peer:
            created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
            await peer.fill(created.upload, bytes(SLOT_BYTES))
        await until(lambda: not daemon.uploads)
        async with open_peer(daemon.unix, "resume") as peer:
            reply = await peer.resume(created.upload_id)
            await peer.commit(reply.upload, SLOT_BYTES)
    assert [event["outcome"] for event in events] == ["suspended", "published"]
    assert events[0]["durable_bytes"] == SLOT_BYTES


async def test_a_commit_that_waits_its_turn_when_it_is_fenced_publishes_nothing(
    daemon: Daemon, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SIZE)
    async with open_peer(daemon.unix, "resume") as old, open_peer(daemon.unix, "resume") as new:
        created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
        await old.fill(created.upload, data)
        upload = daemon.uploads[created.upload_id]
        async with upload.filling.lock:
            await old.send(old.request(FrameType.COMMIT, pb.Commit(size=SIZE), created.upload))
            await until(lambda: upload.filling.lock.statistics().tasks_waiting == 1)
            await new.send(new.request(FrameType.RESUME, pb.Resume(upload_id=created.upload_id)))
            await until(lambda: upload.epoch == 2)
        refused = await old.answer()
        assert (refused.type, refused.message.code) == (FrameType.ERROR, ErrorCode.FENCED)
        reply = (await new.answer()).message
        assert daemon.published == []
        await new.commit(reply.upload, SIZE)
    assert (daemon.root / "file").read_bytes() == data
