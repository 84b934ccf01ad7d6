"""The catalog: what must be known of uploads after a restart, in `ROOT/.uringd/catalog.sqlite3`.

Everything durable that is not file content lives here. Which promise rests on what:
- A method that returns has committed: SQLite in WAL mode with synchronous=FULL has fsynced the log
  (sqlite.org/wal.html), and so the record survives loss of power.
- A range is recorded after the fsync of its bytes, and acknowledged after its record.
- A commit is recorded before the rename, and its receipt before the client gets it.

One task takes what is asked for meanwhile and does it as one transaction in a worker thread: a
hundred uploads that end together cost one fsync. Each request has a savepoint of its own, so that
one that fails costs the others nothing.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from uringd.catalog_schema import make_room, migrate
from uringd.records import ReceiptRecord, UploadRecord
from uringd.wire import ByteRange, Durability

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    Work = Callable[[sqlite3.Connection], Any]

T = TypeVar("T")

BATCH_MAX = 256
"""Requests of one transaction: a few milliseconds, so that nobody waits long for the others."""


class CatalogError(Exception):
    """The catalog cannot be read or written; the text says why, `errno` of which kind it is."""

    def __init__(self, text: str, number: int = errno.EIO) -> None:
        super().__init__(text)
        self.errno = number


class Catalog:
    """Uploads and receipts, durable. Made by `open_catalog`; every method is one request.

    All raise CatalogError, and then nothing of the request is kept. A cancelled request is done all
    the same.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._asked: deque[tuple[Work, trio.lowlevel.Task]] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._thread = trio.CapacityLimiter(1)  # the one writer
        self._lists = trio.CapacityLimiter(1)
        self._closed = False

    async def add(self, upload: UploadRecord) -> bool:
        """Record a new upload; False when the catalog has one of that id, published or not."""
        row = (
            upload.upload_id,
            upload.name,
            upload.size,
            upload.overwrite,
            int(upload.durability),
            upload.resumable,
            upload.epoch,
        )
        values = (*row, upload.upload_id)
        return await self._run(lambda db: db.execute(_INSERT_UPLOAD, values).rowcount == 1)

    async def record_progress(
        self, upload_id: str, epoch: int, ranges: Sequence[ByteRange]
    ) -> None:
        """Record what of an upload is durable, in place of what was, and its epoch.

        Somebody holds it now: its age begins anew.
        """
        rows = [(upload_id, *part) for part in ranges]

        def work(db: sqlite3.Connection) -> None:
            db.execute(_RECORD_EPOCH, (epoch, upload_id))
            db.execute("DELETE FROM ranges WHERE upload_id = ?", (upload_id,))
            db.executemany(_INSERT_RANGE, rows)

        await self._run(work)

    async def begin_commit(self, receipt: ReceiptRecord) -> None:
        """Record that a commit is at work: from here on a restart looks for the renamed file."""
        row = _receipt_row(receipt)
        await self._run(lambda db: db.execute(_INSERT_RECEIPT.format("commits"), row))

    async def withdraw_commit(self, upload_id: str) -> None:
        """Record that a commit was refused, and the upload goes on."""
        sql = "DELETE FROM commits WHERE upload_id = ?"
        await self._run(lambda db: db.execute(sql, (upload_id,)))

    async def publish(self, receipt: ReceiptRecord) -> None:
        """Record a receipt, in place of the upload."""
        row = _receipt_row(receipt)

        def work(db: sqlite3.Connection) -> None:
            db.execute(_INSERT_RECEIPT.format("receipts"), row)
            db.execute("DELETE FROM uploads WHERE upload_id = ?", (receipt.upload_id,))

        await self._run(work)

    async def publish_many(self, receipts: Sequence[ReceiptRecord]) -> None:
        """Record the receipts of uploads that had no record."""
        rows = [_receipt_row(receipt) for receipt in receipts]
        await self._run(lambda db: db.executemany(_INSERT_RECEIPT.format("receipts"), rows))

    async def remove(self, upload_id: str) -> bool:
        """Forget an upload; whether there was one."""
        sql = "DELETE FROM uploads WHERE upload_id = ?"  # and by cascade its ranges
        return await self._run(lambda db: db.execute(sql, (upload_id,)).rowcount == 1)

    async def remove_receipt(self, upload_id: str) -> None:
        """Forget a receipt: its file was lost with the power, and had promised no more."""
        row = (upload_id,)
        await self._run(lambda db: db.execute("DELETE FROM receipts WHERE upload_id = ?", row))

    async def find(self, upload_id: str) -> UploadRecord | None:
        """Return an unfinished upload with its durable ranges."""
        return await self._run(lambda db: _find(db, upload_id))

    async def find_receipt(self, upload_id: str) -> ReceiptRecord | None:
        """Return the receipt of a published upload."""

        def work(db: sqlite3.Connection) -> ReceiptRecord | None:
            sql = f"SELECT {RECEIPT_COLUMNS} FROM receipts WHERE upload_id = ?"  # noqa: S608  # ours
            row = db.execute(sql, (upload_id,)).fetchone()
            return None if row is None else receipt_of(row)

        return await self._run(work)

    async def uploads(
        self, prefix: str = "", after: str = "", limit: int = -1
    ) -> list[UploadRecord]:
        """Return unfinished uploads by upload id: those above `after` whose name has `prefix`.

        Of each one's ranges the first and the last only: a list is no reason to read them all. And
        one list at a time: it takes as long as hundreds of records, and so each record waits for
        one of them at the most, however many clients ask.
        """

        def work(db: sqlite3.Connection) -> list[UploadRecord]:
            row = (after, len(prefix), prefix, limit)
            ids = db.execute(_LIST_UPLOADS, row).fetchall()
            return [found for (upload_id,) in ids if (found := _find(db, upload_id, _BRIEF))]

        async with self._lists:
            return await self._run(work)

    async def weak_receipts(self) -> list[ReceiptRecord]:
        """Return the newest receipts that promise less than PUBLISHED, one for each name."""

        def work(db: sqlite3.Connection) -> list[ReceiptRecord]:
            rows = db.execute(_WEAK_RECEIPTS, (int(Durability.PUBLISHED),))
            return [receipt_of(row) for row in rows]

        return await self._run(work)

    async def age(self, elapsed_s: float, held: Sequence[str]) -> None:
        """Let uploads that nobody holds grow older; those that are held are new again."""

        def work(db: sqlite3.Connection) -> None:
            if elapsed_s:
                db.execute("UPDATE uploads SET idle_s = idle_s + ?", (elapsed_s,))
            rows = [(upload_id,) for upload_id in held]
            db.executemany("UPDATE uploads SET idle_s = 0 WHERE upload_id = ?", rows)

        await self._run(work)

    async def expired(self, idle_s: float) -> list[str]:
        """Return the ids of uploads that nobody held for so long."""

        def work(db: sqlite3.Connection) -> list[str]:
            sql = "SELECT upload_id FROM uploads WHERE idle_s >= ?"
            return [upload_id for (upload_id,) in db.execute(sql, (idle_s,))]

        return await self._run(work)

    async def prune_receipts(self, before_ns: int) -> int:
        """Forget receipts from before a time whose file another upload has replaced since."""
        return await self._run(lambda db: db.execute(_PRUNE_RECEIPTS, (before_ns,)).rowcount)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise CatalogError("the catalog is closed")
        task = trio.lowlevel.current_task()
        self._asked.append((work, task))
        self._work.unpark()
        # Not to be cancelled: whether the record was made has to be known.
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    async def serve(self) -> None:
        """Do what is asked for, batch by batch, until cancelled."""
        try:
            while True:
                while not self._asked:
                    await self._work.park()
                batch = [self._asked.popleft() for _ in range(min(len(self._asked), BATCH_MAX))]
                with trio.CancelScope(shield=True):
                    works = [work for work, _ in batch]
                    results = await trio.to_thread.run_sync(
                        self._transact, works, limiter=self._thread
                    )
                for (_, task), result in zip(batch, results, strict=True):
                    trio.lowlevel.reschedule(task, result)
        finally:
            self._closed = True
            for _, task in self._asked:
                closed = outcome.Error(CatalogError("the catalog is closed"))
                trio.lowlevel.reschedule(task, closed)
            self._asked.clear()

    def _transact(self, works: list[Work]) -> list[outcome.Outcome[Any]]:
        """Do requests as one transaction (in the thread); never raises."""
        db = self._connection
        results: list[outcome.Outcome[Any]] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for work in works:
                db.execute("SAVEPOINT request")
                try:
                    results.append(outcome.Value(work(db)))
                except Exception as exc:
                    if not db.in_transaction:  # SQLite did: a full disk, an I/O error. All have it
                        raise
                    db.execute("ROLLBACK TO request")
                    results.append(_failure(exc))
                db.execute("RELEASE request")
            db.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001  # told to everybody who asked
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            return [_failure(exc) for _ in works]
        return results


@contextlib.asynccontextmanager
async def open_catalog(path: Path, *, first: bool = True) -> AsyncIterator[Catalog]:
    """Open the catalog, making or migrating it. Raises CatalogError.

    `path` is reached through a held directory descriptor (/proc/self/fd/N/...), like all of ROOT.
    Of several processes that share it only the `first` one makes room in it.
    """
    connection = await trio.to_thread.run_sync(_connect, path, first)
    try:
        async with trio.open_nursery() as nursery:
            catalog = Catalog(connection)
            nursery.start_soon(catalog.serve)
            try:
                yield catalog
            finally:
                nursery.cancel_scope.cancel()
    finally:
        connection.close()


def _connect(path: Path, first: bool) -> sqlite3.Connection:  # noqa: FBT001  # for a thread
    try:
        # One thread at a time uses it, though not always the same one.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            migrate(db)
            if first:
                with contextlib.suppress(sqlite3.OperationalError):  # full: uploads can be aborted
                    make_room(db)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as exc:
        raise CatalogError(f"cannot use the catalog {path.name}: {exc}") from exc
    return db


def _failure(exc: BaseException) -> outcome.Error:
    full = getattr(exc, "sqlite_errorname", "") == "SQLITE_FULL"  # not every error has a name
    number = errno.ENOSPC if full else errno.EIO
    failure = CatalogError(f"the catalog cannot be written: {exc}", number)
    failure.__cause__ = exc
    return outcome.Error(failure)


_INSERT_UPLOAD = """
INSERT OR IGNORE INTO uploads (upload_id, name, size, overwrite, durability, resumable, epoch)
SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM receipts WHERE upload_id = ?)
"""
_RECORD_EPOCH = "UPDATE uploads SET epoch = ?, idle_s = 0 WHERE upload_id = ?"
_INSERT_RANGE = "INSERT INTO ranges (upload_id, offset, length, crc32c) VALUES (?, ?, ?, ?)"
_FIND_UPLOAD = """
SELECT upload_id, name, size, overwrite, durability, resumable, epoch
FROM uploads WHERE upload_id = ?
"""
_ALL = "SELECT offset, length, crc32c FROM ranges WHERE upload_id = :id ORDER BY offset"
_BRIEF = """
SELECT offset, length, crc32c FROM ranges WHERE upload_id = :id AND offset IN (
    (SELECT MIN(offset) FROM ranges WHERE upload_id = :id),
    (SELECT MAX(offset) FROM ranges WHERE upload_id = :id)
) ORDER BY offset
"""
_LIST_UPLOADS = """
SELECT upload_id FROM uploads
WHERE upload_id > ? AND substr(name, 1, ?) = ? ORDER BY upload_id LIMIT ?
"""
RECEIPT_COLUMNS = """
upload_id, name, size, crc32c, durability, backend, direct, transport, seconds, instance_id, epoch,
inode, modified_ns, published_ns
"""
_INSERT_RECEIPT = f"""
INSERT INTO {{}} ({RECEIPT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608  # ours
_WEAK_RECEIPTS = f"""
SELECT {RECEIPT_COLUMNS} FROM receipts WHERE durability < ?
AND serial IN (SELECT MAX(serial) FROM receipts GROUP BY name)
"""  # noqa: S608  # ours
_PRUNE_RECEIPTS = """
DELETE FROM receipts WHERE published_ns < ?
AND serial NOT IN (SELECT MAX(serial) FROM receipts GROUP BY name)
"""


def _find(db: sqlite3.Connection, upload_id: str, ranges: str = _ALL) -> UploadRecord | None:
    key = (upload_id,)
    row = db.execute(_FIND_UPLOAD, key).fetchone()
    if row is None:
        return None
    _, name, size, overwrite, durability, resumable, epoch = row
    sql = f"SELECT {RECEIPT_COLUMNS} FROM commits WHERE upload_id = ?"  # noqa: S608  # ours
    commit = db.execute(sql, key).fetchone()
    return UploadRecord(
        upload_id,
        name,
        size,
        bool(overwrite),
        Durability(durability),
        bool(resumable),
        epoch,
        None if commit is None else receipt_of(commit),
        tuple(ByteRange(*part) for part in db.execute(ranges, {"id": upload_id})),
    )


def _receipt_row(receipt: ReceiptRecord) -> tuple[Any, ...]:
    return (
        receipt.upload_id,
        receipt.name,
        receipt.size,
        receipt.crc32c,
        int(receipt.durability),
        receipt.backend,
        receipt.direct,
        receipt.transport,
        receipt.seconds,
        receipt.instance_id,
        receipt.epoch,
        receipt.inode,
        receipt.modified_ns,
        receipt.published_ns,
    )


def receipt_of(row: Sequence[Any]) -> ReceiptRecord:
    """Make a receipt of a row whose columns are in the record's order."""
    upload_id, name, size, crc32c, durability, backend, direct, *rest = row
    level = Durability(durability)
    return ReceiptRecord(upload_id, name, size, crc32c, level, backend, bool(direct), *rest)
