"""What is done now and then, once for the server: expiry, pruning, tidying after the dead.

No worker is asked. The lock on a spool file says whether anybody holds the upload: what is locked
is left alone, by the kernel's own word, and its holder says every minute in the catalog that it is
not at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from uringd.accounts import Accounts, Kind
from uringd.catalog import Catalog, CatalogError
from uringd.clock import SteadyTime
from uringd.root import Removal
from uringd.server import EXPIRY_TICK_S
from uringd.upload_log import log_removed

if TYPE_CHECKING:
    from uringd.config import Settings
    from uringd.records import UploadRecord
    from uringd.root import Root

log = structlog.get_logger("uringd.workers")


class Housekeeping:
    """The supervisor's upkeep of catalog and spool."""

    def __init__(
        self, root: Root, catalog: Catalog, accounts: Accounts, settings: Settings
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._accounts = accounts
        self._settings = settings
        self._time = SteadyTime()
        self._untidy = False
        self._small: set[str] | None = None

    def somebody_died(self) -> None:
        """Take note that a worker may have left something behind."""
        self._untidy = True
        self._small = None

    async def keep(self) -> None:
        """Keep the house until cancelled."""
        since = trio.current_time()
        while True:
            await trio.sleep(EXPIRY_TICK_S)
            elapsed_s, since = trio.current_time() - since, trio.current_time()
            try:
                await self.expire(elapsed_s)
                if self._untidy:
                    self._untidy = False
                    self._untidy |= not await self.tidy()
            except (CatalogError, OSError) as exc:
                log.warning("upkeep failed", reason=str(exc))

    async def expire(self, elapsed_s: float) -> None:
        """Let uploads at rest grow older, remove the too old, and prune receipts."""
        await self._catalog.age(elapsed_s, [])
        for upload_id in await self._catalog.expired(self._settings.upload_expiry_s):
            record = await self._catalog.find(upload_id)
            if record is not None:
                await self._remove(record, "it expired")
        before_ns = self._time.now_ns() - int(self._settings.receipt_expiry_s * 1e9)
        await self._catalog.prune_receipts(before_ns)

    async def tidy(self) -> bool:
        """Remove what killed workers left and nobody can resume; whether nothing is left of it.

        What can be resumed is settled by who resumes it, or at the next start.
        """
        records = await self._catalog.uploads()
        clean = True
        for record in records:
            if not record.resumable:
                clean &= await self._remove(record, "its session ended with its worker")
        # Listed after the records: a spool file without one is being created, and is locked then.
        spooled = self._root.spooled()
        known = {record.upload_id for record in await self._catalog.uploads()}
        for upload_id in spooled - known:
            clean &= await self._root.remove_spool(upload_id) is not Removal.LOCKED
        return clean & await trio.to_thread.run_sync(self._tidy_small)

    def _tidy_small(self) -> bool:
        """Remove what groups of small uploads of the dead left; whether nothing is left of it.

        A group locks each file just after it has made it, and only then is a lock the whole truth:
        so the first call lists, and what is still there and not locked at the next is removed.
        """
        if self._small is None:
            self._small = set(self._root.small_spooled())
        else:
            remove = self._root.remove_entry
            self._small = {each for each in self._small if remove(each) is Removal.LOCKED}
        return not self._small

    async def _remove(self, record: UploadRecord, reason: str) -> bool:
        """Remove an upload that nobody holds; False if somebody does, or did until it was killed.

        A spool file that is gone says that a commit was at work: that is not settled here.
        """
        removal = await self._root.remove_spool(record.upload_id)
        if removal is Removal.DONE and await self._catalog.remove(record.upload_id):
            self._accounts.drop(Kind.UPLOADS, 1)
            self._accounts.drop(Kind.SPOOL_BYTES, record.spool_bytes)
            log_removed(record, reason)
        return removal is not Removal.LOCKED
