"""All uploads of a server: created, taken over, kept for later, expired.

What opens or closes a spool file lives here, one thing at a time for each upload: so a client that
comes back finds its upload open, or closed with all of it recorded, and never half way between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.catalog import CatalogError
from uringd.keyed_lock import KeyedLock
from uringd.quota import SpoolQuota
from uringd.reconcile import reconcile
from uringd.root import SPOOL_SUFFIX
from uringd.upload_errors import UploadError, failed
from uringd.uploads import Upload
from uringd.wire import ErrorCode, RemoteProtocolError, UploadState, check_name
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import open_file, operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.catalog import Catalog
    from uringd.config import Settings
    from uringd.records import ReceiptRecord, UploadRecord
    from uringd.root import Root
    from uringd.uploads import Holder
    from uringio import Ring
    from uringio.lowlevel import OpenFile

    TakeHold = Callable[[Upload], Holder]

log = structlog.get_logger("uringd.registry")

RESUME_TIMEOUT_S = 60.0
"""How long RESUME waits for a commit, or for another session that closes the upload: a slow disk's
fsync. Then the answer is BUSY, and the client asks again."""


class Registry:
    """The uploads of one server; `open` has those that sessions hold."""

    def __init__(self, ring: Ring, root: Root, catalog: Catalog, settings: Settings) -> None:
        self._ring = ring
        self._root = root
        self._catalog = catalog
        self._settings = settings
        self._quota = SpoolQuota(settings.spool_bytes_max)
        self._changing = KeyedLock()  # who opens or closes an upload; never a client's patience
        self._count = 0
        self.open: dict[str, Upload] = {}

    async def restore(self) -> None:
        """Bring catalog, spool and published files to agree (at the start, before any client)."""
        for record in await reconcile(self._root, self._catalog):
            self._quota.restore(record.upload_id, record.spool_bytes)
            self._count += 1

    async def create(self, record: UploadRecord, take_hold: TakeHold) -> Upload:
        """Begin an upload: an exclusively locked spool file, reserved when its size is known."""
        if record.upload_id in self._changing:
            raise UploadError(ErrorCode.BUSY, "this upload is being created already")
        if self._count >= self._settings.uploads_max:
            text = f"the server keeps {self._settings.uploads_max} unfinished uploads, no more"
            raise UploadError(ErrorCode.TOO_MANY_UPLOADS, text)
        self._count += 1
        try:
            async with self._changing.hold(record.upload_id):
                upload = await self._create(record)
                upload.holders.add(take_hold(upload))
        except BaseException:
            self._count -= 1
            raise
        return upload

    async def _create(self, record: UploadRecord) -> Upload:
        try:
            check_name(record.name)
        except RemoteProtocolError as exc:
            raise UploadError(exc.code, exc.text) from exc
        await self._refuse_known(record.upload_id)
        try:
            await self._root.check_free(self._ring.reactor, record.name, overwrite=record.overwrite)
            self._quota.reserve(record.upload_id, record.size or 0)
        except OperationError as exc:
            raise failed(exc) from exc
        upload = None
        try:
            file = await self._open_spool(record, os.O_CREAT | os.O_EXCL)
            upload = self._opened(record, file)
            await self._catalog.add(record)
            await upload.filling.reserve()
        except BaseException as exc:
            if upload is not None:
                await self._discard(upload)
            self._quota.release(record.upload_id)
            if isinstance(exc, OperationError):
                raise failed(exc) from exc
            raise
        self.open[upload.id] = upload
        return upload

    async def resume(
        self, upload_id: str, epoch: int, *, join: bool, take_hold: TakeHold
    ) -> Upload | ReceiptRecord:
        """Take an upload over, or join its lanes; a published one is its receipt.

        On return all that was received of it is durable, or it is broken and UploadError is raised.
        """
        with trio.move_on_after(RESUME_TIMEOUT_S):
            async with self._changing.hold(upload_id):
                found = await self._find(upload_id, epoch, join=join)
                if not isinstance(found, Upload):
                    return found
                try:
                    if not join:
                        await found.take_over()
                    await found.sync()
                    found.holders.add(take_hold(found))
                finally:
                    with trio.CancelScope(shield=True):
                        await self._rest(found, "it could not be resumed")
                return found
        raise UploadError(ErrorCode.BUSY, "another session has not let go of the upload yet")

    async def _find(self, upload_id: str, epoch: int, *, join: bool) -> Upload | ReceiptRecord:
        upload = self.open.get(upload_id)
        if upload is not None and upload.resumable:
            await upload.wait_committed()
            _check_epoch(epoch, upload.epoch, join=join)
            if upload.failure is not None:
                raise upload.failure
            return upload.receipt or upload
        record = await self._catalog.find(upload_id)
        if record is not None and record.resumable:
            _check_epoch(epoch, record.epoch, join=join)
            return await self._reopen(record)
        receipt = await self._catalog.find_receipt(upload_id)
        if receipt is None:
            raise _not_found(upload_id)
        _check_epoch(epoch, receipt.epoch, join=join)
        return receipt

    async def _reopen(self, record: UploadRecord) -> Upload:
        """Open a suspended upload's spool file. Raises UploadError (BUSY, NOT_FOUND, IO)."""
        try:
            file = await self._open_spool(record, 0)
        except OperationError as exc:
            if exc.errno == errno.EAGAIN:
                raise _still_written() from exc
            if exc.errno == errno.ENOENT:
                await self._forget(record, "its spool file is gone")
                raise _not_found(record.upload_id) from exc
            raise failed(exc) from exc
        length = os.fstat(file.fd).st_size
        upload = self._opened(record, file, length)
        last = record.ranges[-1] if record.ranges else None
        if last is not None and last.offset + last.length > length:
            await self._discard(upload)
            await self._forget(record, f"its spool file was cut to {length} bytes")
            raise _not_found(record.upload_id)
        self.open[upload.id] = upload
        return upload

    async def let_go(self, upload: Upload, holder: Holder, reason: str) -> None:
        """End a hold. Nobody's upload is kept for later if it can be, else thrown away."""
        with trio.CancelScope(shield=True):
            upload.holders.discard(holder)
            async with self._changing.hold(upload.id):
                await self._rest(upload, reason)

    async def _rest(self, upload: Upload, reason: str) -> None:
        """Close an upload that nobody holds any more."""
        if upload.holders or self.open.get(upload.id) is not upload:
            return
        if upload.resumable and not upload.is_broken:
            with contextlib.suppress(UploadError):  # it broke: that is logged below
                if await upload.suspend():
                    del self.open[upload.id]
                    self.log(upload, "suspended", reason=reason)
                return
        await self._throw_away(upload, reason)

    async def abort(self, upload_id: str, reason: str, asked_by: Holder | None = None) -> None:
        """Throw any upload away, held or not; `asked_by` needs not be told.

        Raises UploadError (NOT_FOUND, BUSY).
        """
        async with self._changing.hold(upload_id):
            upload = self.open.get(upload_id)
            if upload is not None:
                if upload.state is UploadState.COMMITTING:
                    raise UploadError(ErrorCode.BUSY, "the upload is being committed")
                await self._throw_away(upload, reason, asked_by)
                return
            await self._remove_suspended(upload_id, reason)

    async def _expire(self, upload_id: str) -> None:
        async with self._changing.hold(upload_id):
            if upload_id not in self.open:  # somebody may have come back just now
                await self._remove_suspended(upload_id, "it expired")

    async def _remove_suspended(self, upload_id: str, reason: str) -> None:
        record = await self._catalog.find(upload_id)
        if record is None:
            raise _not_found(upload_id)
        if not await self._root.remove_spool(upload_id):
            raise _still_written()
        await self._forget(record, reason)

    def finished(self, upload: Upload) -> None:
        """Take note of a commit: the upload is no upload any more."""
        if self.open.get(upload.id) is upload:
            del self.open[upload.id]
            self._count -= 1
            for holder in list(upload.holders):
                holder.ended(upload.receipt, "")

    async def expire(self, elapsed_s: float) -> None:
        """Let uploads that nobody holds grow older by `elapsed_s`, and remove the too old.

        Only time in which they could have been resumed counts, by the monotonic clock: neither a
        wall clock that jumps nor a server that was off expires anything.
        """
        await self._catalog.age(elapsed_s, list(self.open))
        for upload_id in await self._catalog.expired(self._settings.upload_expiry_s):
            with contextlib.suppress(UploadError):  # somebody else was faster
                await self._expire(upload_id)
        before_ns = time.time_ns() - int(self._settings.receipt_expiry_s * 1e9)
        await self._catalog.prune_receipts(before_ns)

    def log(self, upload: Upload, outcome: str, **facts: object) -> None:
        """Write the one log event that an upload's end (or rest) is."""
        seconds = time.monotonic() - upload.started
        log.info(
            "upload",
            outcome=outcome,
            upload_id=upload.id,
            name=upload.name,
            accepted_bytes=upload.accepted,
            durable_bytes=upload.durable,
            seconds=round(seconds, 3),
            mib_s=round(upload.accepted / 2**20 / seconds, 1) if seconds > 0 else None,
            backend=self._ring.features.backend,
            direct=upload.direct,
            **facts,
        )

    async def _throw_away(
        self, upload: Upload, reason: str, asked_by: Holder | None = None
    ) -> None:
        """Abort an open upload; the log says "failed" and why if its own failure came first."""
        failure = upload.failure
        try:
            if not await upload.abort():
                return  # a commit was faster
            self._count -= 1
        except CatalogError as exc:  # its record counts until it is forgotten
            log.warning("record left", upload_id=upload.id, reason=str(exc))
        del self.open[upload.id]
        if failure is not None:
            self.log(upload, "failed", reason=failure.text)
        else:
            self.log(upload, "aborted", reason=reason)
        for holder in list(upload.holders):
            holder.ended(None, "" if holder is asked_by else reason)

    async def _forget(self, record: UploadRecord, reason: str) -> None:
        """Remove the record of an upload whose spool file is gone."""
        await self._catalog.remove(record.upload_id)
        self._quota.release(record.upload_id)
        self._count -= 1
        log.info(
            "upload",
            outcome="removed",
            upload_id=record.upload_id,
            name=record.name,
            reason=reason,
        )

    async def _refuse_known(self, upload_id: str) -> None:
        known = await self._catalog.find(upload_id) or await self._catalog.find_receipt(upload_id)
        if known is not None:
            raise UploadError(ErrorCode.BUSY, f"there is an upload {upload_id}: resume it")

    async def _open_spool(self, record: UploadRecord, flags: int) -> OpenFile:
        """Open and lock a spool file. Raises OperationError (EAGAIN: locked by a dying server)."""
        name = record.upload_id + SPOOL_SUFFIX
        mode = 0o666 if flags & os.O_CREAT else 0  # openat2(2) takes none for what is there
        opening = operations.open_beneath(self._root.spool_fd, name, os.O_RDWR | flags, mode)
        file = await open_file(self._ring.reactor, opening, record.name, "auto")
        try:
            # The fence: held until the last write of this process has ended, however it ends.
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if flags & os.O_CREAT:
                unlink = operations.unlink(self._root.spool_fd, name)
                await self._ring.reactor.perform_always(unlink)
            await self._ring.reactor.perform_always(operations.close(file.fd))
            raise operation_error(exc.errno or errno.EIO, "flock", record.name) from exc
        return file

    def _opened(self, record: UploadRecord, file: OpenFile, reached: int = 0) -> Upload:
        return Upload(
            self._ring, self._root, self._catalog, self._quota, file, record, reached=reached
        )

    async def _discard(self, upload: Upload) -> None:
        with contextlib.suppress(CatalogError):  # the next start removes the record
            await upload.abort()


def new_upload_id() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


def _check_epoch(named: int, current: int, *, join: bool) -> None:
    if (named or join) and named != current:
        text = f"the upload is at epoch {current}, not {named}: a newer client has taken it over"
        raise UploadError(ErrorCode.FENCED, text)


def _still_written() -> UploadError:
    text = "writes of a server that died may still reach the disk"
    return UploadError(ErrorCode.BUSY, text)


def _not_found(upload_id: str) -> UploadError:
    text = f"there is no upload {upload_id}: it ended, expired, or never was"
    return UploadError(ErrorCode.NOT_FOUND, text)
