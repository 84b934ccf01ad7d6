"""Shared memory: what is attached, and chunks that lie in it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from uringd.conformance.case import Section, SkippedError, holds, same
from uringd.conformance.frames import raw
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

attach = ATTACH = Section("AT", "ATTACH")
placed = PLACED = Section("PL", "PLACED")
memory = MEMORY = Section("SM", "Shared memory")

F_ADD_SEALS, ALL_SEALS = 1033, 15
"""linux/fcntl.h: F_SEAL_SEAL, SHRINK, GROW and WRITE together."""

COPY, SLAB = pb.MEMORY_MODE_COPY, pb.MEMORY_MODE_SLAB


@contextlib.contextmanager
def _memory(content: bytes, *, sealed: bool = False) -> Iterator[int]:
    """Make memory with some bytes."""
    if not hasattr(os, "memfd_create"):
        raise SkippedError("there is no memfd_create(2) here")
    fd = os.memfd_create("conformance", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, content)
        if sealed:
            fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
        yield fd
    finally:
        os.close(fd)


async def _attach(peer: Peer, fd: int, size: int) -> pb.AttachReply:
    message = pb.Attach(mode=COPY, descriptors=1, bytes=size)
    frame, cookie = peer.frame(FrameType.ATTACH, message)
    await peer.send(frame, fd)
    reply: pb.AttachReply = await peer.reply(cookie)
    return reply


async def _not_attached(peer: Peer, fd: int, size: int, *codes: ErrorCode) -> None:
    message = pb.Attach(mode=COPY, descriptors=1, bytes=size)
    frame, cookie = peer.frame(FrameType.ATTACH, message)
    await peer.send(frame, fd)
    await peer.refused(cookie, *codes)
    await peer.alive()


async def _slab(peer: Peer) -> tuple[mmap.mmap, pb.AttachReply]:
    """Have a slab, mapped; the descriptor stays with the peer."""
    reply: pb.AttachReply = await peer.ask(FrameType.ATTACH, pb.Attach(mode=SLAB))
    same("descriptors with the slab's reply", 1, len(peer.descriptors))
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    mapping = mmap.mmap(peer.descriptors[0], reply.bytes, flags=flags)
    await peer.ask(FrameType.ATTACH, pb.Attach(mode=SLAB, mapped=True))
    return mapping, reply


async def _place(
    peer: Peer, upload: int, content: bytes, memory_offset: int = 0, fd: int = -1, offset: int = 0
) -> None:
    await peer.credit_of(1)
    message = pb.Placed(
        offset=offset,
        length=len(content),
        crc32c=crc32c(content),
        memory_offset=memory_offset,
        descriptors=int(fd >= 0),
    )
    peer.watch.chunks_sent += 1
    await peer.send(raw(FrameType.PLACED, message.SerializeToString(), upload=upload), fd)


@attach(1, ErrorCode.UNSUPPORTED)
async def not_in_force(target: Target) -> None:
    """Where no mode is in force ATTACH is UNSUPPORTED, and the session goes on."""
    async with target.session() as peer:
        for mode in (COPY, SLAB):
            message = pb.Attach(mode=mode)
            await peer.refusal(FrameType.ATTACH, message, ErrorCode.UNSUPPORTED)
        await peer.alive()


@attach(2, needs=("copy",))
async def the_clients_memory(target: Target) -> None:
    """A client's memory is attached, and the reply says its size."""
    content = target.blocks(2)
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            same("bytes", len(content), (await _attach(peer, fd, len(content))).bytes)


@attach(3, ErrorCode.BAD_FRAME, needs=("copy",))
async def no_descriptor(target: Target) -> None:
    """ATTACH without the descriptor that it says is BAD_FRAME, and the session goes on."""
    async with target.session("copy") as peer:
        await _not_attached(peer, -1, 4096, ErrorCode.BAD_FRAME)


@attach(4, ErrorCode.OUT_OF_ORDER, needs=("copy",))
async def attached_twice(target: Target) -> None:
    """A second ATTACH is OUT_OF_ORDER, and the session goes on."""
    content = target.blocks(1)
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _attach(peer, fd, len(content))
            await _not_attached(peer, fd, len(content), ErrorCode.OUT_OF_ORDER)


@attach(5, ErrorCode.UNSUPPORTED, needs=("copy",))
async def no_memory(target: Target) -> None:
    """What is no memory, a pipe for example, is UNSUPPORTED."""
    async with target.session("copy") as peer:
        ends = os.pipe()
        try:
            await _not_attached(peer, ends[0], 4096, ErrorCode.UNSUPPORTED)
        finally:
            for fd in ends:
                os.close(fd)


@attach(6, ErrorCode.UNSUPPORTED, needs=("copy",))
async def another_size(target: Target) -> None:
    """Memory of another size than is said is UNSUPPORTED."""
    content = target.blocks(1)
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _not_attached(peer, fd, len(content) + 1, ErrorCode.UNSUPPORTED)


@attach(7, needs=("slab",))
async def a_slab(target: Target) -> None:
    """A slab comes with one descriptor, as zeros, in slots that are multiples of the alignment."""
    async with target.session("slab") as peer:
        mapping, reply = await _slab(peer)
        holds(reply.slot_bytes and not reply.slot_bytes % target.alignment, "slots", reply)
        holds(not reply.bytes % reply.slot_bytes, "whole slots", reply)
        same("the slab's content", True, mapping[:] == bytes(reply.bytes))


@attach(8, ErrorCode.OUT_OF_ORDER, needs=("slab",))
async def mapped_too_early(target: Target) -> None:
    """ATTACH with `mapped` and without a slab is OUT_OF_ORDER."""
    async with target.session("slab") as peer:
        message = pb.Attach(mode=SLAB, mapped=True)
        await peer.refusal(FrameType.ATTACH, message, ErrorCode.OUT_OF_ORDER)
        await peer.alive()


@attach(9, ErrorCode.UNSUPPORTED, needs=("slab",))
async def not_touched(target: Target) -> None:
    """A slab of which the client has not touched every page is UNSUPPORTED when it is `mapped`."""
    async with target.session("slab") as peer:
        await peer.ask(FrameType.ATTACH, pb.Attach(mode=SLAB))
        message = pb.Attach(mode=SLAB, mapped=True)
        await peer.refusal(FrameType.ATTACH, message, ErrorCode.UNSUPPORTED)
        await peer.alive()


@placed(1, ErrorCode.OUT_OF_ORDER)
async def placed_without_a_mode(target: Target) -> None:
    """Where no mode is in force PLACED is OUT_OF_ORDER, which ends the session."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await _place(peer, upload, target.blocks(1))
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@placed(2, needs=("copy",))
async def copied(target: Target) -> None:
    """Chunks in attached memory are taken as chunks of DATA are, and the Receipt says "copy"."""
    content = target.blocks(3) + b"tail"
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _attach(peer, fd, len(content))
            upload = (await peer.create(target.scratch, overwrite=True)).upload
            for at in range(0, len(content), target.alignment):
                part = content[at : at + target.alignment]
                await _place(peer, upload, part, at, offset=at)
            receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)
        same("the Receipt's transport", "copy", receipt.transport)


@placed(3, needs=("copy",))
async def released(target: Target) -> None:
    """What a chunk's memory was is released with its credit, whatever became of the chunk."""
    content = target.blocks(2)
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _attach(peer, fd, len(content))
        upload = (await peer.create(target.name())).upload
        await _place(peer, upload, content[: target.alignment])
        await _place(peer, 1 << 50, content[target.alignment :], target.alignment)
        await peer.all_credit()
        found = sorted(offset for ack in peer.acks for offset in ack.message.released)
        same("what was released", [0, target.alignment], found)


@placed(4, ErrorCode.BAD_CHECKSUM, needs=("copy",))
async def other_bytes(target: Target) -> None:
    """Memory that is not what the checksum says costs the chunk: rewritten, or truncated."""
    content = target.blocks(2)
    first, second = content[: target.alignment], content[target.alignment :]
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _attach(peer, fd, len(content))
            upload = (await peer.create(target.name())).upload
            os.pwrite(fd, second[:1] + first[1:], 0)
            await _place(peer, upload, first)
            await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)
            os.ftruncate(fd, target.alignment)
            await _place(peer, upload, second, target.alignment)
            await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)
        await peer.all_credit()
        await peer.alive()


async def _ends(target: Target, code: ErrorCode, **fields: int) -> None:
    """Place a chunk of one block in memory of one, with a field that ends the session."""
    content = target.blocks(1)
    async with target.session("copy") as peer:
        with _memory(content) as fd:
            await _attach(peer, fd, len(content))
        upload = (await peer.create(target.name())).upload
        message = pb.Placed(**{"length": len(content), "crc32c": crc32c(content)} | fields)
        await peer.send(raw(FrameType.PLACED, message.SerializeToString(), upload=upload))
        await peer.ended(code)


@placed(5, ErrorCode.OUT_OF_RANGE, needs=("copy",))
async def beyond_the_memory(target: Target) -> None:
    """A place that is not in the memory is OUT_OF_RANGE, and ends the session."""
    await _ends(target, ErrorCode.OUT_OF_RANGE, memory_offset=target.alignment)


@placed(6, ErrorCode.MISALIGNED, needs=("copy",))
async def a_misaligned_place(target: Target) -> None:
    """A `memory_offset` that is no multiple of the alignment is MISALIGNED and ends the session."""
    await _ends(target, ErrorCode.MISALIGNED, memory_offset=1)


@placed(7, ErrorCode.TOO_LARGE, needs=("copy",))
async def too_long_a_chunk(target: Target) -> None:
    """A `length` above `chunk_bytes_max` is TOO_LARGE, and ends the session."""
    await _ends(target, ErrorCode.TOO_LARGE, length=target.facts.chunk_bytes_max + 1)


@placed(8, needs=("sealed",))
async def in_sealed_memory(target: Target) -> None:
    """A chunk comes in sealed memory of its own, a tail too, and the Receipt says "sealed"."""
    content = target.blocks(1) + b"tail"
    async with target.session("sealed") as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        for at in (0, target.alignment):
            part = content[at : at + target.alignment]
            with _memory(part, sealed=True) as fd:
                await _place(peer, upload, part, 0, fd, at)
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)
        same("the Receipt's transport", "sealed", receipt.transport)


@placed(9, ErrorCode.UNSUPPORTED, needs=("sealed",))
async def not_sealed(target: Target) -> None:
    """A chunk in memory that is not sealed is UNSUPPORTED, and costs itself only."""
    content = target.blocks(1)
    async with target.session("sealed") as peer:
        upload = (await peer.create(target.name())).upload
        with _memory(content) as fd:
            await _place(peer, upload, content, 0, fd)
        await peer.notice(ErrorCode.UNSUPPORTED, upload, 0)
        await peer.all_credit()
        await peer.alive()


@placed(10, ErrorCode.BAD_FRAME, needs=("copy",))
async def without_its_descriptor(target: Target) -> None:
    """PLACED without the descriptor that it says is BAD_FRAME, and ends the session."""
    await _ends(target, ErrorCode.BAD_FRAME, descriptors=1)


@placed(11, needs=("slab",))
async def in_a_slab(target: Target) -> None:
    """Chunks in a slab's slots are taken, each slot again when it was released."""
    content = target.blocks(4)
    async with target.session("slab") as peer:
        mapping, _ = await _slab(peer)
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        for at in range(0, len(content), target.alignment):
            part = content[at : at + target.alignment]
            mapping[: len(part)] = part
            await _place(peer, upload, part, 0, offset=at)
            await peer.all_credit()
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)
        same("the Receipt's transport", "slab", receipt.transport)


@placed(12, ErrorCode.OUT_OF_ORDER, needs=("slab",))
async def before_it_is_mapped(target: Target) -> None:
    """A chunk in a slab that the client has not said to have mapped is OUT_OF_ORDER."""
    async with target.session("slab") as peer:
        await peer.ask(FrameType.ATTACH, pb.Attach(mode=SLAB))
        upload = (await peer.create(target.name())).upload
        await _place(peer, upload, target.blocks(1))
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@placed(13, ErrorCode.BAD_FRAME, vectors=("placed-with-a-cookie", "placed-without-an-upload"))
async def its_header(target: Target) -> None:
    """PLACED with a cookie, or without an upload, is BAD_FRAME."""
    payload = pb.Placed(length=4096).SerializeToString()
    for cookie, upload in ((1, 1), (0, 0)):
        async with target.session() as peer:
            await peer.send(raw(FrameType.PLACED, payload, cookie=cookie, upload=upload))
            await peer.ended(ErrorCode.BAD_FRAME)


@memory(1, needs=("slab",))
async def sealed_against_the_client(target: Target) -> None:
    """A slab that is attached cannot be mapped anew for writing, truncated, or written to."""
    async with target.session("slab") as peer:
        _, reply = await _slab(peer)
        [fd] = peer.descriptors
        tricks: dict[str, Callable[[], object]] = {
            "a new writable mapping": lambda: mmap.mmap(fd, reply.bytes, flags=mmap.MAP_SHARED),
            "ftruncate": lambda: os.ftruncate(fd, 0),
            "pwrite": lambda: os.pwrite(fd, b"x", 0),
        }
        for name, trick in tricks.items():
            try:
                trick()
            except OSError:
                continue
            holds(condition=False, expected=f"{name} to be refused", got="it was not")
