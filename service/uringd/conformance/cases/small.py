"""Small uploads: a whole file in one request, many on their way at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import Section, holds, same
from uringd.conformance.peer import described, refused
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    REQUESTS_MAX,
    SMALL_BYTES_MAX,
    Durability,
    ErrorCode,
    FrameType,
    crc32c,
)

if TYPE_CHECKING:
    from uringd.conformance.target import Target

case = SECTION = Section("SU", "Small uploads")

FEATURE = "small-uploads"
NEEDS = (FEATURE,)


@case(1, ErrorCode.UNSUPPORTED)
async def not_in_force(target: Target) -> None:
    """Where `small-uploads` is not in force PUT is UNSUPPORTED, and the session goes on."""
    async with target.session() as peer:
        message = pb.Put(name=target.name(), content=b"x")
        await peer.refusal(FrameType.PUT, message, ErrorCode.UNSUPPORTED)
        await peer.alive()


@case(2)
async def said_in_hello(target: Target) -> None:
    """HELLO's reply has `small_bytes_max` where `small-uploads` is in force, and only there."""
    async with target.connection() as peer:
        same("without it", 0, (await peer.hello(token=target.token)).small_bytes_max)
    if FEATURE in target.features:
        limit = target.facts.small_bytes_max
        holds(0 < limit <= SMALL_BYTES_MAX, f"1 to {SMALL_BYTES_MAX}", limit)


@case(3, needs=NEEDS)
async def whole(target: Target) -> None:
    """PUT's reply is a Receipt about the content, of level PUBLISHED where nothing is asked for,
    and the file is there.
    """
    name, content = target.scratch, target.blocks(1) + b"tail"
    async with target.session(FEATURE) as peer:
        message = pb.Put(name=name, content=content, overwrite=True)
        receipt: pb.Receipt = await peer.ask(FrameType.PUT, message)
        same("the name", name, receipt.name)
        same("the size", len(content), receipt.size)
        same("the checksum", crc32c(content), receipt.crc32c)
        same("the level", Durability.PUBLISHED, receipt.durability)
        same("unchanged", expected=False, got=receipt.unchanged)
        stat: pb.StatReply = await peer.ask(FrameType.STAT, pb.Stat(name=name))
        same("the file's size", len(content), stat.file.size)


@case(4, ErrorCode.EXISTS, needs=NEEDS)
async def asked_again(target: Target) -> None:
    """A PUT that is sent again is EXISTS, with `keep_equal` a Receipt with `unchanged`."""
    message = pb.Put(name=await target.published(), content=b"hello")
    async with target.session(FEATURE) as peer:
        await peer.refusal(FrameType.PUT, message, ErrorCode.EXISTS)
        message.keep_equal = True
        receipt: pb.Receipt = await peer.ask(FrameType.PUT, message)
        same("unchanged", expected=True, got=receipt.unchanged)
        same("the checksum", crc32c(b"hello"), receipt.crc32c)


@case(5, ErrorCode.EXISTS, needs=NEEDS)
async def other_content(target: Target) -> None:
    """With `keep_equal` a file of the same length and other content is EXISTS."""
    message = pb.Put(name=await target.published(), content=b"hallo", keep_equal=True)
    async with target.session(FEATURE) as peer:
        await peer.refusal(FrameType.PUT, message, ErrorCode.EXISTS)


@case(6, ErrorCode.BAD_NAME, needs=NEEDS)
async def bad_name(target: Target) -> None:
    """A bad name costs the request only."""
    async with target.session(FEATURE) as peer:
        message = pb.Put(name="../x", content=b"x")
        await peer.refusal(FrameType.PUT, message, ErrorCode.BAD_NAME)
        await peer.alive()


@case(7, ErrorCode.TOO_LARGE, needs=NEEDS)
async def too_long(target: Target) -> None:
    """Content above `small_bytes_max` is TOO_LARGE, which costs the request only."""
    content = bytes(target.facts.small_bytes_max + 1)
    async with target.session(FEATURE) as peer:
        message = pb.Put(name=target.name(), content=content)
        await peer.refusal(FrameType.PUT, message, ErrorCode.TOO_LARGE)
        await peer.alive()


@case(8, ErrorCode.EXISTS, needs=NEEDS)
async def many(target: Target) -> None:
    """64 PUTs sent without waiting are each answered, whatever becomes of them."""
    name = await target.published()
    async with target.session(FEATURE) as peer:
        frames, cookies = [], []
        for number in range(REQUESTS_MAX):
            message = pb.Put(name=name, content=b"hello", keep_equal=number % 2 == 0)
            frame, cookie = peer.frame(FrameType.PUT, message)
            frames.append(frame)
            cookies.append(cookie)
        await peer.send(b"".join(frames))
        for number, cookie in enumerate(cookies):
            event = await peer.answer(cookie)
            if number % 2:
                refused(event, ErrorCode.EXISTS)
            else:
                holds(event.type is FrameType.PUT, "a Receipt", described(event))


@case(9, needs=NEEDS)
async def of_one_name(target: Target) -> None:
    """Two PUTs of one name in one session end as if the second had come after the first."""
    name = target.scratch
    async with target.session(FEATURE) as peer:
        first, one = peer.frame(FrameType.PUT, pb.Put(name=name, content=b"1", overwrite=True))
        second, two = peer.frame(FrameType.PUT, pb.Put(name=name, content=b"22", overwrite=True))
        await peer.send(first + second)
        await peer.reply(one)
        await peer.reply(two)
        stat: pb.StatReply = await peer.ask(FrameType.STAT, pb.Stat(name=name))
        same("the size", 2, stat.file.size)


@case(10, ErrorCode.BAD_CHECKSUM, needs=NEEDS)
async def damaged(target: Target) -> None:
    """A PUT that differs from its checksum ends the session, and nothing of it is published."""
    name = target.name()
    async with target.session(FEATURE) as peer:
        frame, _ = peer.frame(FrameType.PUT, pb.Put(name=name, content=bytes(100)))
        await peer.send(frame[:-1] + b"\1")
        await peer.ended(ErrorCode.BAD_CHECKSUM)
    async with target.session() as peer:
        await peer.refusal(FrameType.STAT, pb.Stat(name=name), ErrorCode.NOT_FOUND)


@case(11, needs=NEEDS)
async def uses_no_credit(target: Target) -> None:
    """PUT uses no credit: it is answered while the client has none."""
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        while peer.watch.credit:
            await peer.send(peer.chunk(upload, 0, target.blocks(1)))
        message = pb.Put(name=await target.published(), content=b"hello", keep_equal=True)
        await peer.ask(FrameType.PUT, message)
