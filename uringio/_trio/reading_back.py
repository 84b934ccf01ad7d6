"""Reading back: what the device holds now, not what the page cache remembers.

A buffered read after a write compares memory with itself. So the read goes past the cache, by a
descriptor of its own where the file's is buffered (the kernel writes dirty pages back first, and
here an fsync came before). Where direct I/O is not to be had, the kernel is asked to drop the pages
(page_cache.py), which it may ignore; the result then says `direct` False.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crc32c import crc32c

from uringio._ring import operations
from uringio._ring.page_cache import forget_clean_pages
from uringio._trio.opening import AT_FDCWD, OpenFile, open_file
from uringio._trio.pieces import read_whole
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uringio._ring.increment import Slot
    from uringio._trio.pieces import Piece
    from uringio._trio.reactor import Reactor

DIFFERS = "what was read back is not what was written: the disk failed, or somebody else wrote here"


@dataclass(frozen=True, slots=True)
class Reader:
    """A descriptor to read back with, and whether it goes past the page cache."""

    reactor: Reactor
    file: OpenFile

    async def compare(self, slot: Slot, piece: Piece, crc: int) -> None:
        """Read a piece through a slot; raise an EIO where its CRC32C is not `crc`."""
        file = self.file
        if not file.direct:
            forget_clean_pages(file.fd, piece.base, piece.padded)
        memory, needed = slot.memory[: piece.padded], piece.end - piece.base
        done = await read_whole(self.reactor, file.fd, file.path, memory, piece.base, needed)
        if done < needed or crc32c(piece.memory(slot)) != crc:
            raise operation_error(
                errno.EIO, "verify", file.path, piece.offset, piece.length, DIFFERS
            )


@contextlib.asynccontextmanager
async def open_reader(reactor: Reactor, file: OpenFile) -> AsyncIterator[Reader]:
    """Lend a reader of a file: its own descriptor if that is direct, else one of its own."""
    if file.direct:
        yield Reader(reactor, file)
        return
    opening = operations.open_at(AT_FDCWD, f"/proc/self/fd/{file.fd}", os.O_RDONLY)
    own = await open_file(reactor, opening, file.path, "auto")
    try:
        yield Reader(reactor, own)
    finally:
        await reactor.perform_always(operations.close(own.fd))
