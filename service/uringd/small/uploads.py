"""Small uploads of all sessions, gathered into groups.

Who comes while one group is published is the next group. So a lone upload waits for nobody, and the
busier the disk, the larger the groups. There is one group at a time, in the order of arrival: two
small uploads of one name end as if one had come after the other.

The catalog is not on the way to the answer: what a restart must know of a small upload is the file,
and that is durable before the answer. Receipts are recorded after it, a group at a time, for
`uringd verify`; the names of a group stay held until then, so that the newest receipt of a name is
that of the file that has it. A server that is killed in between leaves files without a receipt.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from uringd.catalog import CatalogError
from uringd.records import ReceiptRecord
from uringd.root import signed_inode
from uringd.small.group import publish_group
from uringd.small.memory import Memory
from uringd.small.put import BACKEND
from uringd.upload_errors import UploadError, failed
from uringd.wire import UPLOAD_ID_CHARS, ErrorCode
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import operations, small_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.catalog import Catalog
    from uringd.root import Root
    from uringd.small.put import Put
    from uringio.lowlevel import Reactor

log = structlog.get_logger("uringd.small")

GROUP_FILES_MAX = 128
"""Files of one group, and descriptors that it holds: two connections' worth of requests. The flush
costs each of them a hundredth by then, and who comes next does not wait long."""

RECORDS_WAITING_MAX = 4
"""Groups whose receipts are not recorded yet: a catalog that is slower than the disk slows us."""


class Instance(Protocol):
    """The server's life: who sees its id change sends again what was not durable."""

    instance_id: bytes

    def renew_instance(self) -> None:
        """Take a new id: written bytes may be lost."""


class SmallUploads:
    """Publishes small uploads, a group at a time. `serve` does the work, until cancelled."""

    def __init__(self, reactor: Reactor, root: Root, catalog: Catalog, instance: Instance) -> None:
        self._reactor = reactor
        self._root = root
        self._catalog = catalog
        self._instance = instance
        self._queue: deque[Put] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self.memory = Memory()
        self._prefix = f"{secrets.token_hex(8)}-"
        self._number = 0
        self._recording = trio.Semaphore(RECORDS_WAITING_MAX)
        self._thread = trio.CapacityLimiter(1)
        self._published = self._published_bytes = self._failed = 0
        self.open_group = small_files.open_group
        reason = small_files.why_no_barrier(root.spool_fd)
        self.trusts_barrier = not reason
        if reason:
            log.info("an fsync for each small upload", reason=reason)

    def submit(self, put: Put) -> None:
        """Have a small upload published, and answered."""
        self._queue.append(put)
        self._work.unpark()

    async def serve(self) -> None:
        """Publish what is submitted, until cancelled: between two groups, never in one."""
        async with trio.open_nursery() as nursery:
            while True:
                while not self._queue:
                    await self._work.park()
                count = min(len(self._queue), GROUP_FILES_MAX)
                puts = [self._queue.popleft() for _ in range(count)]
                with trio.CancelScope(shield=True):
                    await self._serve_group(puts, nursery)
                await trio.lowlevel.checkpoint_if_cancelled()

    def report(self) -> None:
        """Write one log event for what was published since the last one."""
        if self._published or self._failed:
            log.info(
                "small uploads",
                published=self._published,
                published_bytes=self._published_bytes,
                failed=self._failed,
            )
        else:
            self.memory.trim()
        self._published = self._published_bytes = self._failed = 0

    async def _serve_group(self, puts: list[Put], nursery: trio.Nursery) -> None:
        ids = secrets.token_hex(len(puts) * UPLOAD_ID_CHARS // 2)  # one call: it is a system call
        for number, put in enumerate(puts):
            put.upload_id = ids[number * UPLOAD_ID_CHARS : (number + 1) * UPLOAD_ID_CHARS]
        names = {put.name for put in puts}
        await self._root.naming.take(names)
        try:
            await self._publish(puts)
        except Exception:  # a fault of ours costs this group, never the server
            log.exception("small uploads failed", files=len(puts))
            for put in puts:
                put.failure = UploadError(ErrorCode.INTERNAL, "the server failed: see its log")
        records = [
            self._record_of(put) for put in puts if put.failure is None and not put.unchanged
        ]
        self._answer(puts)
        await self._recording.acquire()
        nursery.start_soon(self._record, records, names)

    async def _publish(self, puts: list[Put]) -> None:
        directories = await self._open_directories(puts)
        try:
            placed = [put for put in puts if put.failure is None]
            if not placed:
                return
            try:
                first, self._number = self._number, self._number + len(placed)
                group = self.open_group(self._root.spool_fd, self._prefix, first)
            except OSError as exc:
                error = operation_error(exc.errno or errno.EIO, "open", "the spool")
                for put in placed:
                    put.failure = failed(error)
                return
            publish = partial(publish_group, group, placed, trusts_barrier=self.trusts_barrier)
            if await trio.to_thread.run_sync(publish, limiter=self._thread):
                log.error("written bytes were lost", files=len(placed), reason="syncfs failed")
                self._instance.renew_instance()
        finally:
            for fd in directories:
                await self._reactor.perform_always(operations.close(fd))

    async def _open_directories(self, puts: list[Put]) -> list[int]:
        """Place each put in its directory, made where it is missing; the result is to be closed."""
        opened: dict[tuple[str, ...], int | UploadError] = {(): self._root.fd}
        for put in puts:
            parents = put.components[:-1]
            if parents not in opened:
                try:
                    opened[parents] = await self._root.open_parent(self._reactor, put.components)
                except OperationError as exc:
                    opened[parents] = failed(exc)
            found = opened[parents]
            if isinstance(found, UploadError):
                put.failure = UploadError(found.code, f"{found.text} (for {put.name})")
            else:
                put.place(found)
        del opened[()]
        return [fd for fd in opened.values() if isinstance(fd, int)]

    async def _record(self, records: Sequence[ReceiptRecord], names: set[str]) -> None:
        """Record a group's receipts, which are sent already, and let go of its names."""
        try:
            with trio.CancelScope(shield=True):
                if records:
                    await self._catalog.publish_many(records)
        except CatalogError as exc:
            log.warning("receipts not recorded", files=len(records), reason=str(exc))
        finally:
            self._root.naming.free(names)
            self._recording.release()

    def _record_of(self, put: Put) -> ReceiptRecord:
        return ReceiptRecord(
            put.upload_id,
            put.name,
            len(put.content),
            put.crc32c,
            put.durability,
            BACKEND,
            False,
            put.asker.transport,
            time.monotonic() - put.started,
            self._instance.instance_id,
            0,
            signed_inode(put.file.inode),
            put.file.modified_ns,
            time.time_ns(),
        )

    def _answer(self, puts: Sequence[Put]) -> None:
        for put in puts:
            if put.failure is None:
                self._published += 1
                self._published_bytes += len(put.content)
            else:
                self._failed += 1
            try:
                put.asker.answered(put)
            except Exception:  # it costs this client, never the others
                log.exception("small upload not answered", name=put.name)
