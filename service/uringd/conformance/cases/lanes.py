"""Lanes: several sessions that fill one upload."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.conformance.case import Section, holds, same
from uringd.conformance.cases.resume import is_suspended
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState, crc32c

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("LA", "Lanes")

FENCED, NOT_FOUND = ErrorCode.FENCED, ErrorCode.NOT_FOUND
RESUME = FrameType.RESUME
LANES = ("resume", "lanes")


@contextlib.asynccontextmanager
async def _two_lanes(target: Target) -> AsyncIterator[tuple[Peer, int, Peer, int, str]]:
    """Lend two sessions, each with its handle of one upload, and the upload's id."""
    async with target.session(*LANES) as first, target.session(*LANES) as second:
        created = await first.create(target.scratch, overwrite=True)
        reply = await second.resume(created.upload_id, created.epoch, join=True)
        yield first, created.upload, second, reply.upload, created.upload_id


@case(1, ErrorCode.UNSUPPORTED, needs=("resume",))
async def not_in_force(target: Target) -> None:
    """Where `lanes` is not in force RESUME with `join` is UNSUPPORTED."""
    async with target.session("resume") as peer, target.session("resume") as other:
        created = await peer.create(target.name())
        message = pb.Resume(upload_id=created.upload_id, epoch=created.epoch, join=True)
        await other.refusal(RESUME, message, ErrorCode.UNSUPPORTED)
        await peer.sync(created.upload)


@case(2, needs=LANES)
async def nobody_is_fenced(target: Target) -> None:
    """RESUME with `join` and the upload's epoch fences nobody, and the epoch stays."""
    async with target.session(*LANES) as first, target.session(*LANES) as second:
        created = await first.create(target.name())
        reply = await second.resume(created.upload_id, created.epoch, join=True)
        same("the epoch", created.epoch, reply.epoch)
        holds(reply.upload, "a handle that is not 0", reply.upload)
        await first.no_notice()
        await first.sync(created.upload)


@case(3, FENCED, needs=LANES)
async def without_epoch(target: Target) -> None:
    """RESUME with `join` and epoch 0 is FENCED."""
    async with target.session(*LANES) as first, target.session(*LANES) as second:
        created = await first.create(target.name())
        message = pb.Resume(upload_id=created.upload_id, join=True)
        await second.refusal(RESUME, message, FENCED)


@case(4, FENCED, needs=LANES)
async def another_epoch(target: Target) -> None:
    """RESUME with `join` and an epoch that is not the upload's is FENCED."""
    async with target.session(*LANES) as first, target.session(*LANES) as second:
        created = await first.create(target.name())
        message = pb.Resume(upload_id=created.upload_id, epoch=created.epoch + 1, join=True)
        await second.refusal(RESUME, message, FENCED)
        await first.no_notice()


@case(5, NOT_FOUND, needs=LANES)
async def of_nobody(target: Target) -> None:
    """RESUME with `join` of an id that belongs to nobody is NOT_FOUND."""
    async with target.session(*LANES) as peer:
        message = pb.Resume(upload_id="fedcba9876543210" * 2, epoch=1, join=True)
        await peer.refusal(RESUME, message, NOT_FOUND)


@case(6, needs=LANES)
async def disjoint_ranges(target: Target) -> None:
    """Two lanes fill disjoint ranges, and the file's checksum is combined from both."""
    step, content = target.alignment, target.blocks(6) + b"tail"
    async with _two_lanes(target) as (first, upload, second, handle, _):
        for number in range(7):
            peer, own = ((first, upload), (second, handle))[number % 2]
            await peer.data(own, number * step, content[number * step : (number + 1) * step])
        await first.all_credit()
        await second.all_credit()
        receipt = await first.commit(upload, len(content))
        got = (receipt.size, receipt.crc32c)
        same("size and crc32c", (len(content), crc32c(content)), got)


@case(7, needs=LANES)
async def positions_are_the_uploads(target: Target) -> None:
    """Positions are the upload's, whichever lane filled them."""
    step = target.alignment
    async with _two_lanes(target) as (first, upload, second, handle, _):
        await first.data(upload, 0, target.blocks(1))
        await first.all_credit()
        await second.data(handle, step, target.blocks(1))
        await second.all_credit()
        same("accepted", 2 * step, second.acks[-1].message.accepted)
        same("durable", 2 * step, await second.sync(handle))


@case(8, needs=LANES)
async def credit_is_the_sessions(target: Target) -> None:
    """Each lane has the credit of its own session, and gets it back there."""
    async with _two_lanes(target) as (first, upload, second, handle, _):
        step, at = target.alignment, 0
        for peer, own in ((first, upload), (second, handle)):
            while peer.watch.credit:
                await peer.send(peer.chunk(own, at, target.blocks(1)))
                at += step
        await first.all_credit()
        await second.all_credit()


@case(9, needs=LANES)
async def any_lane_commits(target: Target) -> None:
    """A lane that joined commits, and the one that created the upload gets the same Receipt."""
    async with _two_lanes(target) as (first, upload, second, handle, _):
        await first.data(upload, 0, b"hello")
        await first.all_credit()
        receipt = await second.commit(handle, 5)
        same("the Receipt", receipt, await first.commit(upload, 5))


@case(10, NOT_FOUND, needs=LANES)
async def after_the_commit(target: Target) -> None:
    """With one lane's COMMIT the upload has ended for the others: SYNC is NOT_FOUND."""
    async with _two_lanes(target) as (first, upload, second, handle, _):
        await first.data(upload, 0, b"hello")
        await first.commit(upload, 5)
        await second.refusal(FrameType.SYNC, pb.Sync(), NOT_FOUND, upload=handle)
        await second.data(handle, 0, b"hello")
        await second.notice(NOT_FOUND, handle, 0)
        await second.all_credit()


@case(11, FENCED, needs=LANES)
async def all_are_fenced(target: Target) -> None:
    """RESUME without `join` fences every lane."""
    async with (
        _two_lanes(target) as (first, upload, second, handle, upload_id),
        target.session(*LANES) as newer,
    ):
        reply = await newer.resume(upload_id)
        await first.notice(FENCED, upload)
        await second.notice(FENCED, handle)
        await second.refusal(FrameType.SYNC, pb.Sync(), FENCED, upload=handle)
        await newer.sync(reply.upload)


@case(12, needs=LANES)
async def one_lane_is_enough(target: Target) -> None:
    """An upload is not suspended while a lane is left, and a lost lane joins again."""
    async with target.session(*LANES) as first:
        created = await first.create(target.name())
        async with target.session(*LANES) as second:
            await second.resume(created.upload_id, created.epoch, join=True)
        await first.data(created.upload, 0, target.blocks(1))
        await first.sync(created.upload)
        state = (await first.info(created.upload_id)).state
        same("the state", UploadState.RECEIVING, UploadState(state))
        async with target.session(*LANES) as again:
            reply = await again.resume(created.upload_id, created.epoch, join=True)
            same("the epoch", created.epoch, reply.epoch)
            await again.data(reply.upload, target.alignment, target.blocks(1))
            same("durable", 2 * target.alignment, await again.sync(reply.upload))


@case(13, needs=LANES)
async def the_creators_end(target: Target) -> None:
    """The lane that created an upload may end: the others go on."""
    async with target.session(*LANES) as second:
        async with target.session(*LANES) as first:
            created = await first.create(target.name())
            reply = await second.resume(created.upload_id, created.epoch, join=True)
        async with target.session() as other:
            await other.alive()
        await second.data(reply.upload, 0, target.blocks(1))
        same("durable", target.alignment, await second.sync(reply.upload))
        await second.no_notice()


@case(14, needs=LANES)
async def no_lane_left(target: Target) -> None:
    """When no lane is left the upload is suspended; the first that joins takes it up, at the same
    epoch and with the durable ranges.
    """
    content = target.blocks(1)
    async with target.session(*LANES) as first, target.session(*LANES) as second:
        created = await first.create(target.name())
        reply = await second.resume(created.upload_id, created.epoch, join=True)
        await second.data(reply.upload, 0, content)
        await second.sync(reply.upload)
    async with target.session(*LANES) as peer:
        await target.until("a SUSPENDED upload", lambda: is_suspended(peer, created.upload_id))
        reply = await peer.resume(created.upload_id, created.epoch, join=True)
        same("the epoch", created.epoch, reply.epoch)
        found = [(part.offset, part.length, part.crc32c) for part in reply.durable]
        same("the ranges", [(0, len(content), crc32c(content))], found)


@case(15, ErrorCode.CONFLICT, needs=LANES)
async def a_conflict(target: Target) -> None:
    """Other bytes where another lane's are is CONFLICT, told to the lane that sent them."""
    async with _two_lanes(target) as (first, upload, second, handle, _):
        await first.data(upload, 0, target.blocks(1))
        await first.all_credit()
        await second.data(handle, 0, target.blocks(1, seed=1))
        await second.notice(ErrorCode.CONFLICT, handle, 0)
        await first.no_notice()


@case(16, needs=LANES)
async def the_same_twice(target: Target) -> None:
    """A chunk that another lane has sent already is success."""
    async with _two_lanes(target) as (first, upload, second, handle, _):
        for peer, own in ((first, upload), (second, handle)):
            await peer.data(own, 0, target.blocks(1))
            await peer.all_credit()
        await second.no_notice()


@case(17, NOT_FOUND, needs=LANES)
async def aborted(target: Target) -> None:
    """An upload that one lane aborts is gone for all."""
    async with _two_lanes(target) as (first, upload, second, handle, upload_id):
        await first.abort(upload)
        await second.refusal(FrameType.SYNC, pb.Sync(), NOT_FOUND, upload=handle)
        await second.refusal(FrameType.STAT, pb.Stat(upload_id=upload_id), NOT_FOUND)


@case(18, ErrorCode.INCOMPLETE, needs=LANES)
async def what_no_lane_sent(target: Target) -> None:
    """What no lane has sent is missing, whichever lane commits."""
    step = target.alignment
    async with _two_lanes(target) as (first, upload, second, handle, _):
        await first.data(upload, 0, target.blocks(1))
        await first.all_credit()
        await second.data(handle, 2 * step, target.blocks(1))
        await second.all_credit()
        for peer, own in ((first, upload), (second, handle)):
            same("missing", [(step, step)], await peer.incomplete(own, 3 * step))
