"""Uploads that no session of this process holds: opened again, or removed.

The lock on its spool file decides who has an upload, over all processes. It is tried first, so what
nobody holds costs no question. Where it is taken the other processes are asked. What they answer is
old at once, so catalog and lock are looked at again after it, and whatever is still between two
states when patience is over is BUSY: the client asks again.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from uringd.accounts import Accounts, Kind
from uringd.others import HeldElsewhereError
from uringd.reconcile import settle_gone
from uringd.root import SPOOL_SUFFIX, Removal
from uringd.spool_files import open_spool
from uringd.upload_errors import UploadError, check_epoch, failed, not_found, still_written
from uringd.upload_log import log_removed
from uringd.wire import ErrorCode
from uringio.exceptions import OperationError
from uringio.lowlevel import operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.catalog import Catalog
    from uringd.others import Others
    from uringd.quota import SpoolQuota
    from uringd.records import ReceiptRecord, UploadRecord
    from uringd.root import Root
    from uringd.uploads import Upload
    from uringio import Ring
    from uringio.lowlevel import OpenFile

    MakeUpload = Callable[[UploadRecord, OpenFile, int], Upload]

LOCK_POLL_S = 0.02
"""Between two looks at a lock whose holder is about to be known: it is creating, or closing."""


class Resting:
    """What is known of uploads by catalog and spool alone. `make` makes one of an open file."""

    def __init__(
        self,
        ring: Ring,
        root: Root,
        catalog: Catalog,
        quota: SpoolQuota,
        accounts: Accounts,
        others: Others,
        make: MakeUpload,
    ) -> None:
        self._ring = ring
        self._root = root
        self._catalog = catalog
        self._quota = quota
        self._accounts = accounts
        self._others = others
        self._make = make

    async def open(
        self, upload_id: str, epoch: int, *, join: bool
    ) -> tuple[Upload | ReceiptRecord, bool]:
        """Open an upload; `epoch` and `join` as in RESUME.

        The result is the upload, or its receipt if it is published, and whether it was taken from
        another process, its epoch raised. Raises UploadError, HeldElsewhereError.
        """
        patience = trio.current_time() + self._others.patience_s
        taken = None
        while True:
            record = await self._catalog.find(upload_id)
            if record is not None and record.resumable:
                if record.epoch != taken:
                    check_epoch(epoch, record.epoch, join=join)
                fence = await self._reopen(record)
                if fence is None:
                    continue
                if not isinstance(fence, Removal):
                    return fence, taken == record.epoch
            elif trio.current_time() < patience and self._root.is_spooled(upload_id):
                fence = Removal.LOCKED  # another process is creating it
            else:
                return await self._published(upload_id, epoch, join=join), False
            asked = await self._ask(upload_id, epoch, join=join)
            if asked is not None:
                taken = asked
            elif fence is Removal.GONE:
                return await self._settle_gone(upload_id, epoch, join=join), False
            elif trio.current_time() >= patience:
                raise still_written()
            else:
                await trio.sleep(LOCK_POLL_S)

    async def abort(self, upload_id: str, reason: str) -> None:
        """Throw an upload away, whoever holds it. Raises UploadError (NOT_FOUND, BUSY)."""
        patience = trio.current_time() + self._others.patience_s
        while not await self._others.abort(upload_id, reason):
            try:
                await self.remove(upload_id, reason)
            except UploadError as exc:
                if exc.code is not ErrorCode.BUSY:
                    raise
                if trio.current_time() >= patience:
                    await self._settle_committing(upload_id)
                    raise
                await trio.sleep(LOCK_POLL_S)
            else:
                return

    async def remove(self, upload_id: str, reason: str) -> None:
        """Remove an upload that nobody holds. Raises UploadError (NOT_FOUND, BUSY)."""
        record = await self._catalog.find(upload_id)
        if record is None:
            raise not_found(upload_id)
        removal = await self._root.remove_spool(upload_id)
        if removal is Removal.LOCKED:
            raise still_written()
        if removal is Removal.GONE:
            record = await self._catalog.find(upload_id)
            if record is None:
                raise not_found(upload_id)
            if record.committing is not None:  # and renamed; RESUME finds out, if need be
                raise UploadError(ErrorCode.BUSY, "the upload is being committed")
        record = await self._catalog.find(upload_id) or record  # as its last holder left it
        if await self._catalog.remove(upload_id):
            self._count_out(record)
            log_removed(record, reason)

    async def _ask(self, upload_id: str, epoch: int, *, join: bool) -> int | None:
        """Have an upload closed by its holder; its new epoch, None if it has none."""
        if not join:
            return await self._others.let_go(upload_id, epoch)
        worker = await self._others.find(upload_id)
        if worker is not None:
            raise HeldElsewhereError(worker)
        return None

    async def _published(self, upload_id: str, epoch: int, *, join: bool) -> ReceiptRecord:
        receipt = await self._catalog.find_receipt(upload_id)
        if receipt is None:
            raise not_found(upload_id)
        check_epoch(epoch, receipt.epoch, join=join)
        return receipt

    async def _settle_committing(self, upload_id: str) -> None:
        """End a commit that nobody is at any more: what it renamed is published, and no upload.

        Else it would be BUSY until the next start. Raises UploadError (NOT_FOUND), CatalogError.
        """
        record = await self._catalog.find(upload_id)
        if record is None or record.committing is None or self._root.is_spooled(upload_id):
            return
        _, ours = await settle_gone(self._root, self._catalog, record)
        if ours:
            self._count_out(record)
        raise not_found(upload_id)

    async def _settle_gone(self, upload_id: str, epoch: int, *, join: bool) -> ReceiptRecord:
        """Settle an upload that nobody holds and whose spool file is gone.

        Its record is read again first. Who held the file when it was seen to be gone would have
        answered, or has ended its commit: then there is a receipt. So what has no receipt now is
        left by a process that was killed, or somebody has removed the file.
        """
        record = await self._catalog.find(upload_id)
        if record is not None:
            receipt, ours = await settle_gone(self._root, self._catalog, record)
            if ours:
                self._count_out(record)
            if receipt is None:
                raise not_found(upload_id)
        return await self._published(upload_id, epoch, join=join)

    async def _reopen(self, record: UploadRecord) -> Upload | Removal | None:
        """Open a spool file that is there and free; LOCKED or GONE if it is not.

        None if the record is another one by now. Whoever had the file may have recorded more until
        the lock was ours, or have published it: then what was opened by its spool name has another
        one. Raises UploadError (NOT_FOUND, IO).
        """
        try:
            file = await open_spool(self._ring, self._root, record)
        except OperationError as exc:
            if exc.errno == errno.EAGAIN:
                return Removal.LOCKED
            if exc.errno == errno.ENOENT:
                return Removal.GONE
            raise failed(exc) from exc
        try:
            if await self._catalog.find(record.upload_id) == record:
                return await self._take(record, file)
        except BaseException:
            await self._ring.reactor.perform_always(operations.close(file.fd))
            raise
        await self._ring.reactor.perform_always(operations.close(file.fd))
        return None

    async def _take(self, record: UploadRecord, file: OpenFile) -> Upload:
        """Make an upload of what nobody else can change. Raises UploadError (NOT_FOUND)."""
        if record.committing is not None:  # by a process that was killed before its rename
            await self._catalog.withdraw_commit(record.upload_id)
        length = os.fstat(file.fd).st_size
        last = record.ranges[-1] if record.ranges else None
        if last is not None and last.offset + last.length > length:
            await self._remove_cut(record, length)
        self._quota.reopen(record.upload_id, record.spool_bytes)
        return self._make(record, file, length)

    async def _remove_cut(self, record: UploadRecord, length: int) -> None:
        """Remove an upload whose spool file lacks what was durable. Raises UploadError."""
        name = record.upload_id + SPOOL_SUFFIX
        await self._ring.reactor.perform_always(operations.unlink(self._root.spool_fd, name))
        if await self._catalog.remove(record.upload_id):
            self._count_out(record)
            log_removed(record, f"its spool file was cut to {length} bytes")
        raise not_found(record.upload_id)

    def _count_out(self, record: UploadRecord) -> None:
        self._quota.forget(record.spool_bytes)
        self._accounts.drop(Kind.UPLOADS, 1)
