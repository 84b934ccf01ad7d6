"""Journals as a replace leaves them that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crc32c import crc32c

from uringio._ring.libc import FileIdentity, statx_identity
from uringio._trio.replace_journal import HEADER_BYTES, Record, journal_bytes, payload_at

if TYPE_CHECKING:
    from pathlib import Path


def identity_of(path: Path) -> FileIdentity:
    with path.open("rb") as file:
        identity = statx_identity(file.fileno())
    assert identity is not None
    return identity


def journal_of(path: Path, number: int = 0) -> Path:
    return path.with_name(f".uringio-journal-{path.stat().st_ino:x}-{number}")


def leave_journal(
    path: Path,
    offset: int,
    data: bytes,
    *,
    number: int = 0,
    identity: FileIdentity | None = None,
) -> Path:
    """Leave what a replace leaves that was killed right after the point of no return."""
    record = Record(identity or identity_of(path), offset, len(data), crc32c(data))
    content = bytearray(journal_bytes(offset, len(data)))
    content[:HEADER_BYTES] = record.pack()
    start = payload_at(offset, offset)
    content[start : start + len(data)] = data
    journal = journal_of(path, number)
    journal.write_bytes(content)
    return journal
