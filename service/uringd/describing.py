"""Uploads and files as STAT and LIST tell them. PROTOCOL.md, "STAT" and "LIST"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.others import Description
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
        return _info(upload.name, describe(upload))
    record = await server.catalog.find(upload_id)
    if record is not None:
        return _info_of(record, await _held(server, [upload_id]))
    receipt = await server.catalog.find_receipt(upload_id)
    if receipt is None:
        raise UploadError(ErrorCode.NOT_FOUND, f"there is no upload {upload_id}")
    size = receipt.size
    published = Description(upload_id, UploadState.PUBLISHED, size, size, size, size)
    return _info(receipt.name, published)


async def list_uploads(server: Server, prefix: str, after: str, limit: int) -> list[pb.UploadInfo]:
    """Describe unfinished uploads by upload id, one more than `limit` if there are more."""
    count = min(limit or LIST_ENTRIES_MAX, LIST_ENTRIES_MAX) + 1
    records = await server.catalog.uploads(prefix, after, count)
    held = await _held(server, [record.upload_id for record in records])
    return [_info_of(record, held) for record in records]


def describe(upload: Upload) -> Description:
    """Describe an upload that is held here."""
    return Description(
        upload.id, upload.state, upload.accepted, upload.written, upload.durable, upload.size
    )


async def _held(server: Server, upload_ids: list[str]) -> dict[str, Description]:
    """Describe those of the uploads that a session holds, here or in another process."""
    opened = server.registry.open
    elsewhere = [upload_id for upload_id in upload_ids if upload_id not in opened]
    found = await server.others.describe(elsewhere)
    here = {each: describe(opened[each]) for each in upload_ids if each in opened}
    return found | here


def _info_of(record: UploadRecord, held: dict[str, Description]) -> pb.UploadInfo:
    found = held.get(record.upload_id)
    if found is None:
        first = record.ranges[0] if record.ranges else None
        durable = first.length if first is not None and first.offset == 0 else 0
        state = UploadState.SUSPENDED
        found = Description(record.upload_id, state, durable, durable, durable, record.size)
    return _info(record.name, found)


def _info(name: str, found: Description) -> pb.UploadInfo:
    return pb.UploadInfo(
        upload_id=found.upload_id,
        name=name,
        state=int(found.state),  # type: ignore[arg-type]  # the stub wants its own enum
        accepted=found.accepted,
        written=found.written,
        durable=found.durable,
        size=found.size,
    )
