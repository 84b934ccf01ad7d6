"""Fencing: what is left to a session whose upload a newer one has taken over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.conformance.case import same
from uringd.conformance.cases import resume
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = resume.SECTION

FENCED = ErrorCode.FENCED
NEEDS = ("resume",)


@contextlib.asynccontextmanager
async def _taken_over(target: Target) -> AsyncIterator[tuple[Peer, int, Peer, int]]:
    """Lend two sessions with their handles of one upload; the second has just taken it over."""
    async with target.session("resume") as old, target.session("resume") as new:
        created = await old.create(target.scratch, overwrite=True)
        reply = await new.resume(created.upload_id)
        yield old, created.upload, new, reply.upload


@case(41, FENCED, needs=NEEDS)
async def it_is_told(target: Target) -> None:
    """A session whose upload is taken over gets ERROR FENCED with its handle, unasked."""
    async with _taken_over(target) as (old, upload, _, _):
        await old.notice(FENCED, upload)
        await old.no_notice()


@case(42, FENCED, needs=NEEDS)
async def the_new_one_is_not(target: Target) -> None:
    """The session that took an upload over is not fenced: it fills and publishes it."""
    async with _taken_over(target) as (_, _, new, upload):
        await new.data(upload, 0, b"hello")
        same("the size", 5, (await new.commit(upload, 5)).size)
        await new.no_notice()


@case(43, FENCED, needs=NEEDS)
async def its_chunks(target: Target) -> None:
    """A fenced session's chunks are thrown away without a word, with their credit returned."""
    async with _taken_over(target) as (old, upload, _, _):
        await old.notice(FENCED, upload)
        for number in range(3 * old.watch.granted):
            await old.data(upload, number * target.alignment, target.blocks(1))
        await old.all_credit()
        await old.no_notice()


@case(44, FENCED, ErrorCode.INCOMPLETE, needs=NEEDS)
async def they_do_not_arrive(target: Target) -> None:
    """A fenced session's chunks are not in the upload: what they had held is missing."""
    step = target.alignment
    async with _taken_over(target) as (old, upload, new, handle):
        await old.notice(FENCED, upload)
        await old.data(upload, 0, target.blocks(1))
        await old.all_credit()
        await new.data(handle, step, target.blocks(1))
        same("missing", [(0, step)], await new.incomplete(handle, 2 * step))


@case(45, FENCED, needs=NEEDS)
async def they_are_no_conflict(target: Target) -> None:
    """A fenced session's chunks are no conflict for the newer one's: its bytes are published."""
    content = target.blocks(1)
    async with _taken_over(target) as (old, upload, new, handle):
        await old.notice(FENCED, upload)
        await old.data(upload, 0, target.blocks(1, seed=1))
        await old.all_credit()
        await new.data(handle, 0, content)
        receipt = await new.commit(handle, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)


@case(46, FENCED, needs=NEEDS)
async def its_requests(target: Target) -> None:
    """A fenced session's SYNC, COMMIT and ABORT of the upload are FENCED."""
    async with _taken_over(target) as (old, upload, new, handle):
        for frame_type, message in (
            (FrameType.SYNC, pb.Sync()),
            (FrameType.COMMIT, pb.Commit(size=0)),
            (FrameType.ABORT, pb.Abort()),
        ):
            await old.refusal(frame_type, message, FENCED, upload=upload)
        await new.sync(handle)


@case(47, FENCED, needs=NEEDS)
async def it_goes_on(target: Target) -> None:
    """A fenced session goes on: it begins and publishes other uploads."""
    async with _taken_over(target) as (old, upload, _, _):
        await old.notice(FENCED, upload)
        other = (await old.create(target.scratch, overwrite=True)).upload
        await old.data(other, 0, b"hello")
        await old.commit(other, 5)


@case(48, FENCED, needs=NEEDS)
async def others_are_not_fenced(target: Target) -> None:
    """Only the upload that was taken over is fenced, not another one of the session."""
    async with _taken_over(target) as (old, upload, _, _):
        await old.notice(FENCED, upload)
        other = (await old.create(target.name())).upload
        await old.data(other, 0, b"hello")
        same("durable", 5, await old.sync(other))


@case(49, FENCED, needs=NEEDS)
async def with_the_epoch(target: Target) -> None:
    """RESUME that names the upload's epoch takes it over from a session that still holds it."""
    async with target.session("resume") as old, target.session("resume") as new:
        created = await old.create(target.name())
        reply = await new.resume(created.upload_id, created.epoch)
        same("the epoch", created.epoch + 1, reply.epoch)
        await old.notice(FENCED, created.upload)


@case(50, FENCED, needs=NEEDS)
async def not_back_again(target: Target) -> None:
    """A fenced client that names the epoch it knew does not get the upload back."""
    async with target.session("resume") as old, target.session("resume") as new:
        created = await old.create(target.name())
        handle = (await new.resume(created.upload_id, created.epoch)).upload
        await old.notice(FENCED, created.upload)
        message = pb.Resume(upload_id=created.upload_id, epoch=created.epoch)
        await old.refusal(FrameType.RESUME, message, FENCED)
        await new.sync(handle)
        await new.no_notice()


@case(51, FENCED, needs=NEEDS)
async def its_end_changes_nothing(target: Target) -> None:
    """The end of a fenced session does not suspend the upload of the newer one."""
    async with target.session("resume") as new:
        async with target.session("resume") as old:
            created = await old.create(target.name())
            handle = (await new.resume(created.upload_id)).upload
            await old.notice(FENCED, created.upload)
        async with target.session() as other:
            await other.alive()
        await new.data(handle, 0, target.blocks(1))
        same("durable", target.alignment, await new.sync(handle))


@case(52, FENCED, needs=NEEDS)
async def what_it_had_sent(target: Target) -> None:
    """What was durable before an upload was taken over is in the ranges of the newer session."""
    content = target.blocks(1)
    async with target.session("resume") as old, target.session("resume") as new:
        created = await old.create(target.name())
        await old.data(created.upload, 0, content)
        await old.sync(created.upload)
        reply = await new.resume(created.upload_id)
        found = [(part.offset, part.length, part.crc32c) for part in reply.durable]
        same("the ranges", [(0, len(content), crc32c(content))], found)
