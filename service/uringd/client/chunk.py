"""A chunk on its way: which bytes of the upload, and where they are kept until they are durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.wire import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Extent = tuple[int, int]
"""A range of an upload: offset and length in bytes."""


class Memory:
    """Memory for one chunk, with room for its header in front: both leave in one send."""

    __slots__ = ("users", "view", "whole")

    def __init__(self, chunk_bytes: int) -> None:
        self.whole = memoryview(bytearray(HEADER_BYTES + chunk_bytes))
        self.view = self.whole[HEADER_BYTES:]
        self.users = 0
        """Pieces whose bytes are here."""


class Piece:
    """One contiguous range of an upload that is sent as one chunk, until it is durable.

    `memory` holds its bytes from `base` (an offset in the upload) on; None: they are read again
    from the source. `crc32c` is None until they were looked at. `serial` counts the chunks of a
    lane's session, to know which a SYNC covers.
    """

    __slots__ = ("base", "crc32c", "failures", "length", "memory", "offset", "serial")

    def __init__(
        self, offset: int, length: int, memory: Memory | None = None, base: int = 0
    ) -> None:
        self.offset = offset
        self.length = length
        self.memory = memory
        self.base = base
        self.crc32c: int | None = None
        self.serial = 0
        self.failures = 0
        if memory is not None:
            memory.users += 1

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.offset + self.length

    def part(self, offset: int, length: int) -> Piece:
        """Make a piece of a part of this one, of the same bytes."""
        piece = Piece(offset, length, self.memory, self.base)
        piece.failures = self.failures
        if (offset, length) == (self.offset, self.length):
            piece.crc32c = self.crc32c
        return piece


def cut(offset: int, length: int, chunk_bytes: int) -> Iterator[Extent]:
    """Cut a range at multiples of `chunk_bytes` of the upload, so that everybody cuts alike."""
    end = offset + length
    while offset < end:
        until = min(end, (offset // chunk_bytes + 1) * chunk_bytes)
        yield offset, until - offset
        offset = until


def outside(offset: int, length: int, ranges: Iterable[Extent]) -> Iterator[Extent]:
    """Give the parts of a range that are in none of `ranges`, which are sorted."""
    end = offset + length
    for start, count in ranges:
        if start >= end:
            break
        if start + count <= offset:
            continue
        if start > offset:
            yield offset, start - offset
        offset = start + count
    if offset < end:
        yield offset, end - offset
