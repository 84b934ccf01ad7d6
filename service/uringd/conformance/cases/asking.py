"""ABORT, STAT, LIST, PING: what is asked about uploads and files, and how one is thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, holds, same
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("AB", "ABORT")
stat = STAT = Section("ST", "STAT")
list_ = LIST = Section("LI", "LIST")
ping = PING = Section("PI", "PING")

NOT_FOUND = ErrorCode.NOT_FOUND
NOBODY = "0123456789abcdef" * 2

FILES = ("d!", "d/x", "d0")
"""In byte order; read directory by directory, `d/x` would not come between the other two."""


@case(1, NOT_FOUND)
async def by_handle(target: Target) -> None:
    """ABORT by handle throws the upload away: handle and id name nothing any more."""
    async with target.session() as peer:
        created = await peer.create(target.name())
        await peer.data(created.upload, 0, target.blocks(1))
        await peer.abort(created.upload)
        await peer.refusal(FrameType.SYNC, pb.Sync(), NOT_FOUND, upload=created.upload)
        message = pb.Stat(upload_id=created.upload_id)
        await peer.refusal(FrameType.STAT, message, NOT_FOUND)


@case(2, NOT_FOUND)
async def by_id(target: Target) -> None:
    """ABORT by upload id throws the upload away."""
    async with target.session() as peer:
        created = await peer.create(target.name())
        await peer.abort(upload_id=created.upload_id)
        await peer.refusal(FrameType.SYNC, pb.Sync(), NOT_FOUND, upload=created.upload)


@case(3, NOT_FOUND)
async def by_another_session(target: Target) -> None:
    """ABORT by upload id may come from another session; the upload's own session goes on."""
    async with target.session() as peer, target.session() as other:
        created = await peer.create(target.name())
        await peer.data(created.upload, 0, target.blocks(1))
        await peer.all_credit()
        await other.abort(upload_id=created.upload_id)
        await peer.refusal(FrameType.SYNC, pb.Sync(), NOT_FOUND, upload=created.upload)
        await peer.create(target.name())


@case(4, NOT_FOUND)
async def of_nobody(target: Target) -> None:
    """ABORT of an upload id that belongs to nobody is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.ABORT, pb.Abort(upload_id=NOBODY), NOT_FOUND)


@case(5, NOT_FOUND)
async def of_no_handle(target: Target) -> None:
    """ABORT of a handle that there is not is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.ABORT, pb.Abort(), NOT_FOUND, upload=1 << 50)


@case(6, NOT_FOUND)
async def of_nothing(target: Target) -> None:
    """ABORT with neither upload id nor handle is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.ABORT, pb.Abort(), NOT_FOUND)


@case(7, NOT_FOUND)
async def of_two(target: Target) -> None:
    """ABORT of an upload id with the handle of another upload is NOT_FOUND, and both go on."""
    async with target.session() as peer:
        first, second = [await peer.create(target.name()) for _ in range(2)]
        message = pb.Abort(upload_id=first.upload_id)
        await peer.refusal(FrameType.ABORT, message, NOT_FOUND, upload=second.upload)
        await peer.sync(first.upload)
        await peer.sync(second.upload)


@case(8)
async def of_one_twice_named(target: Target) -> None:
    """ABORT of an upload id with its own handle is granted."""
    async with target.session() as peer:
        created = await peer.create(target.name())
        await peer.abort(created.upload, created.upload_id)


@case(9, NOT_FOUND)
async def again(target: Target) -> None:
    """A second ABORT is NOT_FOUND."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.abort(upload)
        await peer.refusal(FrameType.ABORT, pb.Abort(), NOT_FOUND, upload=upload)


@case(10, NOT_FOUND)
async def nothing_is_left(target: Target) -> None:
    """Nothing is left of an aborted upload: no file under its name, no upload in the list."""
    name = target.name()
    async with target.session() as peer:
        created = await peer.create(name)
        await peer.data(created.upload, 0, target.blocks(1))
        await peer.abort(created.upload)
        await peer.refusal(FrameType.STAT, pb.Stat(name=name), NOT_FOUND)
        same("uploads listed", [], await _uploads(peer, name))


@stat(1)
async def a_file(target: Target) -> None:
    """STAT of a published file has its name and size."""
    name = await target.published()
    async with target.session() as peer:
        reply: pb.StatReply = await peer.ask(FrameType.STAT, pb.Stat(name=name))
        same("the kind", "file", reply.WhichOneof("subject"))
        same("name and size", (name, 5), (reply.file.name, reply.file.size))


@stat(2, NOT_FOUND)
async def no_file(target: Target) -> None:
    """STAT of a name that there is not is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.STAT, pb.Stat(name=target.name()), NOT_FOUND)


@stat(3, NOT_FOUND)
async def a_directory(target: Target) -> None:
    """STAT of a directory is NOT_FOUND: it is no file."""
    await target.published()
    async with target.session() as peer:
        await peer.refusal(FrameType.STAT, pb.Stat(name=target.prefix), NOT_FOUND)


@stat(4, NOT_FOUND)
async def no_upload(target: Target) -> None:
    """STAT of an upload id that belongs to nobody is NOT_FOUND."""
    async with target.session() as peer:
        await peer.refusal(FrameType.STAT, pb.Stat(upload_id=NOBODY), NOT_FOUND)


@stat(5)
async def from_another_session(target: Target) -> None:
    """STAT of an upload may come from another session, and is RECEIVING."""
    name = target.name()
    async with target.session() as peer, target.session() as other:
        created = await peer.create(name, size=2 * target.alignment)
        await peer.data(created.upload, 0, target.blocks(1))
        await peer.sync(created.upload)
        known = await other.info(created.upload_id)
        same("the state", UploadState.RECEIVING, UploadState(known.state))
        same("name and size", (name, 2 * target.alignment), (known.name, known.size))
        same("durable", target.alignment, known.durable)


@stat(6, NOT_FOUND)
async def a_name_is_no_upload(target: Target) -> None:
    """STAT of the name of an unfinished upload is NOT_FOUND: there is no file yet."""
    name = target.name()
    async with target.session() as peer:
        await peer.create(name)
        await peer.refusal(FrameType.STAT, pb.Stat(name=name), NOT_FOUND)


@list_(1)
async def by_prefix(target: Target) -> None:
    """LIST has the files whose names begin with `prefix`, in byte order, and no others."""
    async with target.session() as peer:
        names = await _published(peer, target)
        reply: pb.ListReply = await peer.ask(FrameType.LIST, pb.List(prefix=f"{target.prefix}/d"))
        same("the names", names, [file.name for file in reply.files])
        same("the sizes", [1] * len(names), [file.size for file in reply.files])
        same("more", expected=False, got=reply.more)


@list_(2)
async def page_by_page(target: Target) -> None:
    """LIST answers with at most `limit` entries; `more` says to ask again after the last one."""
    async with target.session() as peer:
        names = await _published(peer, target)
        found: list[str] = []
        for number in range(len(names)):
            after = found[-1] if found else ""
            message = pb.List(prefix=f"{target.prefix}/d", after=after, limit=1)
            reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
            found += [file.name for file in reply.files]
            same("entries so far", number + 1, len(found))
            same("more", number + 1 < len(names), reply.more)
        same("the names", names, found)


@list_(3)
async def those_above(target: Target) -> None:
    """LIST has only names above `after`, which need not be one of them."""
    async with target.session() as peer:
        names = await _published(peer, target)
        message = pb.List(prefix=f"{target.prefix}/d", after=f"{target.prefix}/d/a")
        reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
        same("the names", names[1:], [file.name for file in reply.files])


@list_(4)
async def nothing(target: Target) -> None:
    """LIST of a prefix that no name has is empty, and there is no more."""
    async with target.session() as peer:
        message = pb.List(prefix=target.name())
        reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
        same("entries and more", (0, False), (len(reply.files), reply.more))


@list_(5)
async def a_prefix_is_no_directory(target: Target) -> None:
    """A prefix may end within a component."""
    name = await target.published()
    async with target.session() as peer:
        reply: pb.ListReply = await peer.ask(FrameType.LIST, pb.List(prefix=name[:-3]))
        same("the names", [name], [file.name for file in reply.files])


@list_(6)
async def unfinished_ones(target: Target) -> None:
    """LIST of uploads has the unfinished ones whose names begin with `prefix`, by upload id."""
    name = target.name()
    async with target.session() as peer, target.session() as other:
        ids = [(await peer.create(f"{name}/{number}")).upload_id for number in range(3)]
        ids.append((await other.create(f"{name}/3")).upload_id)
        same("the ids", sorted(ids), await _uploads(other, name))


@list_(7)
async def uploads_page_by_page(target: Target) -> None:
    """LIST of uploads goes on after an upload id."""
    name = target.name()
    async with target.session() as peer:
        ids = sorted([(await peer.create(f"{name}/{n}")).upload_id for n in range(3)])
        message = pb.List(prefix=name, uploads=True, limit=2)
        reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
        same("the first ids", ids[:2], [upload.upload_id for upload in reply.uploads])
        same("more", expected=True, got=reply.more)
        same("the last id", ids[2:], await _uploads(peer, name, after=ids[1]))


@list_(8)
async def one_or_the_other(target: Target) -> None:
    """LIST of files has no uploads in it, and LIST of uploads no files."""
    name = await target.published()
    async with target.session() as peer:
        await peer.create(name + "-unfinished")
        for uploads in (False, True):
            message = pb.List(prefix=name, uploads=uploads)
            reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
            counts = (len(reply.files), len(reply.uploads))
            same("files and uploads", (0, 1) if uploads else (1, 0), counts)


@list_(9)
async def the_highest_limit(target: Target) -> None:
    """A `limit` above what a reply holds is no error."""
    async with target.session() as peer:
        message = pb.List(prefix=target.prefix, limit=(1 << 32) - 1)
        await peer.ask(FrameType.LIST, message)


@ping(1)
async def an_answer(target: Target) -> None:
    """PING is answered, again and again."""
    async with target.session() as peer:
        for _ in range(10):
            await peer.alive()


@ping(2)
async def between_chunks(target: Target) -> None:
    """PING is answered between the chunks of an upload, with nothing else changed."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(4):
            await peer.data(upload, number * target.alignment, target.blocks(1))
            await peer.alive()
        same("durable", 4 * target.alignment, await peer.sync(upload))


async def _uploads(peer: Peer, prefix: str, after: str = "") -> list[str]:
    message = pb.List(prefix=prefix, after=after, uploads=True)
    reply: pb.ListReply = await peer.ask(FrameType.LIST, message)
    holds(not reply.files, "uploads only", "files")
    return [upload.upload_id for upload in reply.uploads]


async def _published(peer: Peer, target: Target) -> list[str]:
    """Publish the files to be listed, those that an earlier case has not."""
    names = [f"{target.prefix}/{name}" for name in FILES]
    reply: pb.ListReply = await peer.ask(FrameType.LIST, pb.List(prefix=f"{target.prefix}/d"))
    there = {file.name for file in reply.files}
    if not there <= set(names):
        raise FailedError(f"none but {names}", str(sorted(there)))
    for name in reversed(names):
        if name not in there:
            upload = (await peer.create(name)).upload
            await peer.data(upload, 0, b"x")
            await peer.commit(upload, 1)
    return names
