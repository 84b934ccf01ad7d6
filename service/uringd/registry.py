"""All uploads of a server: created, taken over, kept for later, expired.

What opens or closes a spool file lives here, one thing at a time for each upload: so a client that
comes back finds its upload open, or closed with all of it recorded, and never half way between.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.accounts import Accounts, Kind
from uringd.catalog import CatalogError
from uringd.clock import SteadyTime
from uringd.keyed_lock import KeyedLock
from uringd.others import Nobody
from uringd.quota import SpoolQuota
from uringd.reconcile import reconcile
from uringd.records import ReceiptRecord
from uringd.resting import Resting
from uringd.spool_files import create_spool, undo_spool
from uringd.upload_errors import UploadError, check_epoch, failed, known
from uringd.upload_log import log_end
from uringd.uploads import Upload
from uringd.wire import ErrorCode, RemoteProtocolError, UploadState, check_name
from uringio.exceptions import BrokenError, OperationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.catalog import Catalog
    from uringd.config import Settings
    from uringd.others import Others
    from uringd.records import UploadRecord
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
    """The uploads of one server; `open` has those that sessions of this process hold."""

    def __init__(
        self,
        ring: Ring,
        root: Root,
        catalog: Catalog,
        settings: Settings,
        accounts: Accounts | None = None,
        others: Others | None = None,
    ) -> None:
        self._ring = ring
        self._root = root
        self._catalog = catalog
        self._settings = settings
        self._accounts = accounts or Accounts()
        self._quota = SpoolQuota(settings.spool_bytes_max, self._accounts)
        self._resting = Resting(
            ring, root, catalog, self._quota, self._accounts, others or Nobody(), self._opened
        )
        self._time = SteadyTime()
        self._changing = KeyedLock()  # who opens or closes an upload; never a client's patience
        self.open: dict[str, Upload] = {}

    async def restore(self) -> None:
        """Bring catalog, spool and published files to agree (at the start, before any client)."""
        for record in await reconcile(self._root, self._catalog):
            self._quota.found(record.spool_bytes)
            self._accounts.found(Kind.UPLOADS, 1)

    async def create(self, record: UploadRecord, take_hold: TakeHold) -> Upload:
        """Begin an upload: an exclusively locked spool file, reserved when its size is known."""
        if record.upload_id in self._changing:
            raise UploadError(ErrorCode.BUSY, "this upload is being created already")
        if not self._accounts.take(Kind.UPLOADS, 1, self._settings.uploads_max):
            text = f"the server keeps {self._settings.uploads_max} unfinished uploads, no more"
            raise UploadError(ErrorCode.TOO_MANY_UPLOADS, text)
        try:
            async with self._changing.hold(record.upload_id):
                upload = await self._create(record)
                upload.holders.add(take_hold(upload))
        except BaseException:
            self._accounts.give_back(Kind.UPLOADS, 1)
            raise
        self._accounts.keep(Kind.UPLOADS, 1)
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
            file = await create_spool(self._ring, self._root, record)
            upload = self._opened(record, file)
            if not await self._catalog.add(record):
                upload = None  # the record is not ours to remove
                await undo_spool(self._ring, self._root, record, file)
                raise known(record.upload_id)
            self._quota.recorded(record.upload_id, record.spool_bytes)
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
        Raises HeldElsewhereError to join what another process holds.
        """
        with trio.move_on_after(RESUME_TIMEOUT_S):
            async with self._changing.hold(upload_id):
                found, taken = await self._find(upload_id, epoch, join=join)
                if not isinstance(found, Upload):
                    return found
                try:
                    if not join and not taken:
                        await found.take_over()
                    await found.sync()
                    found.holders.add(take_hold(found))
                finally:
                    with trio.CancelScope(shield=True):
                        await self._rest(found, "it could not be resumed")
                return found
        raise UploadError(ErrorCode.BUSY, "another session has not let go of the upload yet")

    async def _find(
        self, upload_id: str, epoch: int, *, join: bool
    ) -> tuple[Upload | ReceiptRecord, bool]:
        """Find an upload, opened; and whether it was taken over on the way, its epoch raised."""
        upload = self.open.get(upload_id)
        if upload is not None and upload.resumable:
            await upload.wait_committed()
            check_epoch(epoch, upload.epoch, join=join)
            if upload.failure is not None:
                raise upload.failure
            return upload.receipt or upload, False
        found, taken = await self._resting.open(upload_id, epoch, join=join)
        if not isinstance(found, ReceiptRecord):
            self.open[upload_id] = found
        return found, taken

    async def give_up(self, upload_id: str, epoch: int) -> int | None:
        """Take an upload from its sessions, for another process; the result is its new epoch.

        None if it is not open here, or is published by now. On return it is closed, and all that
        was received of it is durable and recorded. Raises UploadError.
        """
        if upload_id not in self.open:  # no lock: whoever is about to open it asks others itself
            return None
        async with self._changing.hold(upload_id):
            upload = self.open.get(upload_id)
            if upload is None or not upload.resumable:
                return None
            await upload.wait_committed()
            check_epoch(epoch, upload.epoch, join=False)
            if upload.failure is not None:
                raise upload.failure
            if upload.receipt is not None:
                return None
            try:
                await upload.take_over()
            finally:
                with trio.CancelScope(shield=True):
                    await self._rest(upload, "another worker took it over")
            if upload.failure is not None:
                raise upload.failure
            return None if upload.receipt is not None else upload.epoch

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
            # It broke, which is logged below; or the ring did, and the next server takes it up.
            with contextlib.suppress(UploadError, BrokenError):
                if await upload.suspend():
                    del self.open[upload.id]
                    log_end(upload, "suspended", reason=reason)
                return
        await self._throw_away(upload, reason)

    async def abort(self, upload_id: str, reason: str, asked_by: Holder | None = None) -> None:
        """Throw any upload away, held or not; `asked_by` needs not be told.

        Raises UploadError (NOT_FOUND, BUSY, IO).
        """
        async with self._changing.hold(upload_id):
            if await self._abort_open(upload_id, reason, asked_by):
                return
            await self._resting.abort(upload_id, reason)

    async def abort_here(self, upload_id: str, reason: str) -> bool:
        """Throw an upload away if it is open here; whether it was. Raises as `abort`."""
        if upload_id not in self.open:  # no lock: see `give_up`
            return False
        async with self._changing.hold(upload_id):
            return await self._abort_open(upload_id, reason)

    async def _abort_open(
        self, upload_id: str, reason: str, asked_by: Holder | None = None
    ) -> bool:
        upload = self.open.get(upload_id)
        if upload is None:
            return False
        if upload.state is UploadState.COMMITTING:
            raise UploadError(ErrorCode.BUSY, "the upload is being committed")
        left = await self._throw_away(upload, reason, asked_by)
        if left is not None:
            raise left
        return True

    async def _expire(self, upload_id: str) -> None:
        async with self._changing.hold(upload_id):
            if upload_id not in self.open:  # somebody may have come back just now
                await self._resting.remove(upload_id, "it expired")

    def finished(self, upload: Upload) -> None:
        """Take note of a commit: the upload is no upload any more."""
        if self.open.get(upload.id) is upload:
            del self.open[upload.id]
            self._accounts.drop(Kind.UPLOADS, 1)
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
        before_ns = self._time.now_ns() - int(self._settings.receipt_expiry_s * 1e9)
        await self._catalog.prune_receipts(before_ns)

    async def _throw_away(
        self, upload: Upload, reason: str, asked_by: Holder | None = None
    ) -> UploadError | None:
        """Abort an open upload; the log says "failed" and why if its own failure came first.

        The result is why its spool file could not be removed, if so: it can be aborted again.
        """
        failure, left = upload.failure, None
        try:
            if not await upload.abort():
                return None  # a commit was faster
            self._accounts.drop(Kind.UPLOADS, 1)
        except CatalogError as exc:  # its record counts until it is forgotten
            log.warning("record left", upload_id=upload.id, reason=str(exc))
        except UploadError as exc:
            left = exc
            log.warning("spool file left", upload_id=upload.id, reason=exc.text)
        del self.open[upload.id]
        if failure is not None:
            log_end(upload, "failed", reason=failure.text)
        else:
            log_end(upload, "aborted", reason=reason)
        for holder in list(upload.holders):
            holder.ended(None, "" if holder is asked_by else reason)
        return left

    async def _refuse_known(self, upload_id: str) -> None:
        there = await self._catalog.find(upload_id) or await self._catalog.find_receipt(upload_id)
        if there is not None:
            raise known(upload_id)

    def _opened(self, record: UploadRecord, file: OpenFile, reached: int = 0) -> Upload:
        return Upload(
            self._ring, self._root, self._catalog, self._quota, file, record, reached=reached
        )

    async def _discard(self, upload: Upload) -> None:
        with contextlib.suppress(CatalogError, UploadError):  # the next start removes what is left
            await upload.abort()
