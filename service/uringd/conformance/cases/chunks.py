"""Chunks: what DATA may be, and what costs the chunk only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, SkippedError, same
from uringd.conformance.peer import described
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import RANGES_MAX, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("CH", "Chunks")

CONFLICT, OUT_OF_RANGE = ErrorCode.CONFLICT, ErrorCode.OUT_OF_RANGE
MISALIGNED = ErrorCode.MISALIGNED


async def begin_upload(peer: Peer, target: Target, size: int | None = None) -> int:
    """Begin an upload; its handle."""
    return (await peer.create(target.name(), size=size)).upload


def aligned(target: Target) -> int:
    """Return the alignment, where there is one to break."""
    if target.alignment == 1:
        raise SkippedError("every offset and length is a multiple of this server's alignment, 1")
    return target.alignment


@case(1, MISALIGNED)
async def misaligned_offset(target: Target) -> None:
    """A chunk whose offset is no multiple of the alignment is MISALIGNED."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await _refused(peer, upload, step + 1, bytes(step), MISALIGNED)


@case(2, OUT_OF_RANGE)
async def odd_length_inside(target: Target) -> None:
    """A chunk of odd length whose end is not the size of CREATE is OUT_OF_RANGE."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target, 4 * step)
        await _refused(peer, upload, 0, bytes(step - 1), OUT_OF_RANGE)


@case(3, OUT_OF_RANGE)
async def beyond_the_size(target: Target) -> None:
    """A chunk that ends beyond the size of CREATE is OUT_OF_RANGE."""
    step = target.alignment
    async with target.session() as peer:
        upload = await begin_upload(peer, target, 2 * step)
        await _refused(peer, upload, 2 * step, bytes(step), OUT_OF_RANGE)


@case(4, OUT_OF_RANGE)
async def across_the_size(target: Target) -> None:
    """A chunk that begins below the size of CREATE and ends beyond it is OUT_OF_RANGE."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target, step + 1)
        await _refused(peer, upload, step, bytes(2), OUT_OF_RANGE)


@case(5, OUT_OF_RANGE)
async def beyond_the_tail(target: Target) -> None:
    """A chunk that lies beyond the tail is OUT_OF_RANGE."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.data(upload, step, b"tail")
        await _refused(peer, upload, 2 * step, bytes(step), OUT_OF_RANGE)
        await _refused(peer, upload, 2 * step, b"tail", OUT_OF_RANGE)


@case(6, OUT_OF_RANGE)
async def tail_before_bytes(target: Target) -> None:
    """A tail that lies before a byte that is there is OUT_OF_RANGE."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.data(upload, 2 * step, target.blocks(1))
        await _refused(peer, upload, 0, b"tail", OUT_OF_RANGE)


@case(7, OUT_OF_RANGE)
async def nothing_in_nothing(target: Target) -> None:
    """An upload whose size is 0 takes no chunk: each is OUT_OF_RANGE."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target, 0)
        await _refused(peer, upload, 0, b"x", OUT_OF_RANGE)


@case(8, ErrorCode.TOO_LARGE)
async def above_chunk_bytes(target: Target) -> None:
    """A chunk above the upload's `chunk_bytes` but not above `chunk_bytes_max` is TOO_LARGE."""
    async with target.session() as peer:
        reply = await peer.create(target.name())
        if reply.chunk_bytes == target.facts.chunk_bytes_max:
            raise SkippedError("this server's chunk_bytes is its chunk_bytes_max")
        content = bytes(target.facts.chunk_bytes_max)
        await _refused(peer, reply.upload, 0, content, ErrorCode.TOO_LARGE)


@case(9)
async def the_same_again(target: Target) -> None:
    """A chunk that is sent again with its offset, length and checksum is success."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for _ in range(3):
            await peer.data(upload, 0, target.blocks(1))
        same("durable", target.alignment, await peer.sync(upload))
        await peer.all_credit()
        await peer.no_notice()


@case(10)
async def the_tail_again(target: Target) -> None:
    """A tail that is sent again is success."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for _ in range(2):
            await peer.data(upload, 0, b"tail")
        await peer.all_credit()
        await peer.no_notice()


@case(11, CONFLICT)
async def other_bytes(target: Target) -> None:
    """A chunk with the offset and length of one that is there and another checksum is CONFLICT."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.data(upload, 0, target.blocks(1))
        await _refused(peer, upload, 0, target.blocks(1, seed=1), CONFLICT)


@case(12, CONFLICT)
async def a_shorter_cut(target: Target) -> None:
    """A chunk with the offset of one that is there and a smaller length is CONFLICT."""
    await _overlap(target, there=(0, 2), late=(0, 1))


@case(13, CONFLICT)
async def a_longer_cut(target: Target) -> None:
    """A chunk with the offset of one that is there and a greater length is CONFLICT."""
    await _overlap(target, there=(0, 1), late=(0, 2))


@case(14, CONFLICT)
async def overlap_before(target: Target) -> None:
    """A chunk that begins before one that is there and ends within it is CONFLICT."""
    await _overlap(target, there=(1, 2), late=(0, 2))


@case(15, CONFLICT)
async def overlap_behind(target: Target) -> None:
    """A chunk that begins within one that is there and ends behind it is CONFLICT."""
    await _overlap(target, there=(0, 2), late=(1, 2))


@case(16, CONFLICT)
async def overlap_around(target: Target) -> None:
    """A chunk that covers a smaller one that is there is CONFLICT."""
    await _overlap(target, there=(1, 1), late=(0, 3))


@case(17, CONFLICT)
async def overlap_within(target: Target) -> None:
    """A chunk that lies within a greater one that is there is CONFLICT."""
    await _overlap(target, there=(0, 3), late=(1, 1))


@case(18, CONFLICT)
async def what_is_there_stays(target: Target) -> None:
    """After a CONFLICT the bytes that are there are the ones that came first."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        content = target.blocks(1)
        await peer.data(upload, 0, content)
        await peer.data(upload, 0, target.blocks(1, seed=1))
        await peer.notice(CONFLICT, upload, 0)
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)


@case(19)
async def as_many_ranges_as_there_may_be(target: Target) -> None:
    """An upload may have 1,024 separate ranges."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await _scatter(peer, target, upload)
        await peer.no_notice()


@case(20, ErrorCode.TOO_MANY_RANGES)
async def one_range_too_many(target: Target) -> None:
    """A chunk that touches none of 1,024 ranges is TOO_MANY_RANGES; others are taken."""
    step = target.alignment
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await _scatter(peer, target, upload)
        far = (2 * RANGES_MAX + 2) * step
        await _refused(peer, upload, far, bytes(step), ErrorCode.TOO_MANY_RANGES)
        await peer.data(upload, step, bytes(step))
        await peer.data(upload, far, bytes(step))
        await peer.sync(upload)
        await peer.no_notice()


@case(21)
async def the_last_ones_are_known(target: Target) -> None:
    """The first of the last 1,024 chunks is still known: sent again it is success."""
    step = target.alignment
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for number in range(1024):
            await peer.data(upload, number * step, bytes(step))
        await peer.data(upload, 0, bytes(step))
        await peer.all_credit()
        await peer.no_notice()


@case(22, ErrorCode.NOT_FOUND)
async def no_such_upload(target: Target) -> None:
    """A chunk for a handle that there is not is NOT_FOUND, with its credit returned."""
    async with target.session() as peer:
        await peer.data(1 << 50, 4 * target.alignment, target.blocks(1))
        await peer.notice(ErrorCode.NOT_FOUND, 1 << 50, 4 * target.alignment)
        await peer.all_credit()
        await peer.alive()


@case(23, ErrorCode.NOT_FOUND)
async def after_the_abort(target: Target) -> None:
    """A chunk for an upload that was aborted is NOT_FOUND."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.abort(upload)
        await peer.data(upload, 0, b"late")
        await peer.notice(ErrorCode.NOT_FOUND, upload, 0)


@case(24, ErrorCode.OUT_OF_ORDER, ErrorCode.NOT_FOUND)
async def after_the_commit(target: Target) -> None:
    """A chunk behind COMMIT is OUT_OF_ORDER while that is at work, and NOT_FOUND afterwards."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        first = peer.chunk(upload, 0, target.blocks(1))
        message = pb.Commit(size=target.alignment)
        frame, cookie = peer.frame(FrameType.COMMIT, message, upload)
        await peer.credit_of(1)
        await peer.send(first + frame)
        await peer.data(upload, target.alignment, b"late")
        await peer.reply(cookie)
        while not peer.notices:
            if await peer.receive() is None:
                raise FailedError("an ERROR about the chunk", "the end")
        event = peer.notices[0]
        if event.message.code not in {ErrorCode.OUT_OF_ORDER, ErrorCode.NOT_FOUND}:
            raise FailedError("ERROR OUT_OF_ORDER or NOT_FOUND", described(event))
        await peer.all_credit()


@case(25, ErrorCode.BAD_CHECKSUM)
async def refused_as_if_not_sent(target: Target) -> None:
    """A refused chunk is as if it had not been sent: COMMIT says that it is missing."""
    step = target.alignment
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.data(upload, 0, target.blocks(1))
        await peer.data(upload, step, target.blocks(1), crc=1)
        await peer.notice(ErrorCode.BAD_CHECKSUM, upload, step)
        same("missing", [(step, step)], await peer.incomplete(upload, 2 * step))


@case(26, MISALIGNED)
async def others_go_on(target: Target) -> None:
    """A refused chunk costs neither its upload nor another one of the session."""
    step = aligned(target)
    async with target.session() as peer:
        upload, other = await begin_upload(peer, target), await begin_upload(peer, target)
        await _refused(peer, upload, 1, bytes(step), MISALIGNED)
        for handle in (upload, other):
            await peer.data(handle, 0, target.blocks(1))
            same("durable", step, await peer.sync(handle))


async def _refused(peer: Peer, upload: int, offset: int, content: bytes, code: ErrorCode) -> None:
    """Send a chunk that is refused with its offset; its credit comes back, the session goes on."""
    await peer.data(upload, offset, content)
    await peer.notice(code, upload, offset)
    await peer.all_credit()
    await peer.no_notice()


async def _overlap(target: Target, there: tuple[int, int], late: tuple[int, int]) -> None:
    """Send two chunks, offset and length in alignments, cut from one content."""
    step, content = target.alignment, target.blocks(3)
    if 3 * step > target.facts.chunk_bytes_max:
        raise SkippedError("a chunk of this server holds less than three alignments")
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for at, length in (there, late):
            await peer.data(upload, at * step, content[at * step : (at + length) * step])
        await peer.notice(CONFLICT, upload, late[0] * step)
        same("missing", [], _holes(await peer.incomplete(upload, 5 * step), there, step))


def _holes(
    missing: list[tuple[int, int]], there: tuple[int, int], step: int
) -> list[tuple[int, int]]:
    """Return what is missing although it is outside of what is there, or the other way round."""
    begin, end = there[0] * step, (there[0] + there[1]) * step
    wanted = [(0, begin)] if begin else []
    wanted.append((end, 5 * step - end))
    return sorted(set(missing) ^ set(wanted))


async def _scatter(peer: Peer, target: Target, upload: int) -> None:
    """Fill 1,024 ranges with a hole behind each."""
    step = target.alignment
    for number in range(RANGES_MAX):
        await peer.data(upload, 2 * number * step, bytes(step))
    await peer.all_credit()
