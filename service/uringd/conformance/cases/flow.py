"""ACK, SYNC, Flow control: positions, and credit that comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, SkippedError, holds, same
from uringd.conformance.peer import described
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("FC", "Flow control")
ack = ACK = Section("AC", "ACK")
sync = SYNC = Section("SY", "SYNC")

OVERDRAFTS = 20
"""Attempts at sending chunks faster than a server returns their credit."""

BURST_CHUNKS = 256
"""Chunks of one attempt beyond the credit."""


@ack(1)
async def positions_rise(target: Target) -> None:
    """Positions in ACK never go down: accepted >= written >= durable in each of them."""
    step, count = target.alignment, 4 * max(8, target.facts.credit)
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(count):
            await peer.data(upload, number * step, target.blocks(1, seed=number))
            if number == count // 2:
                await peer.sync(upload)
        await peer.all_credit()
        holds(peer.acks, "an ACK", "none")


@ack(2)
async def the_last_one(target: Target) -> None:
    """The ACK that returns the last credit says that all that was sent is accepted and written."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(4):
            await peer.data(upload, number * step, target.blocks(1))
        await peer.all_credit()
        last: pb.Ack = peer.acks[-1].message
        same("accepted and written", (4 * step, 4 * step), (last.accepted, last.written))


@ack(3)
async def beyond_a_hole(target: Target) -> None:
    """Bytes beyond the first hole are not counted; once it is filled they are."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, step, target.blocks(1))
        await peer.all_credit()
        same("accepted", 0, peer.acks[-1].message.accepted)
        await peer.data(upload, 0, target.blocks(1))
        await peer.all_credit()
        same("accepted", 2 * step, peer.acks[-1].message.accepted)


@ack(4)
async def the_instance(target: Target) -> None:
    """ACK carries the instance id of HELLO's reply, for as long as nothing was lost."""
    async with target.connection() as peer:
        reply = await peer.hello(token=target.token)
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1))
        await peer.all_credit()
        same("the instance id", reply.instance_id, peer.acks[-1].message.instance_id)


@ack(5)
async def the_handle(target: Target) -> None:
    """ACK carries the handle of the upload that its positions are about."""
    step = target.alignment
    async with target.session() as peer:
        uploads = [(await peer.create(target.name())).upload for _ in range(2)]
        for number, upload in enumerate(uploads):
            await peer.data(upload, 0, bytes((number + 1) * step))
        await peer.all_credit()
        for number, upload in enumerate(uploads):
            same("accepted", (number + 1) * step, peer.watch.positions[upload].accepted)


@ack(6)
async def durable_after_sync(target: Target) -> None:
    """What SYNC's reply said is durable is durable in every later ACK."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1))
        durable = await peer.sync(upload)
        await peer.all_credit()
        await peer.data(upload, step, target.blocks(1))
        await peer.all_credit()
        holds(peer.acks[-1].message.durable >= durable, f"durable of {durable}", "less")


@sync(1)
async def everything(target: Target) -> None:
    """SYNC's reply says that every chunk sent before it is durable."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(6):
            await peer.data(upload, number * step, target.blocks(1))
        same("durable", 6 * step, await peer.sync(upload))


@sync(2)
async def nothing_yet(target: Target) -> None:
    """SYNC of an upload without chunks is answered with 0."""
    async with target.session() as peer:
        same("durable", 0, await peer.sync((await peer.create(target.name())).upload))


@sync(3)
async def up_to_the_hole(target: Target) -> None:
    """`durable` is a position: bytes beyond the first hole are durable and not counted."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1))
        await peer.data(upload, 2 * step, target.blocks(1))
        same("durable", step, await peer.sync(upload))
        await peer.data(upload, step, target.blocks(1))
        same("durable", 3 * step, await peer.sync(upload))


@sync(4, ErrorCode.NOT_FOUND)
async def no_such_upload(target: Target) -> None:
    """SYNC of a handle that there is not is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.SYNC, pb.Sync(), ErrorCode.NOT_FOUND, upload=1 << 50)


@sync(5)
async def again(target: Target) -> None:
    """SYNC may be sent again: with nothing new its answer is the same."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1))
        same("durable", await peer.sync(upload), await peer.sync(upload))


@sync(6, ErrorCode.BAD_CHECKSUM)
async def not_what_was_refused(target: Target) -> None:
    """SYNC does not cover a chunk that was refused."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1), crc=1)
        same("durable", 0, await peer.sync(upload))
        await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)


@sync(7)
async def the_instance_of_sync(target: Target) -> None:
    """SYNC's reply carries the instance id of HELLO's reply."""
    async with target.connection() as peer:
        greeting = await peer.hello(token=target.token)
        upload = (await peer.create(target.name())).upload
        reply: pb.SyncReply = await peer.ask(FrameType.SYNC, pb.Sync(), upload)
        same("the instance id", greeting.instance_id, reply.instance_id)


@case(1)
async def all_at_once(target: Target) -> None:
    """As many chunks as there is credit may be sent at once."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        frames = [
            peer.chunk(upload, number * step, target.blocks(1))
            for number in range(peer.watch.granted)
        ]
        await peer.send(b"".join(frames))
        same("durable", len(frames) * step, await peer.sync(upload))
        await peer.all_credit()


@case(2, ErrorCode.CREDIT_EXCEEDED)
async def overdrawn(target: Target) -> None:
    """DATA without credit is CREDIT_EXCEEDED and ends the session."""
    for _ in range(OVERDRAFTS):
        async with target.session() as peer:
            if await _overdraw(peer, target):
                return
    raise SkippedError("this server freed its slots faster than chunks came: none was too many")


async def _overdraw(peer: Peer, target: Target) -> bool:
    """Whether the server saw more chunks than it had granted; it may have been too fast."""
    step = target.alignment
    upload = (await peer.create(target.name())).upload
    content, count = bytes(step), peer.watch.granted + BURST_CHUNKS
    await peer.send(b"".join(peer.chunk(upload, n * step, content) for n in range(count)))
    while peer.watch.credit < peer.watch.granted:
        event = await peer.receive()
        if event is None:
            raise FailedError("every credit or ERROR CREDIT_EXCEEDED", "the end")
        if peer.watch.over:
            if event.message.code != ErrorCode.CREDIT_EXCEEDED:
                raise FailedError("ERROR CREDIT_EXCEEDED", described(event))
            await peer.closed()
            return True
    return False


@case(3)
async def all_comes_back(target: Target) -> None:
    """Every credit comes back, for chunks that were written."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(3 * peer.watch.granted + 1):
            await peer.data(upload, number * step, target.blocks(1))
        await peer.all_credit()
        same("credit", peer.watch.granted, peer.watch.credit)


@case(4, ErrorCode.BAD_CHECKSUM, ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
async def refused_ones_too(target: Target) -> None:
    """Every credit comes back, also for chunks that were refused or sent twice."""
    content = target.blocks(1)
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, content)
        for _ in range(peer.watch.granted + 1):
            await peer.data(upload, 0, content)
            await peer.data(upload, 0, target.blocks(1, seed=1))
            await peer.data(upload, target.alignment, content, crc=1)
            await peer.data(1 << 50, 0, content)
        await peer.all_credit()
        same("refusals", 3 * (peer.watch.granted + 1), len(peer.notices))


@case(5)
async def of_all_uploads_together(target: Target) -> None:
    """Credit is the session's, over all its uploads together."""
    if target.facts.uploads_max < 2:
        raise SkippedError("this server has one upload in a session")
    async with target.session() as peer:
        uploads = [(await peer.create(target.name())).upload for _ in range(2)]
        for number in range(2 * peer.watch.granted):
            offset = number // 2 * target.alignment
            await peer.data(uploads[number % 2], offset, target.blocks(1))
        await peer.all_credit()


@case(6)
async def control_frames_use_none(target: Target) -> None:
    """Control frames use no credit: after a hundred of them all chunks may still be sent."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for _ in range(100):
            await peer.alive()
        step = target.alignment
        count = peer.watch.granted
        frames = (peer.chunk(upload, n * step, target.blocks(1)) for n in range(count))
        await peer.send(b"".join(frames))
        await peer.all_credit()


@case(7)
async def nothing_is_held_back(target: Target) -> None:
    """A client that used all its credit gets some back while it sends nothing more."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        at = 0
        for _ in range(3):
            while peer.watch.credit:
                await peer.send(peer.chunk(upload, at, target.blocks(1)))
                at += step
            await peer.credit_of(1)
        await peer.all_credit()


@case(8)
async def after_an_abort(target: Target) -> None:
    """The credit of an upload that was aborted comes back."""
    step = target.alignment
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        count = peer.watch.granted
        frames = (peer.chunk(upload, n * step, target.blocks(1)) for n in range(count))
        await peer.send(b"".join(frames))
        await peer.abort(upload)
        await peer.all_credit()
