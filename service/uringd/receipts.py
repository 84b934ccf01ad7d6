"""The receipts of a catalog, read beside the server that writes it, and after its end.

Nothing is written, nothing is waited for: whoever asks here is a visitor. Why that is safe:
- SQLite's locks are fcntl(2) locks, and those belong to a process: closing any descriptor of a file
  drops all locks that the process has on it. So nobody may open the catalog by hand in the process
  that serves it; from another process, as here, opening and closing it drops nothing.
- In WAL mode readers and the writer do not wait for each other (sqlite.org/wal.html). A reader sees
  the last transaction that was committed when it began, and only keeps the log from starting over:
  so each question here is a connection of its own, closed when it is answered.
- A reader finds its way in the log by the index in -shm. `mode=ro` alone would still make and write
  that file; with `readonly_shm=1` SQLite only reads it. Where no living process vouches for the
  index, as after a kill, it then reads the log itself and makes an index in its own memory.
- A server that ends in order moves the log into the database and removes log and index. Without
  them a read-only connection is refused, for it could not tell whether a writer comes. So the
  database is read as immutable, which is to say without any lock, and what was read counts only if
  neither log nor index appeared and the database is as it was before.
- A log without its index can only be half of a copy, or of what a cut of power left. A server makes
  a new index when it starts; here it is an error that says so.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from uringd.catalog import RECEIPT_COLUMNS, CatalogError, receipt_of
from uringd.catalog_schema import MIGRATIONS
from uringd.wire import PRIVATE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uringd.records import ReceiptRecord

    State = tuple[int, ...]

PAGE_RECEIPTS = 4096
"""Receipts in memory at a time when all are read: about 2 MiB."""

LOOKS_MAX = 40
LOOK_AGAIN_S = 0.05
"""A server that starts or ends passes through states that cannot be read: 2 s are ample for it."""

BUSY_S = 10.0
"""How long SQLite waits for a server that recovers its log, as the server itself does."""

LIVE: State = ()
"""There is an index: who writes is known by it, and SQLite keeps readers and writer apart."""

PASSING = ("SQLITE_CANTOPEN", "SQLITE_READONLY")
"""Errors of a reader that came between two steps of a server's start or end."""


class Receipts:
    """The newest receipts of a ROOT's catalog. Blocking: call it in a thread.

    Every method raises CatalogError when there is no catalog, or none that can be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root.absolute() / PRIVATE_NAME / "catalog.sqlite3"

    def find(self, name: str) -> tuple[ReceiptRecord, ...]:
        """Return what the file of this name can be: the newest receipt, and commits at work.

        A commit's record (its `published_ns` is 0) is of the file from the rename on until its
        receipt is recorded; the inode tells. Empty when the name is not known.
        """
        if name != name.encode(errors="replace").decode():
            return ()  # no UTF-8: nothing is published under such a name
        return tuple(receipt_of(row) for row in self._read(_FIND, (name, name)))

    def total(self) -> tuple[int, int]:
        """Count the names with a receipt, and the bytes of their newest ones."""
        [(count, size)] = self._read(_TOTAL)
        return count, size

    def newest(self) -> Iterator[list[ReceiptRecord]]:
        """Yield the newest receipt of each name, by rising name, in pages."""
        after = ""
        while rows := self._read(_PAGE, (after, PAGE_RECEIPTS)):
            page = [receipt_of(row) for row in rows]
            yield page
            after = page[-1].name

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Ask one question of whatever state the catalog is in."""
        failure = f"its log is there without its index: start `uringd serve --root {self._root}`"
        for look in range(LOOKS_MAX):
            if look:
                time.sleep(LOOK_AGAIN_S)
            state = self._state()
            if state is None:
                continue
            try:
                rows = self._ask("readonly_shm=1" if state == LIVE else "immutable=1", sql, values)
            except sqlite3.Error as exc:
                failure = str(exc)
                passing = getattr(exc, "sqlite_errorname", "").startswith(PASSING)
                if self._state() == state and not passing:
                    break
            else:
                if state == LIVE or self._state() == state:
                    return rows
                failure = "a server starts and ends all the time"
        raise CatalogError(f"cannot read the catalog of {self._root}: {failure}")

    def _ask(self, how: str, sql: str, values: tuple[Any, ...]) -> list[Any]:
        uri = f"{self._path.as_uri()}?mode=ro&{how}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as db:
            [version] = db.execute("PRAGMA user_version").fetchone()
            if not 0 < version <= len(MIGRATIONS):
                text = f"it has version {version}, this uringd knows 1 to {len(MIGRATIONS)}"
                raise CatalogError(f"cannot read the catalog of {self._root}: {text}")
            return db.execute(sql, values).fetchall()

    def _state(self) -> State | None:
        """Say how the catalog can be read: LIVE, or by what it is now; None if it cannot be."""
        try:
            database = self._path.stat()
            if self._size_of("-shm") is not None:
                return LIVE
            if self._size_of("-wal"):
                return None
        except (FileNotFoundError, NotADirectoryError):
            text = f"{self._root} has no catalog: was this directory served?"
            raise CatalogError(text) from None
        except OSError as exc:
            text = f"cannot read the catalog of {self._root}: {exc.strerror}"
            raise CatalogError(text) from exc
        return database.st_dev, database.st_ino, database.st_size, database.st_mtime_ns

    def _size_of(self, suffix: str) -> int | None:
        try:
            return self._path.with_name(self._path.name + suffix).stat().st_size
        except FileNotFoundError:
            return None


_FIND = f"""
SELECT * FROM (
    SELECT {RECEIPT_COLUMNS} FROM receipts WHERE name = ? ORDER BY serial DESC LIMIT 1
) UNION ALL SELECT {RECEIPT_COLUMNS} FROM commits WHERE name = ?
"""  # noqa: S608  # ours
_TOTAL = """
SELECT COUNT(*), COALESCE(SUM(size), 0) FROM receipts
WHERE serial IN (SELECT MAX(serial) FROM receipts GROUP BY name)
"""
_PAGE = f"""
SELECT {RECEIPT_COLUMNS} FROM receipts WHERE serial IN (
    SELECT MAX(serial) FROM receipts WHERE name > ? GROUP BY name ORDER BY name LIMIT ?
) ORDER BY name
"""  # noqa: S608  # ours
