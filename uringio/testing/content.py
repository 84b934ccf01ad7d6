"""What the disk has of one file's bytes: as of the last fsync, and what was written since.

A device writes whole sectors, and none of them in part. Of everything that was written since the
last fsync it may have any of it, in any order, for the page cache writes back as it likes and the
device's own cache does the same. So after a power cut each sector is as one of the writes since has
left it, or as the fsync did, whatever became of its neighbours. The size is kept apart from the
bytes, and may be any of those that the file has had since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SECTOR_BYTES = 512
"""What a device writes as a whole: disks of 4 KiB sectors tear less, and this covers them."""

ZEROS = bytes(SECTOR_BYTES)

Piece = tuple[int, bytes]
"""Where bytes were written, in a sector or in the file, and which."""


@dataclass(slots=True)
class Content:
    """One file's bytes. `sectors` has what is durable, by number; one that lacks is zeros.

    `size` is the durable size, `sizes` has those since, in bytes.
    """

    size: int = 0
    sectors: dict[int, bytes] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    written: dict[int, list[Piece]] = field(default_factory=dict)

    @property
    def current_size(self) -> int:
        """The size that everybody sees, in bytes."""
        return self.sizes[-1] if self.sizes else self.size

    def write(self, offset: int, data: bytes) -> None:
        """Take note of bytes written."""
        for number, start, piece in _cut(offset, data):
            self.written.setdefault(number, []).append((start, piece))
        self.grow(offset + len(data))

    def grow(self, end: int) -> None:
        """Take note that the file reaches to `end`."""
        if end > self.current_size:
            self.sizes.append(end)

    def resize(self, size: int) -> None:
        """Take note of a cut to size: what lay behind reads as zeros if the file grows again."""
        for number in {*self.sectors, *self.written}:
            start = max(size - number * SECTOR_BYTES, 0)
            if start < SECTOR_BYTES:
                self.written.setdefault(number, []).append((start, ZEROS[start:]))
        if size != self.current_size:
            self.sizes.append(size)

    def sync(self) -> None:
        """Make everything durable."""
        for number, pieces in self.written.items():
            self._put(number, pieces)
        self.written.clear()
        self.size, self.sizes = self.current_size, []

    def sync_range(self, offset: int, length: int) -> None:
        """Make a range durable, and the size that it takes to read it, as RWF_DSYNC does."""
        for number in range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES)):
            self._put(number, self.written.pop(number, []))
        self.size, self.sizes = self.current_size, []

    def settle(self, random: random.Random) -> None:
        """Decide what of the writes since the last fsync the device has: that is durable then.

        Nothing of them, or all, is as likely as a state in between, where each sector and the size
        are decided for themselves.
        """
        fate = random.randrange(4)
        for number, pieces in self.written.items():
            count = (0, len(pieces))[fate] if fate < 2 else random.randint(0, len(pieces))
            self._put(number, pieces[:count])
        self.written.clear()
        sizes = [self.size, *self.sizes]
        self.size = (sizes[0], sizes[-1])[fate] if fate < 2 else random.choice(sizes)
        self.sizes = []

    def lose(self, random: random.Random) -> None:
        """Decide what a failed fsync has lost for good; all the rest is durable then.

        Bytes may be lost, and that the file has grown: a file system writes that down when the
        bytes are on the disk. A cut is in its journal, whatever becomes of bytes. So after a power
        cut the file is never longer than it was seen to be here.
        """
        seen = self.current_size
        self.settle(random)
        self.size = min(self.size, seen)
        for number in self.sectors:
            start = max(seen - number * SECTOR_BYTES, 0)
            if start < SECTOR_BYTES:  # it was cut off, or never was there
                self._put(number, [(start, ZEROS[start:])])

    def pieces(self) -> Iterator[Piece]:
        """Yield what is durable as offset and bytes; what is between is zeros."""
        for number, sector in self.sectors.items():
            start = number * SECTOR_BYTES
            if start < self.size:
                yield start, sector[: self.size - start]

    def copy(self) -> Content:
        """Copy it: nothing that is written to one is seen in the other."""
        written = {number: list(pieces) for number, pieces in self.written.items()}
        return Content(self.size, dict(self.sectors), list(self.sizes), written)

    def _put(self, number: int, pieces: list[Piece]) -> None:
        """Put pieces into a sector, one after the other."""
        if not pieces:
            return
        sector = self.sectors.get(number, ZEROS)
        for start, piece in pieces:
            sector = sector[:start] + piece + sector[start + len(piece) :]
        self.sectors[number] = sector


def _cut(offset: int, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cut bytes at the sectors: number of the sector, where in it, which."""
    at = 0
    while at < len(data):
        number, start = divmod(offset + at, SECTOR_BYTES)
        piece = data[at : at + SECTOR_BYTES - start]
        yield number, start, piece
        at += len(piece)
