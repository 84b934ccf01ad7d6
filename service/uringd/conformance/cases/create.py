"""CREATE: how an upload begins."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from uringd.conformance.case import Section, SkippedError, holds, same
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import OFFSET_MAX, UPLOAD_ID_CHARS, ErrorCode, FrameType, UploadState

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("CR", "CREATE")

UPLOADS_TRIED = 256
"""Uploads that a case begins at most to be refused one."""

CREATE = FrameType.CREATE


@case(1)
async def the_reply(target: Target) -> None:
    """CREATE's reply has an upload id, a handle that is not 0, and chunk_bytes within HELLO's."""
    async with target.session() as peer:
        reply = await peer.create(target.name())
        same("digits of the id", UPLOAD_ID_CHARS, len(reply.upload_id))
        holds(reply.upload, "a handle that is not 0", reply.upload)
        most = target.facts.chunk_bytes_max
        holds(1 <= reply.chunk_bytes <= most, f"chunk_bytes of 1 to {most}", reply.chunk_bytes)


@case(2)
async def two_uploads(target: Target) -> None:
    """Two uploads of a session have two handles and two ids."""
    async with target.session() as peer:
        first, second = [await peer.create(target.name()) for _ in range(2)]
        holds(first.upload != second.upload, "two handles", first.upload)
        holds(first.upload_id != second.upload_id, "two ids", first.upload_id)


@case(3)
async def handles_are_not_given_twice(target: Target) -> None:
    """A handle is not given twice in a session, also not after its upload was aborted."""
    async with target.session() as peer:
        seen = set()
        for _ in range(5):
            upload = (await peer.create(target.name())).upload
            holds(upload not in seen, "a handle that was not given before", upload)
            seen.add(upload)
            await peer.abort(upload)


@case(4, ErrorCode.NOT_FOUND)
async def handles_are_of_one_session(target: Target) -> None:
    """A handle names the upload in its own session and in no other."""
    async with target.session() as peer, target.session() as other:
        upload = (await peer.create(target.name())).upload
        await other.refusal(FrameType.SYNC, pb.Sync(), ErrorCode.NOT_FOUND, upload=upload)
        await peer.sync(upload)


@case(5, ErrorCode.EXISTS)
async def taken_by_a_file(target: Target) -> None:
    """CREATE of a published name without `overwrite` is EXISTS."""
    name = await target.published()
    async with target.session() as peer:
        await peer.refusal(CREATE, pb.Create(name=name), ErrorCode.EXISTS)


@case(6)
async def taken_and_overwritten(target: Target) -> None:
    """CREATE of a published name with `overwrite` begins an upload, and the file stays."""
    name = await target.published()
    async with target.session() as peer:
        await peer.create(name, overwrite=True)
        reply: pb.StatReply = await peer.ask(FrameType.STAT, pb.Stat(name=name))
        same("the file's size", 5, reply.file.size)


@case(7, ErrorCode.EXISTS)
async def taken_by_a_directory(target: Target) -> None:
    """CREATE of a directory's name is EXISTS."""
    await target.published()
    async with target.session() as peer:
        await peer.refusal(CREATE, pb.Create(name=target.prefix), ErrorCode.EXISTS)


@case(8, ErrorCode.EXISTS)
async def directory_and_overwrite(target: Target) -> None:
    """CREATE of a directory's name is EXISTS also with `overwrite`."""
    await target.published()
    async with target.session() as peer:
        message = pb.Create(name=target.prefix, overwrite=True)
        await peer.refusal(CREATE, message, ErrorCode.EXISTS)


@case(9)
async def a_name_is_not_held(target: Target) -> None:
    """A name is not held by CREATE: two uploads may have the same one."""
    name = target.name()
    async with target.session() as peer, target.session() as other:
        await peer.create(name)
        await other.create(name)
        await peer.create(name)


@case(10, ErrorCode.NO_SPACE)
async def no_room(target: Target) -> None:
    """CREATE of a size that cannot fit is NO_SPACE, and costs the request only."""
    async with target.session() as peer:
        message = pb.Create(name=target.name(), size=OFFSET_MAX)
        await peer.refusal(CREATE, message, ErrorCode.NO_SPACE)
        await peer.create(target.name())


@case(11, ErrorCode.TOO_MANY_UPLOADS)
async def too_many_uploads(target: Target) -> None:
    """CREATE with `uploads_max` open already is TOO_MANY_UPLOADS; one less, and there is room."""
    most = target.facts.uploads_max
    if most > UPLOADS_TRIED:
        raise SkippedError(f"uploads_max is {most}, more than {UPLOADS_TRIED}")
    async with target.session() as peer:
        uploads = [(await peer.create(target.name())).upload for _ in range(most)]
        message = pb.Create(name=target.name())
        await peer.refusal(CREATE, message, ErrorCode.TOO_MANY_UPLOADS)
        await peer.abort(uploads[0])
        await peer.create(target.name())


@case(12)
async def an_id_of_the_client(target: Target) -> None:
    """An upload id that the client chose is the upload's."""
    upload_id = secrets.token_hex(16)
    async with target.session() as peer:
        reply = await peer.create(target.name(), upload_id=upload_id)
        same("the upload id", upload_id, reply.upload_id)
        same("the id in STAT", upload_id, (await peer.info(upload_id)).upload_id)


@case(13, ErrorCode.BUSY)
async def two_clients_with_one_id(target: Target) -> None:
    """CREATE with the id of an upload that there is is BUSY; the upload that has it goes on."""
    upload_id = secrets.token_hex(16)
    async with target.session() as peer, target.session() as other:
        upload = (await peer.create(target.name(), upload_id=upload_id)).upload
        await _is_busy(other, target, upload_id)
        await _is_busy(peer, target, upload_id)
        await peer.data(upload, 0, target.blocks(1))
        same("durable", target.alignment, await peer.sync(upload))


@case(14)
async def an_id_after_its_upload(target: Target) -> None:
    """The id of an aborted upload may be chosen again."""
    upload_id = secrets.token_hex(16)
    async with target.session() as peer:
        for _ in range(2):
            upload = (await peer.create(target.name(), upload_id=upload_id)).upload
            await peer.abort(upload)


@case(15)
async def no_epoch_without_resume(target: Target) -> None:
    """Where `resume` is not in force the epoch in CREATE's reply is 0."""
    async with target.session() as peer:
        same("the epoch", 0, (await peer.create(target.name())).epoch)


@case(16)
async def it_is_receiving(target: Target) -> None:
    """An upload that was created is RECEIVING, with the name and the size of CREATE."""
    name = target.name()
    async with target.session() as peer:
        known = await peer.info((await peer.create(name, size=5)).upload_id)
        same("name and size", (name, 5), (known.name, known.size))
        same("the state", UploadState.RECEIVING, UploadState(known.state))
        unknown = await peer.info((await peer.create(target.name())).upload_id)
        holds(not unknown.HasField("size"), "no size where CREATE gave none", unknown.size)


@case(17, ErrorCode.NOT_FOUND)
async def a_refused_one_is_none(target: Target) -> None:
    """A refused CREATE leaves no upload behind."""
    name, upload_id = await target.published(), secrets.token_hex(16)
    async with target.session() as peer:
        message = pb.Create(name=name, upload_id=upload_id)
        await peer.refusal(CREATE, message, ErrorCode.EXISTS)
        stat = pb.Stat(upload_id=upload_id)
        await peer.refusal(FrameType.STAT, stat, ErrorCode.NOT_FOUND)


async def _is_busy(peer: Peer, target: Target, upload_id: str) -> None:
    message = pb.Create(name=target.name(), upload_id=upload_id)
    await peer.refusal(CREATE, message, ErrorCode.BUSY)
