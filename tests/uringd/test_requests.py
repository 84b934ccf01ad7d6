"""What each request answers, besides whole uploads: ABORT, STAT, LIST, PING, RESUME, limits."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

BLOCK = 4096
CREDIT = 8


async def test_abort_by_handle_leaves_nothing(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 0, bytes(BLOCK))
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert (daemon.spool, daemon.published, daemon.uploads) == ([], [], {})
        await peer.wait_credit(CREDIT)
        for frame_type, message in [
            (FrameType.ABORT, pb.Abort()),
            (FrameType.COMMIT, pb.Commit(size=BLOCK)),
            (FrameType.SYNC, pb.Sync()),
        ]:
            error = await peer.refusal(frame_type, message, handle)
            assert error.code == ErrorCode.NOT_FOUND
        assert await peer.create() != handle, "a handle is not given twice"


async def test_abort_by_id_comes_from_any_connection(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as owner, open_peer(daemon.tcp) as other:
        reply = await owner.ask(FrameType.CREATE, pb.Create(name="file"))
        await other.ask(FrameType.ABORT, pb.Abort(upload_id=reply.upload_id))
        assert daemon.spool == []
        await owner.data(reply.upload, 0, bytes(BLOCK))
        told, error = await owner.notice()
        assert (told, error.code) == (reply.upload, ErrorCode.NOT_FOUND)
        await owner.wait_credit(CREDIT)
        error = await other.refusal(FrameType.ABORT, pb.Abort(upload_id=reply.upload_id))
        assert error.code == ErrorCode.NOT_FOUND


async def test_an_abort_waits_for_writes_in_flight_and_is_nobody_s_fault(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        before = daemon.server.instance_id
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        for block in range(CREDIT):
            await peer.data(handle, block * BLOCK, bytes(BLOCK))
        await peer.send(peer.request(FrameType.ABORT, pb.Abort(), handle))
        await until(lambda: daemon.free_slots == 16 - CREDIT)
        assert len(daemon.spool) == 1, "the kernel still writes to it"
        slow_ring.let_go()
        assert (await peer.answer()).type is FrameType.ABORT
        assert daemon.spool == []
        await peer.wait_credit(CREDIT)
        assert not peer.notices
        assert daemon.server.instance_id == before, "other clients lose nothing by it"


async def test_an_upload_that_is_being_committed_is_not_aborted(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix) as owner,
        open_peer(daemon.unix) as other,
    ):
        upload_id = (await owner.ask(FrameType.CREATE, pb.Create(name="file"))).upload_id
        slow_ring.hold(Opcode.FSYNC)
        await owner.send(owner.request(FrameType.COMMIT, pb.Commit(), 1))
        with trio.fail_after(30):
            while True:
                stat = await other.ask(FrameType.STAT, pb.Stat(upload_id=upload_id))
                if stat.upload.state == UploadState.COMMITTING:
                    break
        error = await other.refusal(FrameType.ABORT, pb.Abort(upload_id=upload_id))
        assert (error.code, error.retryable) == (ErrorCode.BUSY, True)
        slow_ring.let_go()
        assert (await owner.answer()).type is FrameType.COMMIT
        assert daemon.published == ["file"]


async def test_an_abort_from_elsewhere_does_not_hurt_who_fills_the_upload(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix) as owner,
        open_peer(daemon.unix) as other,
    ):
        reply = await owner.ask(FrameType.CREATE, pb.Create(name="file"))
        slow_ring.hold(Opcode.WRITE)
        for block in range(CREDIT):
            await owner.data(reply.upload, block * BLOCK, bytes(BLOCK))
        await owner.ask(FrameType.PING, pb.Ping())
        await other.send(other.request(FrameType.ABORT, pb.Abort(upload_id=reply.upload_id)))
        await owner.ask(FrameType.PING, pb.Ping())
        slow_ring.let_go()
        assert (await other.answer()).type is FrameType.ABORT
        await owner.wait_credit(CREDIT)
        await owner.upload("another", b"fine")
        assert daemon.published == ["another"]


async def test_stat_follows_an_upload(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer, open_peer(daemon.unix) as other:
        reply = await peer.ask(FrameType.CREATE, pb.Create(name="a/b", size=3 * BLOCK))
        question = pb.Stat(upload_id=reply.upload_id)
        upload = (await other.ask(FrameType.STAT, question)).upload
        assert (upload.upload_id, upload.name, upload.size) == (reply.upload_id, "a/b", 3 * BLOCK)
        assert upload.state == UploadState.RECEIVING
        assert (upload.accepted, upload.written, upload.durable) == (0, 0, 0)
        await peer.data(reply.upload, 0, bytes(BLOCK))
        await peer.ask(FrameType.SYNC, pb.Sync(), reply.upload)
        upload = (await other.ask(FrameType.STAT, question)).upload
        assert (upload.accepted, upload.written, upload.durable) == (BLOCK, BLOCK, BLOCK)
        await peer.ask(FrameType.ABORT, pb.Abort(), reply.upload)
        error = await other.refusal(FrameType.STAT, question)
        assert error.code == ErrorCode.NOT_FOUND


async def test_unfinished_uploads_are_listed_in_order_of_their_ids(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer, open_peer(daemon.unix) as other:
        ids = {}
        for name in ["a/1", "a/2", "b/1"]:
            reply = await peer.ask(FrameType.CREATE, pb.Create(name=name))
            ids[reply.upload_id] = name
        listed: list[str] = []
        more = True
        while more:
            message = pb.List(uploads=True, limit=1, after=listed[-1] if listed else "")
            page = await other.ask(FrameType.LIST, message)
            assert len(page.uploads) == 1
            listed.append(page.uploads[0].upload_id)
            more = page.more
        assert listed == sorted(ids)
        page = await other.ask(FrameType.LIST, pb.List(uploads=True, prefix="a/"))
        assert {upload.name for upload in page.uploads} == {"a/1", "a/2"}
        page = await other.ask(FrameType.LIST, pb.List())
        assert list(page.files) == [], "nothing of it is published"


async def test_ping_is_answered(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.ask(FrameType.PING, pb.Ping())


async def test_requests_sent_together_are_answered_in_turn(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        frames = [peer.request(FrameType.PING, pb.Ping()) for _ in range(64)]
        await peer.send(b"".join(frames))
        cookies = [(await peer.answer()).cookie for _ in frames]
        assert cookies == sorted(cookies)


async def test_what_is_not_in_force_is_refused_and_the_session_goes_on(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, hello=False) as peer:
        reply = await peer.hello(features=("lanes", "new"))
        assert list(reply.features) == []
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id="0" * 32))
        assert error.code == ErrorCode.UNSUPPORTED
        await peer.upload("file", b"fine")


async def test_uploads_of_a_connection_are_limited(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(uploads_per_connection_max=2) as daemon,
        open_peer(daemon.unix) as peer,
        open_peer(daemon.unix) as other,
    ):
        first = await peer.create("1")
        await peer.create("2")
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="3"))
        assert (error.code, error.retryable) == (ErrorCode.TOO_MANY_UPLOADS, True)
        await other.create("3")
        await peer.commit(first, 0)
        await peer.create("4")


async def test_many_uploads_of_one_session_share_its_credit(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handles = [await peer.create(f"{number}") for number in range(16)]
        for block in range(4):
            for handle in handles:
                await peer.wait_credit()
                await peer.data(handle, block * BLOCK, bytes([handle]) * BLOCK)
        for handle in handles:
            await peer.commit(handle, 4 * BLOCK)
        await peer.wait_credit(CREDIT)
    for number, handle in enumerate(handles):
        assert (daemon.root / f"{number}").read_bytes() == bytes([handle]) * 4 * BLOCK


@pytest.mark.parametrize("upload_id", ["0" * 32, "f" * 32])
async def test_an_id_of_nobody_is_not_found(
    daemon: Daemon, open_peer: OpenPeer, upload_id: str
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        for frame_type, message in [
            (FrameType.ABORT, pb.Abort(upload_id=upload_id)),
            (FrameType.STAT, pb.Stat(upload_id=upload_id)),
        ]:
            error = await peer.refusal(frame_type, message)
            assert error.code == ErrorCode.NOT_FOUND


async def test_an_id_with_the_handle_of_another_upload_is_not_found(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        first = await peer.ask(FrameType.CREATE, pb.Create(name="first"))
        second = await peer.ask(FrameType.CREATE, pb.Create(name="second"))
        message = pb.Abort(upload_id=first.upload_id)
        error = await peer.refusal(FrameType.ABORT, message, second.upload)
        assert error.code == ErrorCode.NOT_FOUND
        assert len(daemon.spool) == 2
        await peer.ask(FrameType.ABORT, message, first.upload)
        assert len(daemon.spool) == 1


@pytest.mark.parametrize("year", [1600, 2400])
async def test_a_time_beyond_the_wire_is_the_nearest_that_can_be_said(
    serving: Serving, open_peer: OpenPeer, shared_memory: Path, year: int
) -> None:
    expected = (1 << 63) - 1 if year > 2000 else -(1 << 63)
    nanoseconds = int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp()) * 10**9
    async with serving(root=shared_memory / "root") as daemon, open_peer(daemon.unix) as peer:
        path = daemon.root / "file"
        path.write_bytes(b"")
        os.utime(path, ns=(nanoseconds, nanoseconds))
        assert path.stat().st_mtime_ns == nanoseconds
        [listed] = (await peer.ask(FrameType.LIST, pb.List())).files
        found = (await peer.ask(FrameType.STAT, pb.Stat(name="file"))).file
    assert listed.modified_ns == found.modified_ns == expected
