"""The state of the target before a measurement: where it is to be written into, it is there.

All its blocks were written, so that the file system has nothing left to reserve or to convert, and
its content is none that a contender writes: what it leaves out is found out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.harness.content import aligned_blocks, stamp
from bench.harness.plain import write_all

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.cell import Cell

LAYOUT_BYTES_MAX = 1 << 20
"""Big blocks, whatever the contender's: it is over sooner."""
OTHER = 1 << 40
"""Added to the numbers of blocks: no contender writes such a number."""


def lay_out(target: Path, cell: Cell) -> None:
    """Make the file that is to be written into, and keep none of it in the page cache."""
    if cell.pattern in {"fresh", "uploads"}:
        return
    blocks = aligned_blocks(
        cell, max(1, min(LAYOUT_BYTES_MAX, cell.size_bytes) // cell.block_bytes)
    )
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.posix_fallocate(fd, 0, cell.size_bytes)
        for start in range(0, cell.blocks, len(blocks)):
            piece = blocks[: cell.blocks - start]
            for number, block in enumerate(piece):
                stamp(block, OTHER + start + number)
            write_all(fd, memoryview(b"".join(piece)))
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
