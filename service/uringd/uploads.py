"""An upload on the server: it fills, and is published, kept for later or thrown away.

Which promise rests on what:
- written: every chunk's write has a full-length completion (`filling`).
- durable: after that, an fsync of the spool file that succeeded (and of its directory, once, or the
  file could lose its name), and then the ranges' record in the catalog.
- published: the commit's record, then fsync, rename and fsync of the directory in order
  (`publishing`), then the receipt's record.
An upload whose write, fsync or record failed is broken for good: nothing about it is acknowledged
after.
"""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Protocol

import trio

from uringd.catalog import Catalog, CatalogError
from uringd.filling import Filling
from uringd.publishing import publish
from uringd.records import ReceiptRecord, UploadRecord
from uringd.root import SPOOL_SUFFIX, inode_of
from uringd.upload_errors import UploadError, failed, fenced, is_of_the_name
from uringd.wire import ByteRange, Durability, ErrorCode, UploadState
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.quota import SpoolQuota
    from uringd.root import Root
    from uringio import Ring
    from uringio.lowlevel import OpenFile


class Holder(Protocol):
    """Who holds an upload: told what becomes of it. Nothing here may wait or raise."""

    def progressed(self) -> None:
        """Take note that more is durable, or that the upload broke."""

    def fenced(self) -> None:
        """Take note that a newer epoch has taken the upload over."""

    def ended(self, receipt: ReceiptRecord | None, reason: str) -> None:
        """Take note that the upload was published (`receipt`) or thrown away, here or elsewhere."""


class Upload:
    """One open upload, filled by the sessions that hold it."""

    def __init__(
        self,
        ring: Ring,
        root: Root,
        catalog: Catalog,
        quota: SpoolQuota,
        file: OpenFile,
        record: UploadRecord,
        reached: int = 0,
    ) -> None:
        self._ring = ring
        self._root = root
        self._catalog = catalog
        self._quota = quota
        self._file = file
        self._record = record
        self.id = record.upload_id
        self.name = record.name
        self.backend = ring.features.backend
        self.direct = file.direct
        self.resumable = record.resumable
        self.epoch = record.epoch
        self.filling = Filling(ring, quota, file, self.id, self.name, record.size, reached)
        self.filling.restore(record.ranges)
        self.durable_ranges: Sequence[ByteRange] = record.ranges
        self._spool_durable = bool(record.ranges)
        self.holders: set[Holder] = set()
        self.started = time.monotonic()
        self.reported = False
        self.receipt: ReceiptRecord | None = None
        self.transports: dict[str, None] = {}
        """How its chunks came, in the order in which each was first used."""
        self._committing: trio.Event | None = None
        self._syncing = trio.Lock()

    @property
    def state(self) -> UploadState:
        """Where the upload is in its life."""
        if self.receipt is not None:
            return UploadState.PUBLISHED
        if self._committing is not None:
            return UploadState.COMMITTING
        return UploadState.BROKEN if self.is_broken else UploadState.RECEIVING

    @property
    def size(self) -> int | None:
        """Its size in bytes, where CREATE or the tail has said it."""
        return self.filling.size

    @property
    def accepted(self) -> int:
        """Every byte below this position was received and verified."""
        return self.filling.accepted.prefix

    @property
    def written(self) -> int:
        """Every byte below this position is written."""
        return self.filling.written.prefix

    @property
    def durable(self) -> int:
        """Every byte below this position is durable."""
        first = self.durable_ranges[0] if self.durable_ranges else None
        return first.length if first is not None and first.offset == 0 else 0

    @property
    def is_broken(self) -> bool:
        """Whether a write, fsync or record failed: only an abort is left."""
        return self.filling.failure is not None

    @property
    def lost_writes(self) -> bool:
        """Whether the failure is of a write or an fsync: what was only written may be lost."""
        failure = self.filling.failure
        return failure is not None and failure.operation in {"write", "fsync"}

    @property
    def failure(self) -> UploadError | None:
        """What broke the upload, as the client is told."""
        failure = self.filling.failure
        return None if failure is None else failed(failure)

    async def sync(self) -> int:
        """Make durable what was received until now; the result is the durable position."""
        await self.filling.wait_arrived()
        await self.checkpoint()
        return self.durable

    async def checkpoint(self) -> None:
        """Make durable what is written now, and record it. Raises UploadError: it is broken.

        Writes go on meanwhile; the ranges are those from before the fsync was asked for. Its result
        is never lost to a cancellation: a second fsync would not repeat an error.
        """
        with trio.CancelScope(shield=True):
            async with self._syncing:
                self.filling.check()
                ranges = self.filling.written.ranges()
                if ranges == self.durable_ranges or self._file.fd < 0:
                    return
                self.filling.undurable_bytes = 0
                await self._fsync(self._file.fd, self.name)
                if not self._spool_durable:
                    await self._fsync(self._root.spool_fd, "the spool directory")
                    self._spool_durable = True
                await self._record_progress(ranges)
                self.durable_ranges = ranges
        for holder in list(self.holders):
            holder.progressed()

    async def take_over(self) -> None:
        """Raise the epoch, durably; every session that holds the upload is fenced at once."""
        self.epoch += 1
        for holder in list(self.holders):
            holder.fenced()
        self.holders.clear()
        with trio.CancelScope(shield=True):
            async with self.filling.lock:
                pass  # a fenced chunk that is being taken is one of those that were there
            async with self._syncing:
                self.filling.check()
                await self._record_progress(self.durable_ranges)

    async def commit(
        self,
        size: int,
        crc32c: int | None,
        durability: Durability,
        *,
        transport: str,
        instance_id: bytes,
    ) -> ReceiptRecord:
        """Publish. On return the level that was asked for holds, and so the receipt is recorded.

        Refused with INCOMPLETE, OUT_OF_RANGE or CONTENT_MISMATCH, the upload goes on. Once it
        publishes it is not cancelled: the answer is either a receipt or an error, and either is
        true.
        """
        epoch = self.epoch
        async with self.filling.lock:
            if self.receipt is not None:
                return self.receipt  # another lane was faster
            if self.epoch != epoch:
                raise fenced()  # while it waited: the newer epoch decides
            self.filling.check()
            self._check_complete(size, crc32c)
            durability = durability or self._record.durability or Durability.PUBLISHED
            self._committing, self.filling.closed = trio.Event(), True
            try:
                with trio.CancelScope(shield=True):
                    await self.filling.wait_settled()
                    async with self._syncing:
                        # Under the lock: a checkpoint that it waited for may have failed, and the
                        # kernel tells that once. The fsync of a publish would succeed.
                        self.filling.check()
                        receipt = await self._publish(size, durability, transport, instance_id)
            finally:
                self.filling.closed = self.receipt is not None
                self._committing.set()
                self._committing = None
            return receipt

    async def wait_committed(self) -> None:
        """Wait until a commit that is at work has ended, one way or the other."""
        while self._committing is not None:
            await self._committing.wait()

    async def abort(self) -> bool:
        """Throw the upload away: wait for its writes, remove spool file and record.

        False when a commit came first: the upload is published. Raises CatalogError when the record
        cannot be removed; the next start does it then. Raises UploadError when the spool file
        cannot: its record is kept too, so that another ABORT, or its age, removes both.
        """
        with trio.CancelScope(shield=True):
            async with self.filling.lock, self._syncing:
                if self.receipt is not None:
                    return False
                self.reported = True  # what is about to fail is no news: it is wanted
                self.filling.throw_away()
                await self.filling.wait_settled()
                if self._file.fd >= 0:
                    unlink = operations.unlink(self._root.spool_fd, self.id + SPOOL_SUFFIX)
                    unlinked = await self._ring.reactor.perform_always(unlink)
                    fd, self._file.fd = self._file.fd, -1
                    await self._root.close_unlinked(fd)
                    if unlinked < 0 and unlinked != -errno.ENOENT:  # it may have been renamed
                        raise failed(operation_error(-unlinked, "unlink", self.name))
                    self._quota.release(self.id)
                    await self._catalog.remove(self.id)
        return True

    async def suspend(self) -> bool:
        """Make durable what there is and close: the upload can be resumed from the catalog.

        False if it was published meanwhile. Raises UploadError: it is broken.
        """
        with trio.CancelScope(shield=True):
            async with self.filling.lock:
                if self.receipt is not None:
                    return False
                await self.filling.wait_settled()
                await self.checkpoint()
                self.filling.closed = True
                if self._record.size is None:  # what was reserved ahead would be held for days
                    end = self.filling.written.end
                    cut = operations.ftruncate(self._file.fd, end)
                    await self._ring.reactor.perform_always(cut)
                await self._close()
                self._quota.rest(self.id)
        return True

    async def _close(self) -> None:
        """Close the spool file, and with it the lock that is its fence."""
        fd, self._file.fd = self._file.fd, -1
        await self._ring.reactor.perform_always(operations.close(fd))

    async def _publish(
        self, size: int, durability: Durability, transport: str, instance_id: bytes
    ) -> ReceiptRecord:
        receipt = ReceiptRecord(
            self.id,
            self.name,
            size,
            self.filling.accepted.crc32c(size),
            durability,
            self.backend,
            self.direct,
            transport,
            time.monotonic() - self.started,
            instance_id,
            self.epoch,
            inode_of(self._file.fd),
        )
        try:
            await self._catalog.begin_commit(receipt)
            if durability is Durability.DURABLE and not self._spool_durable:
                # No fsync follows the rename: undone, it has to leave the name from before.
                await self._fsync(self._root.spool_fd, "the spool directory")
                self._spool_durable = True
            # The newest receipt of a name is that of the file that has it: in the renames' order.
            async with self._root.naming.hold(self.name):
                modified_ns = await publish(
                    self._ring.reactor,
                    self._root,
                    self._file.fd,
                    self.id,
                    self.name,
                    cut_to=size if self.filling.longest != size else None,
                    overwrite=self._record.overwrite,
                    durability=durability,
                )
                receipt = replace(
                    receipt,
                    seconds=time.monotonic() - self.started,
                    modified_ns=modified_ns,
                    published_ns=time.time_ns(),
                )
                await self._catalog.publish(receipt)
        except CatalogError as exc:
            raise self._broken_by(exc) from exc
        except OperationError as exc:
            await self._refuse_name(exc)
        self.receipt = receipt
        if durability >= Durability.DURABLE:
            self.durable_ranges = [ByteRange(0, size, receipt.crc32c)]
        self._quota.release(self.id)
        await self._close()
        return receipt

    async def _refuse_name(self, exc: OperationError) -> NoReturn:
        """Go on after a publish that failed, where only the name is not to be had."""
        if not is_of_the_name(exc) or not self._root.is_spooled(self.id):
            raise self.filling.fail(exc) from exc
        try:
            await self._catalog.withdraw_commit(self.id)
        except CatalogError as failure:
            raise self._broken_by(failure) from failure
        if exc.errno == errno.EISDIR:
            raise failed(operation_error(errno.EEXIST, "rename", self.name)) from exc
        raise failed(exc) from exc

    async def _fsync(self, fd: int, path: str) -> None:
        result = await self._ring.reactor.perform(operations.fsync(fd, data_only=True))
        if result < 0:
            raise self.filling.fail(operation_error(-result, "fsync", path))

    async def _record_progress(self, ranges: Sequence[ByteRange]) -> None:
        if not self.resumable:
            return  # nobody can come back for it
        try:
            await self._catalog.record_progress(self.id, self.epoch, ranges)
        except CatalogError as exc:
            raise self._broken_by(exc) from exc
        self._quota.recorded(
            self.id, max((part.offset + part.length for part in ranges), default=0)
        )

    def _check_complete(self, size: int, crc32c: int | None) -> None:
        accepted = self.filling.accepted
        if self.size is not None and size != self.size:
            raise UploadError(
                ErrorCode.OUT_OF_RANGE, f"COMMIT says {size} bytes, the upload has {self.size}"
            )
        if accepted.end > size:
            raise UploadError(
                ErrorCode.OUT_OF_RANGE,
                f"COMMIT says {size} bytes, and there are some up to {accepted.end}",
            )
        missing = accepted.missing(size)
        if missing:
            lacking = sum(length for _, length in missing)
            raise UploadError(
                ErrorCode.INCOMPLETE, f"{lacking} bytes are missing", missing=tuple(missing)
            )
        check_content(crc32c, accepted.crc32c(size))

    def _broken_by(self, exc: CatalogError) -> UploadError:
        return self.filling.fail(operation_error(exc.errno, "record", self.name, hint=str(exc)))


def check_content(theirs: int | None, ours: int) -> None:
    """Refuse a COMMIT whose checksum is not that of the bytes. Raises UploadError."""
    if theirs is not None and theirs != ours:
        raise UploadError(
            ErrorCode.CONTENT_MISMATCH,
            f"COMMIT says CRC32C {theirs:08x}, the bytes have {ours:08x}",
        )
