"""After a restart: catalog, spool and published files are brought to agree, each difference logged.

A server that was killed leaves one of these, and nothing else:
- a spool file without a record: CREATE was cut off before its record. Removed.
- files of a group of small uploads, without a name yet: nobody was told anything. Removed.
- a record without a spool file: an abort was cut off, or somebody removed the file. Removed.
- a commit's record with its spool file: the rename never happened, or was lost with the power. The
  upload is as durable as its ranges say and goes on.
- a commit's record without its spool file, and the file under its name with the recorded inode and
  size: it was renamed. Both fsyncs are done again, for which of them came to be done is not known;
  the receipt is recorded, and COMMIT is answered with it. At the level WRITTEN the rename can
  survive a power cut that the bytes did not: there the bytes are read and compared.
- a receipt of less than PUBLISHED whose file is not there: the name was lost with the power. If the
  rename was undone, its spool file is back, and at DURABLE all of it: bytes that were acknowledged
  as durable, maybe to a client that has not seen its Receipt. It is renamed once more, and this
  time its directory is fsynced. Without its spool file it is forgotten.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.root import SPOOL_SUFFIX, Removal, inode_of
from uringd.wire import Durability, check_name, checksum
from uringio.lowlevel import forget_clean_pages

if TYPE_CHECKING:
    from uringd.catalog import Catalog
    from uringd.records import ReceiptRecord, UploadRecord
    from uringd.root import Root

log = structlog.get_logger("uringd.reconcile")

READ_BYTES = 1 << 20
"""Read at a time when a file's checksum is looked at."""


async def reconcile(root: Root, catalog: Catalog) -> list[UploadRecord]:
    """Make catalog, spool and published files agree; the result is the uploads that go on."""
    records = await catalog.uploads()
    spooled = root.spooled()
    kept = [record for record in records if await _settle(root, catalog, record, spooled)]
    for receipt in await catalog.weak_receipts():
        if await trio.to_thread.run_sync(_is_published, root, receipt):
            continue
        there = receipt.upload_id in spooled
        if there and await trio.to_thread.run_sync(_publish_again, root, receipt):
            spooled.discard(receipt.upload_id)
            _say(receipt.upload_id, receipt.name, "published", "its rename was lost with the power")
        else:
            await catalog.remove_receipt(receipt.upload_id)
            reason = "its name did not survive, as its level"
            _say(receipt.upload_id, receipt.name, "lost", reason)
    for upload_id in sorted(spooled - {record.upload_id for record in records}):
        if await root.remove_spool(upload_id) is not Removal.LOCKED:
            _say(upload_id, "", "removed", "its spool file has no record")
    if small := await trio.to_thread.run_sync(root.remove_small):
        log.info("small uploads", outcome="removed", files=small, reason="the server ended in them")
    return kept


async def _settle(root: Root, catalog: Catalog, record: UploadRecord, spooled: set[str]) -> bool:
    """Settle one record; whether the upload goes on."""
    if record.upload_id not in spooled:
        await settle_gone(root, catalog, record)
        return False
    if not record.resumable:
        if await root.remove_spool(record.upload_id) is not Removal.LOCKED:
            await catalog.remove(record.upload_id)
            _say(record.upload_id, record.name, "removed", "its session ended with the server")
        return False
    if record.committing is not None:
        await catalog.withdraw_commit(record.upload_id)
        _say(record.upload_id, record.name, "suspended", "the server ended in its commit")
    return True


async def settle_gone(
    root: Root, catalog: Catalog, record: UploadRecord
) -> tuple[ReceiptRecord | None, bool]:
    """Settle an upload that has no spool file and no holder.

    The result is its receipt, if it was published, and whether this call took its record away:
    another process may have come across it as well.
    """
    if record.committing is not None:
        async with root.naming.hold(record.name):
            if await catalog.find(record.upload_id) is None:
                return await catalog.find_receipt(record.upload_id), False
            receipt = await trio.to_thread.run_sync(_recover, root, record)
            if receipt is not None:
                await catalog.publish(receipt)
                _say(record.upload_id, record.name, "published", "the server ended in its commit")
                return receipt, True
    removed = await catalog.remove(record.upload_id)
    if removed:
        _say(record.upload_id, record.name, "removed", "its spool file is gone")
    return None, removed


def _recover(root: Root, record: UploadRecord) -> ReceiptRecord | None:
    """Look for a renamed file and make it durable; None when it is not there (in a thread)."""
    commit = record.committing
    assert commit is not None
    with contextlib.ExitStack() as opened:
        try:
            fds = root.open_published(record.name)
        except OSError:
            return None
        for fd in fds:
            opened.callback(os.close, fd)
        if not _is_whole(fds[-1], commit):
            return None
        found = os.fstat(fds[-1])
        for fd in reversed(fds):  # the file, its directory, and those above up to ROOT
            os.fsync(fd)
    return replace(
        commit,
        durability=Durability.PUBLISHED,
        modified_ns=found.st_mtime_ns,
        published_ns=time.time_ns(),
    )


def _is_whole(fd: int, receipt: ReceiptRecord) -> bool:
    """Whether a file is the one of a receipt, and has its bytes: at WRITTEN they are read."""
    if inode_of(fd) != receipt.inode or os.fstat(fd).st_size != receipt.size:
        return False
    return receipt.durability is not Durability.WRITTEN or _crc32c(fd) == receipt.crc32c


def _is_published(root: Root, receipt: ReceiptRecord) -> bool:
    """Whether a receipt's file has its name (in a thread)."""
    try:
        fds = root.open_published(receipt.name)
    except OSError:
        return False
    try:
        return inode_of(fds[-1]) == receipt.inode
    finally:
        for fd in fds:
            os.close(fd)


def _publish_again(root: Root, receipt: ReceiptRecord) -> bool:
    """Rename a spool file that a receipt tells of once more; whether it is whole (in a thread).

    The receipt is the newest of its name: whatever has the name is what the rename had replaced.
    """
    *parents, last = check_name(receipt.name)
    entry = receipt.upload_id + SPOOL_SUFFIX
    with contextlib.ExitStack() as opened:
        try:
            fds = root.open_directories(parents)
            for fd in fds:
                opened.callback(os.close, fd)
            file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root.spool_fd)
            opened.callback(os.close, file)
            if not _is_whole(file, receipt):
                return False
            os.fsync(file)
            os.rename(entry, last, src_dir_fd=root.spool_fd, dst_dir_fd=fds[-1])
        except OSError:
            return False
        for fd in reversed(fds):
            os.fsync(fd)
    return True


def _crc32c(fd: int) -> int:
    forget_clean_pages(fd)  # a start before this one may have heard that they are lost
    crc, offset = 0, 0
    while data := os.pread(fd, READ_BYTES, offset):
        crc = checksum.crc32c(data, crc)
        offset += len(data)
    return crc


def _say(upload_id: str, name: str, outcome: str, reason: str) -> None:
    log.info("upload", outcome=outcome, upload_id=upload_id, name=name, reason=reason)
