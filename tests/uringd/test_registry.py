"""Uploads as the server keeps them: limits, quota, expiry, who waits for whom."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio

from tests.uringd.conftest import CREDIT, PATIENCE_S, SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType
from uringio.exceptions import operation_error
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

Content = Callable[[int], bytes]


async def test_unfinished_uploads_are_limited_suspended_ones_too(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(uploads_max=2) as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            first = await peer.ask(FrameType.CREATE, pb.Create(name="1"))
        await until(lambda: not daemon.uploads)
        async with open_peer(daemon.unix, "resume") as peer:
            await peer.create("2")
            error = await peer.refusal(FrameType.CREATE, pb.Create(name="3"))
            assert (error.code, error.retryable) == (ErrorCode.TOO_MANY_UPLOADS, True)
            await peer.ask(FrameType.ABORT, pb.Abort(upload_id=first.upload_id))
            handle = await peer.create("3")
            await peer.commit(handle, 0)
            await peer.create("4")
    async with serving(uploads_max=2) as daemon, open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="5"))
        assert error.code == ErrorCode.TOO_MANY_UPLOADS, "they are counted after a restart too"


async def test_refused_uploads_are_not_counted(serving: Serving, open_peer: OpenPeer) -> None:
    async with serving(uploads_max=1) as daemon, open_peer(daemon.unix) as peer:
        for _ in range(3):
            await peer.refusal(FrameType.CREATE, pb.Create(name=".."))
        await peer.create("file")


async def test_the_spool_holds_no_more_than_its_quota(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(spool_bytes_max=4 * SLOT_BYTES) as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            first = await peer.ask(FrameType.CREATE, pb.Create(name="1", size=3 * SLOT_BYTES))
            error = await peer.refusal(FrameType.CREATE, pb.Create(name="2", size=2 * SLOT_BYTES))
            assert (error.code, error.retryable) == (ErrorCode.NO_SPACE, False)
            growing = await peer.create("3")
            await peer.data(growing, 0, bytes(SLOT_BYTES))
            await peer.data(growing, SLOT_BYTES, bytes(SLOT_BYTES))
            _, error = await peer.notice()
            assert error.code == ErrorCode.NO_SPACE
            await peer.ask(FrameType.ABORT, pb.Abort(), growing)
            await peer.wait_credit(CREDIT)
        await until(lambda: not daemon.uploads)
    async with (
        serving(spool_bytes_max=4 * SLOT_BYTES) as daemon,
        open_peer(daemon.unix, "resume") as peer,
    ):
        message = pb.Create(name="2", size=2 * SLOT_BYTES)
        assert (await peer.refusal(FrameType.CREATE, message)).code == ErrorCode.NO_SPACE
        reply = await peer.resume(first.upload_id)
        await peer.fill(reply.upload, bytes(3 * SLOT_BYTES))
        await peer.commit(reply.upload, 3 * SLOT_BYTES)
        await peer.create("2", size=4 * SLOT_BYTES)


async def test_an_upload_that_nobody_resumes_expires(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    registry = daemon.server.registry
    limit_s = daemon.server.settings.upload_expiry_s
    async with open_peer(daemon.unix, "resume") as peer:
        held = await peer.ask(FrameType.CREATE, pb.Create(name="held"))
        async with open_peer(daemon.unix, "resume") as other:
            left = await other.ask(FrameType.CREATE, pb.Create(name="left"))
        await until(lambda: len(daemon.uploads) == 1)
        await registry.expire(limit_s / 2)
        assert len(await daemon.server.catalog.uploads()) == 2
        await registry.expire(limit_s / 2)
        [record] = await daemon.server.catalog.uploads()
        assert record.upload_id == held.upload_id
        assert daemon.spool == [f"{held.upload_id}.part"]
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=left.upload_id))
        assert error.code == ErrorCode.NOT_FOUND


async def test_an_upload_that_was_held_between_two_looks_is_new_again(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    registry = daemon.server.registry
    limit_s = daemon.server.settings.upload_expiry_s
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
    await until(lambda: not daemon.uploads)
    await registry.expire(limit_s - 1)
    async with open_peer(daemon.unix, "resume") as peer:
        await peer.resume(created.upload_id)
    await until(lambda: not daemon.uploads)
    await registry.expire(60)
    assert await daemon.server.catalog.find(created.upload_id) is not None


async def test_a_disk_that_fills_while_a_chunk_waits_costs_its_upload_only(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        full = await peer.ask(FrameType.CREATE, pb.Create(name="full"))
        other = await peer.create("other")
        slow_ring.hold(Opcode.FALLOCATE)
        await peer.data(full.upload, 0, bytes(SLOT_BYTES))
        await until(lambda: bool(slow_ring.in_flight))
        error = operation_error(errno.ENOSPC, "write", "full")
        daemon.uploads[full.upload_id].filling.fail(error)
        slow_ring.let_go()
        _, refusal = await peer.notice()
        assert refusal.code == ErrorCode.NO_SPACE
        await peer.commit(other, 0)


async def test_an_upload_that_is_resumed_as_it_expires_is_kept(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(slow_ring) as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await until(lambda: not daemon.uploads)
        slow_ring.hold(Opcode.OPENAT2)
        async with open_peer(daemon.unix, "resume") as peer, trio.open_nursery() as nursery:
            await peer.send(peer.request(FrameType.RESUME, pb.Resume(upload_id=created.upload_id)))
            await until(lambda: bool(slow_ring.in_flight))
            registry = daemon.server.registry
            nursery.start_soon(registry.expire, daemon.server.settings.upload_expiry_s)
            waiting = registry._changing._freed
            await until(lambda: waiting.statistics().tasks_waiting == 1)
            slow_ring.let_go()
            event = await peer.answer()
            assert event.type is FrameType.RESUME
            await peer.commit(event.message.upload, 0)


async def test_a_clock_that_jumps_expires_nothing(
    serving: Serving, open_peer: OpenPeer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
            receipt = await peer.upload("done", b"x")
        await until(lambda: not daemon.uploads)
        year_ns = 365 * 86_400 * 10**9
        for jump_ns in (50 * year_ns, -50 * year_ns):
            now = time.time_ns()
            monkeypatch.setattr(time, "time_ns", lambda now=now, jump=jump_ns: now + jump)
            await daemon.server.registry.expire(60)
        async with open_peer(daemon.unix, "resume") as peer:
            reply = await peer.resume(created.upload_id)
            await peer.commit(reply.upload, 0)
            done = await peer.resume(receipt.upload_id)
            assert await peer.commit(done.upload, 1) == receipt


async def test_one_slow_upload_holds_up_no_other(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, until: Until
) -> None:
    """Opening and closing is one thing at a time for each upload, not for all."""
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix, "resume") as peer,
        open_peer(daemon.unix, "resume") as other,
    ):
        created = await peer.ask(FrameType.CREATE, pb.Create(name="slow"))
        await peer.fill(created.upload, bytes(SLOT_BYTES))
        slow_ring.hold(Opcode.FSYNC)
        await peer.send(peer.request(FrameType.SYNC, pb.Sync(), created.upload))
        await until(lambda: bool(slow_ring.in_flight))
        made = await other.create("quick")
        await other.fill(made, bytes(SLOT_BYTES))
        await other.ask(FrameType.ABORT, pb.Abort(), made)
        slow_ring.let_go()
        assert (await peer.answer()).type is FrameType.SYNC


async def test_commits_of_two_lanes_at_once_are_one(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving() as daemon,
        open_peer(daemon.unix, "resume", "lanes") as first,
        open_peer(daemon.unix, "resume", "lanes") as second,
    ):
        created = await first.ask(FrameType.CREATE, pb.Create(name="file"))
        reply = await second.resume(created.upload_id, 1, join=True)
        await first.fill(created.upload, bytes(SLOT_BYTES))
        receipts = []

        async def commit(number: int) -> None:
            peer, handle = [(first, created.upload), (second, reply.upload)][number]
            receipts.append(await peer.commit(handle, SLOT_BYTES))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit, 0)
            nursery.start_soon(commit, 1)
        assert receipts[0] == receipts[1]
        assert daemon.published == ["file"]


@pytest.mark.parametrize("suspended", [False, True], ids=["open", "suspended"])
async def test_an_aborted_upload_gives_its_blocks_back_in_a_thread_while_others_go_on(
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    *,
    suspended: bool,
) -> None:
    """The last close of an unlinked file can take seconds: here, until the test lets it end."""
    freeing: list[threading.Thread] = []
    freed = threading.Event()
    close = os.close

    def close_in_time(fd: int) -> None:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_size:
            freeing.append(threading.current_thread())
            if freeing[-1] is not threading.main_thread():
                assert freed.wait(PATIENCE_S)
        close(fd)

    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="file"))
        await peer.fill(created.upload, content(SLOT_BYTES))
        if suspended:
            await peer.stream.aclose()
            await until(lambda: not daemon.uploads)
        async with open_peer(daemon.unix) as aborting, open_peer(daemon.unix) as other:
            monkeypatch.setattr(os, "close", close_in_time)
            abort = pb.Abort(upload_id=created.upload_id)
            await aborting.send(aborting.request(FrameType.ABORT, abort))
            try:
                await until(lambda: bool(freeing))
                assert freeing != [threading.main_thread()]
                await other.upload("other", content(SLOT_BYTES))
            finally:
                freed.set()
            await aborting.answer()
            assert len(freeing) == 1
            assert daemon.spool == []
