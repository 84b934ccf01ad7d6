"""DATA: how an upload may be cut into chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import Section, same
from uringd.conformance.cases.chunks import aligned, begin_upload
from uringd.wire import OFFSET_MAX, ErrorCode

if TYPE_CHECKING:
    from uringd.conformance.target import Target

case = SECTION = Section("DA", "DATA")


@case(1)
async def one_tail(target: Target) -> None:
    """An upload may be one chunk, its tail, of any length."""
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        await peer.data(upload, 0, b"hello")
        same("durable", 5, await peer.sync(upload))
        await peer.no_notice()


@case(2)
async def out_of_order(target: Target) -> None:
    """Chunks may be sent in any order, the tail first."""
    step, content = target.alignment, target.blocks(4) + b"tail"
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for at in (4 * step, 2 * step, 0, 3 * step, step):
            await peer.data(upload, at, content[at : at + step])
        same("durable", len(content), await peer.sync(upload))
        await peer.no_notice()


@case(3)
async def the_longest_chunk(target: Target) -> None:
    """A chunk may be as long as CREATE's `chunk_bytes`."""
    async with target.session() as peer:
        reply = await peer.create(target.name())
        length = reply.chunk_bytes - reply.chunk_bytes % target.alignment
        await peer.data(reply.upload, 0, bytes(length))
        same("durable", length, await peer.sync(reply.upload))


@case(4)
async def of_several_lengths(target: Target) -> None:
    """Chunks of one upload may be of several lengths, each a multiple of the alignment."""
    step, content, at = target.alignment, target.blocks(6), 0
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        for length in (step, 2 * step, 3 * step):
            length = min(length, target.facts.chunk_bytes_max)  # noqa: PLW2901  # within the limit
            await peer.data(upload, at, content[at : at + length])
            at += length
        same("durable", at, await peer.sync(upload))


@case(5)
async def an_aligned_tail(target: Target) -> None:
    """An upload whose size is a multiple of the alignment has no shorter tail."""
    size = 2 * target.alignment
    async with target.session() as peer:
        upload = await begin_upload(peer, target, size)
        content = target.blocks(2)
        await peer.data(upload, target.alignment, content[target.alignment :])
        await peer.data(upload, 0, content[: target.alignment])
        same("durable", size, await peer.sync(upload))
        await peer.no_notice()


@case(6, ErrorCode.NO_SPACE, ErrorCode.OUT_OF_RANGE)
async def at_the_last_position(target: Target) -> None:
    """A chunk that ends at 2^63-1 is a legal frame: it costs at most its upload."""
    step = aligned(target)
    async with target.session() as peer:
        upload = await begin_upload(peer, target)
        offset = OFFSET_MAX // step * step
        await peer.data(upload, offset, bytes(OFFSET_MAX - offset))
        await peer.alive()
        await peer.create(target.name())
