"""The bytes that every contender writes: random, made once, each block told apart by a stamp.

Real content costs its writer something, so it has to be cheap: one block of random bytes is made
before the clock starts, and each write changes its first eight bytes to the number of the block
(fio's scramble_buffers does the like to its own). So no two blocks are equal, a file whose blocks
changed places is found out, and the checksum of the whole is known in advance.
"""

from __future__ import annotations

import mmap
import random
import struct
from typing import TYPE_CHECKING

import crc32c

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.cell import Cell

SEED = 20_261_121
"""Any number: the same bytes in every process."""

STAMP = struct.Struct("<Q")


def make_block(length: int) -> bytearray:
    """Make one block of random bytes, the same ones every time."""
    return bytearray(random.Random(SEED).randbytes(length))  # noqa: S311  # not a secret


def stamp(block: bytearray | memoryview, number: int) -> None:
    """Turn a block into block `number` of the file."""
    STAMP.pack_into(block, 0, number)


def aligned_blocks(cell: Cell, count: int) -> list[memoryview]:
    """Make `count` blocks of that content, in page-aligned memory, as direct writes demand.

    Private memory and huge pages, as the library's own pool has: contenders differ in what they do
    with it. The first eight bytes are free for the stamp.
    """
    length = cell.block_bytes
    memory = mmap.mmap(-1, count * length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    view, block = memoryview(memory), make_block(length)
    blocks = [view[start : start + length] for start in range(0, count * length, length)]
    for piece in blocks:
        piece[:] = block
    return blocks


def expected_crc(size: int, block_bytes: int, different: int | None = None) -> int:
    """Compute the CRC32C of a file of `size` bytes, with so many `different` blocks, if not all."""
    block = make_block(block_bytes)
    crc = 0
    for number in range(size // block_bytes):
        stamp(block, number % different if different else number)
        crc = crc32c.crc32c(block, crc)
    return crc


def file_crc(path: Path, block_bytes: int) -> int:
    """Read a file and compute its CRC32C."""
    crc = 0
    block = bytearray(block_bytes)
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            crc = crc32c.crc32c(memoryview(block)[:length], crc)
    return crc


def write_source(path: Path, size: int, block_bytes: int) -> None:
    """Write the file that uploads read."""
    block = make_block(block_bytes)
    with path.open("xb", buffering=0) as file:
        for number in range(size // block_bytes):
            stamp(block, number)
            file.write(block)


def warm(path: Path, block_bytes: int) -> None:
    """Read a file so that the page cache holds it."""
    block = bytearray(block_bytes)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass
