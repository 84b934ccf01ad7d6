"""One small upload, from its request to its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from uringio.lowlevel import small_files

if TYPE_CHECKING:
    from uringd.small.memory import Room
    from uringd.upload_errors import UploadError
    from uringd.wire import Durability

BACKEND = "threads"
"""What a receipt says: the bytes are written by system calls of a worker thread, on any ring."""


class Asker(Protocol):
    """Who sent a small upload and gets the answer."""

    @property
    def transport(self) -> str:
        """How it came, for the receipt: "tcp" or "unix"."""

    def answered(self, put: Put) -> None:
        """Take the outcome: `failure`, or all that a receipt says. Nothing may wait here."""


@dataclass(slots=True, eq=False)
class Put:
    """A small upload whose bytes are here and agree with their checksum.

    `room` is what it counts for in the memory of all of them, and where a long content lies. With
    `keep_equal` a file of that name and content is success, `overwrite` or not. What came of it:
    `failure`, or `unchanged` (it was there), and `file`, which has inode and time.
    """

    asker: Asker
    cookie: int
    name: str
    components: tuple[str, ...]
    content: bytes | memoryview
    crc32c: int
    overwrite: bool
    keep_equal: bool
    durability: Durability
    room: Room
    started: float
    upload_id: str = ""
    failure: UploadError | None = None
    unchanged: bool = False
    lost: bool = False
    file: small_files.SmallFile = field(init=False)

    def place(self, dir_fd: int) -> None:
        """Say into which directory it goes."""
        name = self.components[-1].encode()
        self.file = small_files.SmallFile(self.content, dir_fd, name, self.overwrite)
