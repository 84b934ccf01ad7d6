"""COMMIT, Ordering and durability: how an upload gets its name."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from uringd.conformance.case import Section, holds, same
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import RANGES_MAX, Durability, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("CO", "COMMIT")
ordering = ORDERING = Section("OR", "Ordering and durability")

COMMIT = FrameType.COMMIT
TEXT = b"hello"
CLOCK_SLACK_S = 1.0
"""How much longer an upload may have taken by the server's clock than by ours."""


async def _filled(peer: Peer, target: Target, **options: object) -> int:
    """Begin an upload of TEXT, which may replace the scratch file."""
    upload = (await peer.create(target.scratch, overwrite=True, **options)).upload
    await peer.data(upload, 0, TEXT)
    return upload


@case(1)
async def the_receipt(target: Target) -> None:
    """The Receipt has the upload's id, name, size and checksum, and the server's instance id."""
    async with target.session() as peer:
        created = await peer.create(target.scratch, overwrite=True)
        await peer.data(created.upload, 0, TEXT)
        receipt = await peer.commit(created.upload, len(TEXT))
        same("the upload id", created.upload_id, receipt.upload_id)
        same("the name", target.scratch, receipt.name)
        same("size and crc32c", (len(TEXT), crc32c(TEXT)), (receipt.size, receipt.crc32c))
        same("the instance id", peer.instance_id, receipt.instance_id)


@case(2)
async def its_time(target: Target) -> None:
    """The Receipt's seconds are those from CREATE to it, whatever the clocks of the two say."""
    began = time.monotonic()
    async with target.session() as peer:
        upload = await _filled(peer, target)
        receipt = await peer.commit(upload, len(TEXT))
    took_s = time.monotonic() - began
    holds(math.isfinite(receipt.seconds), "finite seconds", receipt.seconds)
    least, most = 0, took_s + CLOCK_SLACK_S
    holds(least <= receipt.seconds <= most, f"{least} to {most:.3f} seconds", receipt.seconds)


@case(3)
async def it_is_published(target: Target) -> None:
    """After the Receipt the file is there under its name."""
    async with target.session() as peer:
        await peer.commit(await _filled(peer, target), len(TEXT))
        reply: pb.StatReply = await peer.ask(FrameType.STAT, pb.Stat(name=target.scratch))
        same("name and size", (target.scratch, len(TEXT)), (reply.file.name, reply.file.size))


@case(4, ErrorCode.INCOMPLETE)
async def the_missing_ranges(target: Target) -> None:
    """COMMIT of an upload with holes is INCOMPLETE, and `missing` has exactly the holes."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in (1, 2, 5):
            await peer.data(upload, number * step, target.blocks(1))
        wanted = [(0, step), (3 * step, 2 * step), (6 * step, step + 5)]
        same("missing", wanted, await peer.incomplete(upload, 7 * step + 5))


@case(5, ErrorCode.INCOMPLETE)
async def mended(target: Target) -> None:
    """INCOMPLETE leaves the upload open: with the missing ranges sent it is committed."""
    step, content = target.alignment, target.blocks(3)
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        await peer.data(upload, step, content[step : 2 * step])
        for offset, length in await peer.incomplete(upload, 3 * step):
            await peer.data(upload, offset, content[offset : offset + length])
        receipt = await peer.commit(upload, 3 * step, crc32c=crc32c(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)


@case(6, ErrorCode.INCOMPLETE)
async def nothing_came(target: Target) -> None:
    """All of an upload without chunks is missing."""
    async with target.session() as peer:
        upload = (await peer.create(target.name(), size=5)).upload
        same("missing", [(0, 5)], await peer.incomplete(upload, 5))


@case(7, ErrorCode.INCOMPLETE)
async def the_first_ranges(target: Target) -> None:
    """`missing` has the first 1,024 ranges where there are more."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(RANGES_MAX):
            await peer.data(upload, (2 * number + 1) * step, bytes(step))
        wanted = [(2 * number * step, step) for number in range(RANGES_MAX)]
        same("missing", wanted, await peer.incomplete(upload, (2 * RANGES_MAX + 1) * step))


@case(8, ErrorCode.OUT_OF_RANGE)
async def another_size(target: Target) -> None:
    """COMMIT of a size that is not CREATE's is OUT_OF_RANGE."""
    async with target.session() as peer:
        upload = await _filled(peer, target, size=len(TEXT))
        for size in (len(TEXT) - 1, len(TEXT) + 1):
            message = pb.Commit(size=size)
            await peer.refusal(COMMIT, message, ErrorCode.OUT_OF_RANGE, upload=upload)


@case(9, ErrorCode.OUT_OF_RANGE)
async def chunks_beyond(target: Target) -> None:
    """COMMIT of a size beyond which there are chunks is OUT_OF_RANGE."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(2))
        message = pb.Commit(size=target.alignment)
        await peer.refusal(COMMIT, message, ErrorCode.OUT_OF_RANGE, upload=upload)


@case(10, ErrorCode.CONTENT_MISMATCH)
async def another_checksum(target: Target) -> None:
    """COMMIT with another checksum is CONTENT_MISMATCH and leaves the upload as it was."""
    async with target.session() as peer:
        upload = await _filled(peer, target)
        message = pb.Commit(size=len(TEXT), crc32c=crc32c(TEXT) ^ 1)
        await peer.refusal(COMMIT, message, ErrorCode.CONTENT_MISMATCH, upload=upload)
        await peer.commit(upload, len(TEXT), crc32c=crc32c(TEXT))


@case(11, ErrorCode.EXISTS)
async def taken_meanwhile(target: Target) -> None:
    """Who commits first has the name: the other's COMMIT is EXISTS and leaves its upload open."""
    name = target.name()
    async with target.session() as peer, target.session() as other:
        first, second = (await peer.create(name)).upload, (await other.create(name)).upload
        await peer.data(first, 0, TEXT)
        await other.data(second, 0, b"later")
        await peer.commit(first, len(TEXT))
        message = pb.Commit(size=5)
        for _ in range(2):
            await other.refusal(COMMIT, message, ErrorCode.EXISTS, upload=second)
        same("durable", 5, await other.sync(second))
        await other.abort(second)


@case(12)
async def replaced(target: Target) -> None:
    """With `overwrite` the new file replaces the old one at COMMIT, and not before."""
    async with target.session() as peer:
        await peer.commit(await _filled(peer, target), len(TEXT))
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        await peer.data(upload, 0, b"longer than before")
        await peer.sync(upload)
        stat = pb.Stat(name=target.scratch)
        before: pb.StatReply = await peer.ask(FrameType.STAT, stat)
        same("the size before COMMIT", len(TEXT), before.file.size)
        await peer.commit(upload, 18)
        after: pb.StatReply = await peer.ask(FrameType.STAT, stat)
        same("the size after COMMIT", 18, after.file.size)


@case(13)
async def an_empty_file(target: Target) -> None:
    """A file of no bytes can be published, with its size known or not."""
    async with target.session() as peer:
        for options in ({}, {"size": 0}):
            created = await peer.create(target.scratch, overwrite=True, **options)
            receipt = await peer.commit(created.upload, 0, crc32c=0)
            same("size and crc32c", (0, 0), (receipt.size, receipt.crc32c))


@case(14)
async def an_unknown_size(target: Target) -> None:
    """An upload whose size CREATE did not know has that of COMMIT."""
    content = target.blocks(2)
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        for at in (0, target.alignment):
            await peer.data(upload, at, content[at : at + target.alignment])
        same("the size", len(content), (await peer.commit(upload, len(content))).size)


@case(15, ErrorCode.NOT_FOUND)
async def the_handle_is_gone(target: Target) -> None:
    """After the Receipt the handle is gone: SYNC, ABORT and COMMIT are NOT_FOUND."""
    async with target.session() as peer:
        upload = await _filled(peer, target)
        await peer.commit(upload, len(TEXT))
        for frame_type, message in (
            (FrameType.SYNC, pb.Sync()),
            (FrameType.ABORT, pb.Abort()),
            (COMMIT, pb.Commit(size=len(TEXT))),
        ):
            await peer.refusal(frame_type, message, ErrorCode.NOT_FOUND, upload=upload)


@case(16, ErrorCode.NOT_FOUND)
async def no_such_upload(target: Target) -> None:
    """COMMIT of a handle that there is not is NOT_FOUND."""
    async with target.session() as peer:
        message = pb.Commit(size=0)
        await peer.refusal(COMMIT, message, ErrorCode.NOT_FOUND, upload=1 << 50)


@case(17)
async def its_level(target: Target) -> None:
    """The Receipt names the level that COMMIT asked for, or a higher one."""
    async with target.session() as peer:
        for level in (Durability.WRITTEN, Durability.DURABLE, Durability.PUBLISHED):
            upload = await _filled(peer, target)
            receipt = await peer.commit(upload, len(TEXT), durability=int(level))
            holds(receipt.durability >= level, f"{level.name} or more", receipt.durability)


@case(18)
async def the_level_of_create(target: Target) -> None:
    """A COMMIT that names no level has CREATE's, and PUBLISHED where that names none either."""
    async with target.session() as peer:
        for level in (Durability.UNSPECIFIED, Durability.DURABLE, Durability.PUBLISHED):
            upload = await _filled(peer, target, durability=int(level))
            receipt = await peer.commit(upload, len(TEXT))
            least = level or Durability.PUBLISHED
            holds(receipt.durability >= least, f"{least.name} or more", receipt.durability)


@case(19)
async def a_known_checksum(target: Target) -> None:
    """COMMIT with the right checksum is granted."""
    async with target.session() as peer:
        upload = await _filled(peer, target)
        receipt = await peer.commit(upload, len(TEXT), crc32c=crc32c(TEXT))
        same("crc32c", crc32c(TEXT), receipt.crc32c)


@case(20)
async def aborted_after_a_refusal(target: Target) -> None:
    """An upload whose COMMIT was INCOMPLETE can be aborted."""
    async with target.session() as peer:
        upload = (await peer.create(target.name(), size=5)).upload
        await peer.incomplete(upload, 5)
        await peer.abort(upload)


@ordering(1, ErrorCode.NOT_FOUND)
async def not_before_the_commit(target: Target) -> None:
    """Without `overwrite` there is nothing under the name before COMMIT."""
    name = target.name()
    async with target.session() as peer:
        upload = (await peer.create(name)).upload
        await peer.data(upload, 0, TEXT)
        await peer.sync(upload)
        await peer.refusal(FrameType.STAT, pb.Stat(name=name), ErrorCode.NOT_FOUND)
        reply: pb.ListReply = await peer.ask(FrameType.LIST, pb.List(prefix=name))
        same("files listed", 0, len(reply.files))


@ordering(2)
async def written_counts_what_is_written(target: Target) -> None:
    """STAT of an upload has positions as in ACK: durable behind SYNC is all that was sent."""
    async with target.session() as peer:
        created = await peer.create(target.name())
        await peer.data(created.upload, 0, target.blocks(1))
        await peer.sync(created.upload)
        known = await peer.info(created.upload_id)
        wanted = (target.alignment,) * 3
        same("positions", wanted, (known.accepted, known.written, known.durable))


@ordering(3)
async def one_life(target: Target) -> None:
    """The instance id is the same in HELLO's reply, SYNC's reply and the Receipt of one life."""
    async with target.connection() as peer:
        greeting = await peer.hello(token=target.token)
        upload = await _filled(peer, target)
        reply: pb.SyncReply = await peer.ask(FrameType.SYNC, pb.Sync(), upload)
        receipt = await peer.commit(upload, len(TEXT))
        same("SYNC's instance id", greeting.instance_id, reply.instance_id)
        same("the Receipt's instance id", greeting.instance_id, receipt.instance_id)
