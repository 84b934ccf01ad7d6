"""The objects of a cell: what they are called, what is in them, and whether they arrived.

An object of at most 1 MiB is the block that all contenders write (content.py) with its own number
stamped on it, so that two that changed places are found out. Bigger ones all hold the begin of one
source file, so that a load generator can hand them to the kernel without touching their bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import crc32c

from bench.harness.content import STAMP, expected_crc, file_crc, make_block, stamp
from bench.harness.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.harness.cell import Cell

STAMPED_BYTES_MAX = MIB


class Objects:
    """The objects of one cell. `count` of `size_bytes` each, over `connections`."""

    def __init__(self, cell: Cell, source: str) -> None:
        self.count = cell.blocks
        self.size_bytes = cell.block_bytes
        self.connections = min(cell.depth, self.count)
        self.source = Path(source)
        self.small = self.size_bytes <= STAMPED_BYTES_MAX
        self._block = make_block(self.size_bytes) if self.small else bytearray()

    @staticmethod
    def name(number: int) -> str:
        """Give the name that an object is uploaded as."""
        return f"{number:06}"

    def head(self, number: int) -> bytes:
        """Give the first bytes of a small object: the stamp."""
        return STAMP.pack(number)

    def tail(self) -> memoryview:
        """Give all bytes of a small object but the first eight: they are the same for all."""
        return memoryview(self._block)[STAMP.size :]

    def block(self) -> bytearray:
        """Give memory of the length of a small object; `stamp` makes it the one or the other."""
        return bytearray(self._block)

    def share(self, connection: int) -> range:
        """Give the numbers that one connection uploads, where they are dealt out beforehand."""
        return range(connection, self.count, self.connections)

    def wrong(self, places: Iterable[tuple[int, Path]]) -> str:
        """Compare the files at `places`, given with their numbers; say what is wrong first."""
        if not self.small:
            wanted = expected_crc(self.size_bytes, min(self.size_bytes, STAMPED_BYTES_MAX))
        for number, path in places:
            if self.small:
                stamp(self._block, number)
                wanted = crc32c.crc32c(self._block)
            try:
                length = path.stat().st_size
                found = file_crc(path, STAMPED_BYTES_MAX)
            except OSError as exc:
                return f"{path.name}: {exc.strerror}"
            if (length, found) != (self.size_bytes, wanted):
                return f"{path.name} has {length} bytes with CRC32C {found:08x}, not {wanted:08x}"
        return ""

    def in_folder(self, folder: Path) -> Iterable[tuple[int, Path]]:
        """Give the place of every object that lies in a folder under its own name."""
        return ((number, folder / self.name(number)) for number in range(self.count))


def begin_of(source: Path, length: int, target: Path) -> None:
    """Write the begin of a file into another."""
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        while length and (piece := reader.read(min(MIB, length))):
            length -= writer.write(piece)
