"""Resume: uploads that outlive their session."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, SkippedError, holds, same
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState, combine, crc32c

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("RE", "Resume and fencing")

RESUME, COMMIT = FrameType.RESUME, FrameType.COMMIT
NOT_FOUND, FENCED = ErrorCode.NOT_FOUND, ErrorCode.FENCED
NOBODY = "fedcba9876543210" * 2
UPLOADS_TRIED = 256

NEEDS = ("resume",)


async def suspend(target: Target, *pieces: tuple[int, bytes], name: str = "") -> pb.CreateReply:
    """Begin an upload, make chunks of it durable, and cut the connection."""
    async with target.session("resume") as peer:
        created = await peer.create(name or target.name())
        for offset, content in pieces:
            await peer.data(created.upload, offset, content)
        await peer.sync(created.upload)
    return created


def ranges(reply: pb.ResumeReply) -> list[tuple[int, int, int]]:
    """Return what is durable: offset, length and checksum."""
    for part in reply.durable:
        holds(part.HasField("crc32c"), "each range with its checksum", "one without")
    return [(part.offset, part.length, part.crc32c) for part in reply.durable]


@case(1, ErrorCode.UNSUPPORTED)
async def not_in_force(target: Target) -> None:
    """Where `resume` is not in force RESUME is UNSUPPORTED, which costs the request only."""
    async with target.session() as peer:
        message = pb.Resume(upload_id=NOBODY)
        await peer.refusal(RESUME, message, ErrorCode.UNSUPPORTED)
        await peer.alive()


@case(2, needs=NEEDS)
async def the_first_epoch(target: Target) -> None:
    """Where `resume` is in force CREATE's reply says epoch 1."""
    async with target.session("resume") as peer:
        same("the epoch", 1, (await peer.create(target.name())).epoch)


@case(3, NOT_FOUND, needs=NEEDS)
async def of_nobody(target: Target) -> None:
    """RESUME of an upload id that belongs to nobody is NOT_FOUND."""
    async with target.session("resume") as peer:
        for message in (pb.Resume(upload_id=NOBODY), pb.Resume(upload_id=NOBODY, epoch=1)):
            await peer.refusal(RESUME, message, NOT_FOUND)


@case(4, needs=NEEDS)
async def it_is_suspended(target: Target) -> None:
    """When the connection is cut the upload is SUSPENDED, with what was durable."""
    created = await suspend(target, (0, target.blocks(1)))
    async with target.session("resume") as peer:
        await target.until("a SUSPENDED upload", lambda: is_suspended(peer, created.upload_id))
        same("durable", target.alignment, (await peer.info(created.upload_id)).durable)


@case(5, needs=NEEDS)
async def the_reply(target: Target) -> None:
    """RESUME's reply has a handle, chunk_bytes, instance id, and CREATE's name and size."""
    name, size = target.name(), 3 * target.alignment
    async with target.session("resume") as peer:
        created = await peer.create(name, size=size)
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        holds(reply.upload, "a handle that is not 0", reply.upload)
        same("name and size", (name, size), (reply.name, reply.size))
        same("chunk_bytes", created.chunk_bytes, reply.chunk_bytes)
        same("the instance id", peer.instance_id, reply.instance_id)


@case(6, needs=NEEDS)
async def no_size(target: Target) -> None:
    """RESUME's reply has no size where CREATE gave none."""
    created = await suspend(target)
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        holds(not reply.HasField("size"), "no size", reply.size)
        same("the ranges", [], ranges(reply))


@case(7, needs=NEEDS)
async def the_ranges(target: Target) -> None:
    """RESUME's reply has exactly the durable ranges, each with the checksum of its bytes."""
    step, content = target.alignment, target.blocks(6)
    pieces = [(at * step, content[at * step : (at + 1) * step]) for at in (0, 2, 5)]
    created = await suspend(target, *pieces)
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        wanted = [(offset, step, crc32c(piece)) for offset, piece in pieces]
        same("the ranges", wanted, ranges(reply))


@case(8, needs=NEEDS)
async def merged_ranges(target: Target) -> None:
    """Adjacent ranges of RESUME's reply are merged, and so are their checksums."""
    step, content = target.alignment, target.blocks(3)
    pieces = [(at * step, content[at * step : (at + 1) * step]) for at in (2, 0, 1)]
    created = await suspend(target, *pieces)
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        same("the ranges", [(0, 3 * step, crc32c(content))], ranges(reply))


@case(9, needs=NEEDS)
async def the_rest(target: Target) -> None:
    """A resumed upload takes what is missing and is published whole."""
    step, content = target.alignment, target.blocks(3) + b"tail"
    pieces = ((0, content[:step]), (2 * step, content[2 * step : 3 * step]))
    async with target.session("resume") as peer:
        created = await peer.create(target.scratch, overwrite=True)
        for offset, piece in pieces:
            await peer.data(created.upload, offset, piece)
        await peer.sync(created.upload)
    async with target.session("resume") as peer:
        upload = (await peer.resume(created.upload_id, created.epoch)).upload
        for offset in (step, 3 * step):
            await peer.data(upload, offset, content[offset : offset + step])
        receipt = await peer.commit(upload, len(content))
        target.unfinished.discard(created.upload_id)
        same("the upload id", created.upload_id, receipt.upload_id)
        got = (receipt.name, receipt.size, receipt.crc32c)
        same("name, size and crc32c", (target.scratch, len(content), crc32c(content)), got)


@case(10, ErrorCode.INCOMPLETE, needs=NEEDS)
async def the_rest_is_missing(target: Target) -> None:
    """Bytes that are in no range count as never sent: COMMIT says that they are missing."""
    step = target.alignment
    created = await suspend(target, (step, target.blocks(1)))
    async with target.session("resume") as peer:
        upload = (await peer.resume(created.upload_id)).upload
        wanted = [(0, step), (2 * step, step)]
        same("missing", wanted, await peer.incomplete(upload, 3 * step))


@case(11, needs=NEEDS)
async def what_was_not_synced(target: Target) -> None:
    """What was sent and not yet durable when the connection was cut is in a range or is not; a
    range never has more than was sent, and always the right checksum.
    """
    step, content = target.alignment, target.blocks(4)
    async with target.session("resume") as peer:
        created = await peer.create(target.name())
        for at in range(0, len(content), step):
            await peer.data(created.upload, at, content[at : at + step])
    async with target.session("resume") as peer:
        for offset, length, crc in ranges(await peer.resume(created.upload_id)):
            holds(offset + length <= len(content), "no more than was sent", (offset, length))
            same("the checksum", crc32c(content[offset : offset + length]), crc)


@case(12, needs=NEEDS)
async def epochs_rise(target: Target) -> None:
    """Each RESUME without `join` raises the epoch by one."""
    created = await suspend(target)
    for epoch in (2, 3, 4):
        async with target.session("resume") as peer:
            same("the epoch", epoch, (await peer.resume(created.upload_id, epoch - 1)).epoch)


@case(13, needs=NEEDS)
async def any_epoch(target: Target) -> None:
    """RESUME with epoch 0 takes an upload over whatever its epoch is."""
    created = await suspend(target)
    for epoch in (2, 3):
        async with target.session("resume") as peer:
            same("the epoch", epoch, (await peer.resume(created.upload_id)).epoch)


@case(14, FENCED, needs=NEEDS)
async def a_wrong_epoch(target: Target) -> None:
    """RESUME that names an epoch which is not the upload's is FENCED, and changes nothing."""
    created = await suspend(target)
    async with target.session("resume") as peer:
        message = pb.Resume(upload_id=created.upload_id, epoch=created.epoch + 1)
        await peer.refusal(RESUME, message, FENCED)
        reply = await peer.resume(created.upload_id, created.epoch)
        same("the epoch", created.epoch + 1, reply.epoch)
    async with target.session("resume") as peer:
        message = pb.Resume(upload_id=created.upload_id, epoch=created.epoch)
        await peer.refusal(RESUME, message, FENCED)


@case(15, NOT_FOUND, needs=NEEDS)
async def of_an_aborted_one(target: Target) -> None:
    """RESUME of an upload that was aborted is NOT_FOUND."""
    created = await suspend(target)
    async with target.session("resume") as peer:
        await target.until("a SUSPENDED upload", lambda: is_suspended(peer, created.upload_id))
        await peer.abort(upload_id=created.upload_id)
        message = pb.Resume(upload_id=created.upload_id)
        await peer.refusal(RESUME, message, NOT_FOUND)


@case(16, NOT_FOUND, needs=NEEDS)
async def of_one_without(target: Target) -> None:
    """An upload of a session in which `resume` is not in force does not outlive it."""
    async with target.session() as peer:
        upload_id = (await peer.create(target.name())).upload_id
    async with target.session("resume") as peer:
        await target.until("the upload to be gone", lambda: _is_unknown(peer, upload_id))
        await peer.refusal(RESUME, pb.Resume(upload_id=upload_id), NOT_FOUND)


@case(17, needs=NEEDS)
async def it_is_listed(target: Target) -> None:
    """A suspended upload is listed, in any session."""
    name = target.name()
    created = await suspend(target, name=name)
    async with target.session() as peer:
        await target.until("a SUSPENDED upload", lambda: is_suspended(peer, created.upload_id))
        message = pb.List(prefix=name, uploads=True)
        reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
        found = [(upload.upload_id, upload.state) for upload in reply.uploads]
        same("id and state", [(created.upload_id, UploadState.SUSPENDED)], found)


@case(18, needs=NEEDS)
async def found_by_the_clients_id(target: Target) -> None:
    """A client whose CREATE lost its reply finds the upload by the id that it chose."""
    upload_id, name = secrets.token_hex(16), target.name()
    async with target.session("resume") as peer:
        peer.unfinished.add(upload_id)
        message = pb.Create(name=name, upload_id=upload_id)
        frame, cookie = peer.frame(FrameType.CREATE, message)
        await peer.send(frame)
        await peer.reply(cookie)
    async with target.session("resume") as peer:
        same("the name", name, (await peer.resume(upload_id)).name)


@case(19, ErrorCode.BUSY, needs=NEEDS)
async def the_id_of_a_suspended_one(target: Target) -> None:
    """CREATE with the id of a suspended upload is BUSY."""
    created = await suspend(target)
    async with target.session("resume") as peer:
        message = pb.Create(name=target.name(), upload_id=created.upload_id)
        await peer.refusal(FrameType.CREATE, message, ErrorCode.BUSY)


@case(20, needs=NEEDS)
async def another_handle(target: Target) -> None:
    """RESUME gives a handle that the session was not given before."""
    created = await suspend(target)
    async with target.session("resume") as peer:
        seen = {(await peer.create(target.name())).upload for _ in range(2)}
        upload = (await peer.resume(created.upload_id)).upload
        holds(upload not in seen, "a new handle", upload)


@case(21, ErrorCode.TOO_MANY_UPLOADS, needs=NEEDS)
async def too_many_uploads(target: Target) -> None:
    """RESUME with `uploads_max` open already is TOO_MANY_UPLOADS."""
    most = target.facts.uploads_max
    if most > UPLOADS_TRIED:
        raise SkippedError(f"uploads_max is {most}, more than {UPLOADS_TRIED}")
    created = await suspend(target)
    async with target.session("resume") as peer:
        for _ in range(most):
            await peer.create(target.name())
        message = pb.Resume(upload_id=created.upload_id)
        await peer.refusal(RESUME, message, ErrorCode.TOO_MANY_UPLOADS)


@case(22, needs=NEEDS)
async def of_a_published_one(target: Target) -> None:
    """RESUME of a published upload says that all of it is durable, at the epoch that it had."""
    async with target.session("resume") as peer:
        created, _ = await publish(peer, target)
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        same("the epoch", created.epoch, reply.epoch)
        same("the ranges", [(0, 5, crc32c(b"hello"))], ranges(reply))


@case(23, needs=NEEDS)
async def the_same_receipt(target: Target) -> None:
    """COMMIT again, after its reply was lost with the session, has the same Receipt."""
    async with target.session("resume") as peer:
        created, receipt = await publish(peer, target)
    async with target.session("resume") as peer:
        upload = (await peer.resume(created.upload_id)).upload
        same("the Receipt", receipt, await peer.commit(upload, 5))
        same("the Receipt", receipt, await peer.commit(upload, 5, durability=1))


@case(24, needs=NEEDS)
async def the_same_receipt_by_handle(target: Target) -> None:
    """COMMIT again by the same handle is answered with the same Receipt, whatever its level."""
    async with target.session("resume") as peer:
        created, receipt = await publish(peer, target)
        for options in ({}, {"durability": 1}, {"crc32c": crc32c(b"hello")}):
            again = await peer.commit(created.upload, 5, **options)
            same("the Receipt", receipt, again)


@case(25, ErrorCode.OUT_OF_RANGE, ErrorCode.CONTENT_MISMATCH, needs=NEEDS)
async def not_quite_the_same(target: Target) -> None:
    """COMMIT again with another size is OUT_OF_RANGE, with another checksum CONTENT_MISMATCH."""
    async with target.session("resume") as peer:
        upload = (await publish(peer, target))[0].upload
        size, crc = pb.Commit(size=6), pb.Commit(size=5, crc32c=1)
        await peer.refusal(COMMIT, size, ErrorCode.OUT_OF_RANGE, upload=upload)
        await peer.refusal(COMMIT, crc, ErrorCode.CONTENT_MISMATCH, upload=upload)
        await peer.commit(upload, 5)


@case(26, needs=NEEDS)
async def stat_of_a_published_one(target: Target) -> None:
    """STAT of an upload whose COMMIT was answered is PUBLISHED."""
    async with target.session("resume") as peer:
        created, _ = await publish(peer, target)
        state = (await peer.info(created.upload_id)).state
        same("the state", UploadState.PUBLISHED, UploadState(state))


@case(27, needs=NEEDS)
async def the_cut_may_be_anywhere(target: Target) -> None:
    """A connection that is cut within a chunk leaves the upload as it was before the chunk."""
    step, content = target.alignment, target.blocks(2)
    async with target.session("resume") as peer:
        created = await peer.create(target.name())
        await peer.data(created.upload, 0, content[:step])
        await peer.sync(created.upload)
        await peer.credit_of(1)
        await peer.send(peer.chunk(created.upload, step, content[step:])[:-1])
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        same("the ranges", [(0, step, crc32c(content[:step]))], ranges(reply))


@case(28, needs=NEEDS)
async def a_tail_is_kept(target: Target) -> None:
    """A tail that is durable is among the ranges, and its end is still the upload's."""
    step, content = target.alignment, target.blocks(1)
    created = await suspend(target, (0, content), (step, b"tail"))
    async with target.session("resume") as peer:
        reply = await peer.resume(created.upload_id)
        crc = combine(crc32c(content), crc32c(b"tail"), 4)
        same("the ranges", [(0, step + 4, crc)], ranges(reply))
        await peer.data(reply.upload, 2 * step, content)
        await peer.notice(ErrorCode.OUT_OF_RANGE, reply.upload, 2 * step)


async def publish(peer: Peer, target: Target) -> tuple[pb.CreateReply, pb.Receipt]:
    """Publish five bytes."""
    created = await peer.create(target.scratch, overwrite=True)
    await peer.data(created.upload, 0, b"hello")
    return created, await peer.commit(created.upload, 5)


async def is_suspended(peer: Peer, upload_id: str) -> bool:
    """Whether an upload is suspended by now; before that it may only be receiving."""
    state = UploadState((await peer.info(upload_id)).state)
    if state not in {UploadState.RECEIVING, UploadState.SUSPENDED}:
        raise FailedError("RECEIVING, then SUSPENDED", state.name)
    return state is UploadState.SUSPENDED


async def _is_unknown(peer: Peer, upload_id: str) -> bool:
    frame, cookie = peer.frame(FrameType.STAT, pb.Stat(upload_id=upload_id))
    await peer.send(frame)
    event = await peer.answer(cookie)
    return bool(event.type is FrameType.ERROR and event.message.code == NOT_FOUND)
