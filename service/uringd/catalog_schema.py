"""The catalog's tables, and how older catalogs become this one.

SQLite's user_version counts the migrations that a catalog has had; those it lacks run in one
transaction. A catalog of a newer version is refused: what it means is not known here.

Column types are strict, times are in seconds or nanoseconds by their names, inodes are stored as
SQLite's signed 64 bits. Nothing here is a secret, but upload ids: who knows one may resume it.
"""

from __future__ import annotations

import sqlite3

_RECEIPT = """
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        crc32c INTEGER NOT NULL,
        durability INTEGER NOT NULL,
        backend TEXT NOT NULL,
        direct INTEGER NOT NULL,
        transport TEXT NOT NULL,
        seconds REAL NOT NULL,
        instance_id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        published_ns INTEGER NOT NULL
"""

MIGRATIONS = (
    """
    CREATE TABLE uploads (
        upload_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        size INTEGER,                     -- NULL while the client has not said it
        overwrite INTEGER NOT NULL,
        durability INTEGER NOT NULL,      -- as PROTOCOL.md, "Ordering and durability"
        resumable INTEGER NOT NULL,       -- 0: gone with its session
        epoch INTEGER NOT NULL,
        idle_s REAL NOT NULL DEFAULT 0    -- how long it could have been resumed, and was not
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE ranges (                 -- what of an upload is durable
        upload_id TEXT NOT NULL REFERENCES uploads ON DELETE CASCADE,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        crc32c INTEGER NOT NULL,
        PRIMARY KEY (upload_id, offset)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE commits (                -- COMMITs at work: what their receipts will be
        upload_id TEXT PRIMARY KEY REFERENCES uploads ON DELETE CASCADE,
        {receipt}
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE receipts (               -- one for each published upload
        serial INTEGER PRIMARY KEY,       -- of one name, the highest is the file that is there
        upload_id TEXT NOT NULL UNIQUE,
        {receipt}
    ) STRICT;
    CREATE INDEX receipts_by_name ON receipts (name, serial);
    CREATE INDEX receipts_by_level ON receipts (durability) WHERE durability < 3;
    """.replace("{receipt}", _RECEIPT.strip()),
)


ROOM_BYTES = 1 << 20
"""Kept free for the catalog in its own files: 256 pages, a few thousand records. Uploads take a
disk's last block, and must still be able to end."""


BUSY_TIMEOUT_MS = 10_000
"""What a transaction waits for those of other processes, each of which takes an fsync: a slow disk.
Beyond it the request fails, as if the disk had."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring a connection's catalog up to date, and set it to keep what it commits.

    Raises sqlite3.Error; a migration that fails leaves the catalog as it was.
    """
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    [page_bytes] = db.execute("PRAGMA page_size").fetchone()
    db.execute(f"PRAGMA wal_autocheckpoint = {ROOM_BYTES // page_bytes}")
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        text = f"it was written by a newer uringd (version {version} of {len(MIGRATIONS)})"
        raise sqlite3.NotSupportedError(text)
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def make_room(db: sqlite3.Connection) -> None:
    """Grow the catalog's files by ROOM_BYTES that later records use. Raises sqlite3.Error.

    A row that long is written and removed: its pages stay in the database's free list, and the log
    keeps its length when it starts over, which a checkpoint lets it do after as many pages.
    """
    db.execute("CREATE TABLE IF NOT EXISTS room (bytes BLOB NOT NULL) STRICT")
    db.execute("INSERT INTO room VALUES (zeroblob(?))", (ROOM_BYTES,))
    db.execute("DELETE FROM room")
    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
