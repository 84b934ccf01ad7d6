"""What a session answers to each request. PROTOCOL.md, section by section of that name.

A handler returns the reply's message or raises UploadError, which becomes the ERROR that answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.spool import create_upload
from uringd.upload_errors import UploadError, failed
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    Control,
    Durability,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    UploadState,
    check_name,
    list_reply,
)
from uringio.exceptions import OperationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from uringd.root import Published
    from uringd.session import Session
    from uringd.uploads import Upload

    Handler = Callable[[Session, Control], Awaitable[Message]]

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


async def answer(session: Session, event: Control) -> Message:
    """Handle a request. Raises UploadError."""
    handler = HANDLERS.get(event.type)
    if handler is None:
        raise UploadError(ErrorCode.UNSUPPORTED, f"{event.type.name} is not offered here")
    try:
        return await handler(session, event)
    except OperationError as exc:
        raise failed(exc) from exc
    except RemoteProtocolError as exc:
        raise UploadError(exc.code, exc.text) from exc


async def create(session: Session, event: Control) -> pb.CreateReply:
    """Begin an upload."""
    message: pb.Create = event.message
    server = session.server
    if server.closing:
        raise UploadError(ErrorCode.SHUTTING_DOWN, "the server is shutting down")
    limit = server.settings.uploads_per_connection_max
    if len(session.uploads) >= limit:
        text = f"this connection has {limit} uploads already, the most it may have"
        raise UploadError(ErrorCode.TOO_MANY_UPLOADS, text)
    upload = await create_upload(
        server.ring,
        server.root,
        message.name,
        size=message.size if message.HasField("size") else None,
        overwrite=message.overwrite,
        durability=Durability(message.durability),
    )
    handle = session.add_upload(upload)
    return pb.CreateReply(upload_id=upload.id, upload=handle, chunk_bytes=server.slot_bytes)


async def sync(session: Session, event: Control) -> pb.SyncReply:
    """Make durable what the upload was sent."""
    upload = _upload(session, event.upload)
    durable = await upload.sync()
    return pb.SyncReply(instance_id=session.server.instance_id, durable=durable)


async def commit(session: Session, event: Control) -> pb.Receipt:
    """Publish an upload."""
    message: pb.Commit = event.message
    upload = _upload(session, event.upload)
    crc = message.crc32c if message.HasField("crc32c") else None
    done = await upload.commit(message.size, crc, Durability(message.durability))
    session.drop_upload(
        event.upload,
        done.durability.name.lower(),
        crc32c=f"{done.crc32c:08x}",
    )
    return pb.Receipt(
        upload_id=upload.id,
        name=upload.name,
        size=done.size,
        crc32c=done.crc32c,
        durability=int(done.durability),  # type: ignore[arg-type]  # the stub wants its own enum
        backend=session.server.backend,
        direct=upload.direct,
        transport=session.transport,
        seconds=done.seconds,
        instance_id=session.server.instance_id,
    )


async def abort(session: Session, event: Control) -> pb.AbortReply:
    """Throw an upload away: one of this session by its handle, or any by its id."""
    message: pb.Abort = event.message
    owner, handle = session, event.upload
    if message.upload_id:
        owner, handle = session.server.uploads.get(message.upload_id, (session, 0))
    upload = owner.uploads.get(handle)
    if upload is None or (event.upload and session.uploads.get(event.upload) is not upload):
        raise UploadError(ErrorCode.NOT_FOUND, "there is no such upload: it ended, or never was")
    if upload.state is UploadState.COMMITTING:
        raise UploadError(ErrorCode.BUSY, "the upload is being committed")
    await owner.abort_upload(handle, f"asked for by {session.peer}")
    return pb.AbortReply()


async def stat(session: Session, event: Control) -> pb.StatReply:
    """Say what is known of a published file, or of an unfinished upload."""
    message: pb.Stat = event.message
    server = session.server
    if message.WhichOneof("subject") == "upload_id":
        owner, handle = server.uploads.get(message.upload_id, (session, 0))
        upload = owner.uploads.get(handle)
        if upload is None:
            raise UploadError(ErrorCode.NOT_FOUND, f"there is no upload {message.upload_id}")
        return pb.StatReply(upload=_upload_info(upload))
    check_name(message.name)
    found = await server.root.find(server.ring.reactor, message.name)
    if found is None:
        raise UploadError(ErrorCode.NOT_FOUND, f"there is no file {message.name}")
    return pb.StatReply(file=_file_info(found))


async def list_(session: Session, event: Control) -> pb.ListReply:
    """List published files, or unfinished uploads."""
    message: pb.List = event.message
    server = session.server
    if message.uploads:
        found = sorted((i, o.uploads[h]) for i, (o, h) in server.uploads.items())
        wanted = [u for i, u in found if u.name.startswith(message.prefix) and i > message.after]
        return list_reply(uploads=map(_upload_info, wanted), limit=message.limit)
    files = await server.root.list_published(message.prefix, message.after, message.limit)
    return list_reply(files=map(_file_info, files), limit=message.limit)


async def ping(_session: Session, _event: Control) -> pb.PingReply:  # a handler
    """Say that somebody is there."""
    return pb.PingReply()


HANDLERS: dict[FrameType, Handler] = {
    FrameType.CREATE: create,
    FrameType.SYNC: sync,
    FrameType.COMMIT: commit,
    FrameType.ABORT: abort,
    FrameType.STAT: stat,
    FrameType.LIST: list_,
    FrameType.PING: ping,
}
"""RESUME is not among them yet: it is answered with UNSUPPORTED, and not offered in HELLO."""


def _upload(session: Session, handle: int) -> Upload:
    upload = session.uploads.get(handle)
    if upload is None:
        raise UploadError(ErrorCode.NOT_FOUND, f"no upload has the handle {handle} here")
    return upload


def _file_info(file: Published) -> pb.FileInfo:
    """Describe a published file. Its time can be beyond the wire's int64, which ends in 2262."""
    modified_ns = max(INT64_MIN, min(file.modified_ns, INT64_MAX))
    return pb.FileInfo(name=file.name, size=file.size, modified_ns=modified_ns)


def _upload_info(upload: Upload) -> pb.UploadInfo:
    return pb.UploadInfo(
        upload_id=upload.id,
        name=upload.name,
        state=int(upload.state),  # type: ignore[arg-type]  # the stub wants its own enum
        accepted=upload.accepted,
        written=upload.written,
        durable=upload.durable,
        size=upload.size,
    )
