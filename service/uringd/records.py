"""What the catalog keeps: one row of each kind, as the rest of the daemon sees it."""

from __future__ import annotations

from dataclasses import dataclass

from uringd.wire import ByteRange, Durability


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An unfinished upload. Sizes in bytes; `size` is None while the client has not said it."""

    upload_id: str
    name: str
    size: int | None
    overwrite: bool
    durability: Durability
    resumable: bool
    epoch: int = 1
    committing: ReceiptRecord | None = None
    ranges: tuple[ByteRange, ...] = ()

    @property
    def spool_bytes(self) -> int:
        """What the upload counts for in the spool: its declared size, or what it has."""
        last = self.ranges[-1] if self.ranges else ByteRange(0, 0, 0)
        return max(self.size or 0, last.offset + last.length)


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A published upload, or one whose COMMIT is at work: its Receipt, and its file.

    `inode` is the spool file's: whatever has the upload's name, this inode and this size after a
    crash is the upload, renamed. `modified_ns` is the file's mtime when it was published: another
    one says that somebody has written to it since. Both times are 0 until then.
    """

    upload_id: str
    name: str
    size: int
    crc32c: int
    durability: Durability
    backend: str
    direct: bool
    transport: str
    seconds: float
    instance_id: bytes
    epoch: int
    inode: int
    modified_ns: int = 0
    published_ns: int = 0
