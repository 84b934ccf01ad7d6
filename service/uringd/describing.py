"""Uploads and files as STAT and LIST tell them. PROTOCOL.md, "STAT" and "LIST"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.upload_errors import UploadError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import LIST_ENTRIES_MAX, ErrorCode, UploadState

if TYPE_CHECKING:
    from uringd.records import UploadRecord
    from uringd.root import Published
    from uringd.server import Server
    from uringd.uploads import Upload

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def file_info(file: Published) -> pb.FileInfo:
    """Describe a published file. Its time can be beyond the wire's int64, which ends in 2262."""
    modified_ns = max(INT64_MIN, min(file.modified_ns, INT64_MAX))
    return pb.FileInfo(name=file.name, size=file.size, modified_ns=modified_ns)


async def find_upload(server: Server, upload_id: str) -> pb.UploadInfo:
    """Describe an upload that is open, suspended or published. Raises UploadError (NOT_FOUND)."""
    upload = server.registry.open.get(upload_id)
    if upload is not None:
        return _open_info(upload)
    record = await server.catalog.find(upload_id)
    if record is not None:
        return _suspended_info(record)
    receipt = await server.catalog.find_receipt(upload_id)
    if receipt is None:
        raise UploadError(ErrorCode.NOT_FOUND, f"there is no upload {upload_id}")
    return _info(upload_id, receipt.name, UploadState.PUBLISHED, [receipt.size] * 3, receipt.size)


async def list_uploads(server: Server, prefix: str, after: str, limit: int) -> list[pb.UploadInfo]:
    """Describe unfinished uploads by upload id, one more than `limit` if there are more."""
    count = min(limit or LIST_ENTRIES_MAX, LIST_ENTRIES_MAX) + 1
    records = await server.catalog.uploads(prefix, after, count)
    opened = server.registry.open
    return [
        _open_info(opened[record.upload_id])
        if record.upload_id in opened
        else _suspended_info(record)
        for record in records
    ]


def _open_info(upload: Upload) -> pb.UploadInfo:
    positions = [upload.accepted, upload.written, upload.durable]
    return _info(upload.id, upload.name, upload.state, positions, upload.size)


def _suspended_info(record: UploadRecord) -> pb.UploadInfo:
    first = record.ranges[0] if record.ranges else None
    durable = first.length if first is not None and first.offset == 0 else 0
    positions = [durable] * 3
    return _info(record.upload_id, record.name, UploadState.SUSPENDED, positions, record.size)


def _info(
    upload_id: str, name: str, state: UploadState, positions: list[int], size: int | None
) -> pb.UploadInfo:
    accepted, written, durable = positions
    return pb.UploadInfo(
        upload_id=upload_id,
        name=name,
        state=int(state),  # type: ignore[arg-type]  # the stub wants its own enum
        accepted=accepted,
        written=written,
        durable=durable,
        size=size,
    )
