"""What a session answers to each request. PROTOCOL.md, section by section of that name.

A handler returns the reply's message or raises UploadError, which becomes the ERROR that answers.
"""

from __future__ import annotations

import errno
import secrets
from typing import TYPE_CHECKING

from uringd.catalog import CatalogError
from uringd.describing import file_info, find_upload, list_uploads
from uringd.records import ReceiptRecord, UploadRecord
from uringd.upload_errors import UploadError, failed, fenced
from uringd.upload_log import log_end
from uringd.uploads import check_content
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    RANGES_MAX,
    UPLOAD_ID_CHARS,
    ByteRange,
    Control,
    Durability,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    check_name,
    list_reply,
)
from uringio.exceptions import OperationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf.message import Message

    from uringd.holds import Hold
    from uringd.session import Session

    Handler = Callable[[Session, Control], Awaitable[Message]]


async def answer(session: Session, event: Control) -> Message:
    """Handle a request. Raises UploadError."""
    try:
        return await HANDLERS[event.type](session, event)
    except OperationError as exc:
        raise failed(exc) from exc
    except RemoteProtocolError as exc:
        raise UploadError(exc.code, exc.text) from exc
    except CatalogError as exc:
        full = exc.errno == errno.ENOSPC
        raise UploadError(ErrorCode.NO_SPACE if full else ErrorCode.IO, str(exc)) from exc


async def create(session: Session, event: Control) -> pb.CreateReply:
    """Begin an upload."""
    message: pb.Create = event.message
    _refuse_more(session)
    resumable = "resume" in session.features
    record = UploadRecord(
        message.upload_id or secrets.token_hex(UPLOAD_ID_CHARS // 2),
        message.name,
        message.size if message.HasField("size") else None,
        message.overwrite,
        Durability(message.durability),
        resumable,
    )
    upload = await session.server.registry.create(record, session.handles.take_hold)
    return pb.CreateReply(
        upload_id=upload.id,
        upload=session.handles.of(upload),
        chunk_bytes=session.server.slot_bytes,
        epoch=upload.epoch if resumable else 0,
    )


async def resume(session: Session, event: Control) -> pb.ResumeReply:
    """Take an upload over, or join its lanes."""
    message: pb.Resume = event.message
    if "resume" not in session.features:
        raise UploadError(ErrorCode.UNSUPPORTED, "resume is not in force in this session")
    if message.join and "lanes" not in session.features:
        raise UploadError(ErrorCode.UNSUPPORTED, "lanes are not in force in this session")
    _refuse_more(session)
    server = session.server
    found = await server.registry.resume(
        message.upload_id, message.epoch, join=message.join, take_hold=session.handles.take_hold
    )
    if isinstance(found, ReceiptRecord):
        whole = [ByteRange(0, found.size, found.crc32c)] if found.size else []
        handle, durable = session.handles.keep_receipt(found), whole
    else:
        handle, durable = session.handles.of(found), list(found.durable_ranges)
    return pb.ResumeReply(
        upload=handle,
        epoch=found.epoch,
        durable=_ranges(durable),
        chunk_bytes=server.slot_bytes,
        name=found.name,
        size=found.size,
        instance_id=server.instance_id,
    )


async def sync(session: Session, event: Control) -> pb.SyncReply:
    """Make durable what the upload was sent."""
    hold = _hold(session, event.upload)
    durable = await hold.upload.sync()
    return pb.SyncReply(instance_id=session.server.instance_id, durable=durable)


async def commit(session: Session, event: Control) -> pb.Receipt:
    """Publish an upload; asked again, answer with the same receipt."""
    message: pb.Commit = event.message
    crc = message.crc32c if message.HasField("crc32c") else None
    receipt = session.handles.receipts.get(event.upload)
    if receipt is None:
        hold = _hold(session, event.upload)
        receipt = hold.upload.receipt or await _commit(session, hold, message, crc)
    if message.size != receipt.size:
        text = f"COMMIT says {message.size} bytes, and {receipt.size} are published"
        raise UploadError(ErrorCode.OUT_OF_RANGE, text)
    check_content(crc, receipt.crc32c)
    return pb.Receipt(
        upload_id=receipt.upload_id,
        name=receipt.name,
        size=receipt.size,
        crc32c=receipt.crc32c,
        durability=int(receipt.durability),  # type: ignore[arg-type]  # the stub's own enum
        backend=receipt.backend,
        direct=receipt.direct,
        transport=receipt.transport,
        seconds=receipt.seconds,
        instance_id=receipt.instance_id,
    )


async def _commit(
    session: Session, hold: Hold, message: pb.Commit, crc: int | None
) -> ReceiptRecord:
    registry = session.server.registry
    upload = hold.upload
    receipt = await upload.commit(
        message.size,
        crc,
        Durability(message.durability),
        transport="+".join(upload.transports) or session.transport,
        instance_id=session.server.instance_id,
    )
    if registry.open.get(upload.id) is upload:
        log_end(
            upload,
            receipt.durability.name.lower(),
            peer=session.peer,
            transport=receipt.transport,
            crc32c=f"{receipt.crc32c:08x}",
        )
    registry.finished(upload)
    return receipt


async def abort(session: Session, event: Control) -> pb.AbortReply:
    """Throw an upload away: one of this session by its handle, or any by its id."""
    message: pb.Abort = event.message
    registry = session.server.registry
    hold = _hold(session, event.upload) if event.upload else None
    upload_id = message.upload_id or (hold.upload.id if hold else "")
    if not upload_id or (hold is not None and upload_id != hold.upload.id):
        raise UploadError(ErrorCode.NOT_FOUND, "there is no such upload: it ended, or never was")
    own = next((h for h in session.handles.holds.values() if h.upload.id == upload_id), None)
    await registry.abort(upload_id, f"asked for by {session.peer}", own)
    return pb.AbortReply()


async def stat(session: Session, event: Control) -> pb.StatReply:
    """Say what is known of a published file, or of an upload."""
    message: pb.Stat = event.message
    server = session.server
    if message.WhichOneof("subject") == "upload_id":
        return pb.StatReply(upload=await find_upload(server, message.upload_id))
    check_name(message.name)
    found = await server.root.find(server.ring.reactor, message.name)
    if found is None:
        raise UploadError(ErrorCode.NOT_FOUND, f"there is no file {message.name}")
    return pb.StatReply(file=file_info(found))


async def list_(session: Session, event: Control) -> pb.ListReply:
    """List published files, or unfinished uploads."""
    message: pb.List = event.message
    server = session.server
    if message.uploads:
        uploads = await list_uploads(server, message.prefix, message.after, message.limit)
        return list_reply(uploads=uploads, limit=message.limit)
    files = await server.root.list_published(message.prefix, message.after, message.limit)
    return list_reply(files=map(file_info, files), limit=message.limit)


async def ping(_session: Session, _event: Control) -> pb.PingReply:  # a handler
    """Say that somebody is there."""
    return pb.PingReply()


async def attach(session: Session, event: Control) -> pb.AttachReply:
    """Attach memory for chunks that do not pass through the stream."""
    if session.placing is None:
        raise UploadError(ErrorCode.UNSUPPORTED, "no shared memory is in force in this session")
    return session.placing.attach(event.message)


HANDLERS: dict[FrameType, Handler] = {
    FrameType.CREATE: create,
    FrameType.RESUME: resume,
    FrameType.SYNC: sync,
    FrameType.COMMIT: commit,
    FrameType.ABORT: abort,
    FrameType.STAT: stat,
    FrameType.LIST: list_,
    FrameType.PING: ping,
    FrameType.ATTACH: attach,
}


def _hold(session: Session, handle: int) -> Hold:
    hold = session.handles.holds.get(handle)
    if hold is None:
        if handle in session.handles.fenced:
            raise fenced()
        raise UploadError(ErrorCode.NOT_FOUND, f"no upload has the handle {handle} here")
    return hold


def _refuse_more(session: Session) -> None:
    """Refuse to begin or resume an upload while the server leaves, or for a session with many."""
    if session.server.closing:
        raise UploadError(ErrorCode.SHUTTING_DOWN, "the server is shutting down")
    limit = session.server.settings.uploads_per_connection_max
    if len(session.handles.holds) >= limit:
        text = f"this connection has {limit} uploads already, the most it may have"
        raise UploadError(ErrorCode.TOO_MANY_UPLOADS, text)


def _ranges(durable: Sequence[ByteRange]) -> list[pb.Range]:
    return [
        pb.Range(offset=part.offset, length=part.length, crc32c=part.crc32c)
        for part in durable[:RANGES_MAX]
    ]
