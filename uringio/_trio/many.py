"""Many writes of one file at a time: which of them the ring keeps going, and what became of each.

Those that can go as they are, one task awaits together (see uringio/_ring/many.py). The others are
copied or go through the page cache, COPIES_MAX at a time.
"""

from __future__ import annotations

import errno
from array import array
from typing import TYPE_CHECKING

import trio

from uringio._ring.many import STARTED, Many, addresses_of, all_multiples
from uringio._ring.operations import LENGTH_MAX, RWF_ATOMIC, write
from uringio.exceptions import OperationError, UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

    from uringio._trio.access import FileAccess

COPIES_MAX = 16
"""Writes at a time that need a slot or the page cache: the default pool's slots."""


PIECE_COUNT = 1024
"""Writes that are looked up and handed over together: a millisecond of Python, and several of a
fast disk."""

PIECES_AT_A_TIME = 2
"""One is made ready while the one before is written."""


class ManyWrites:
    """Writes (memory, offset) pairs of one file; all are checked when it is made. `run` once.

    What takes no look at the memory's address is done for all before the first is written; the
    rest, two thirds of the Python in this, piece by piece while the disk is busy.
    """

    def __init__(
        self, access: FileAccess, pairs: Iterable[tuple[Buffer, int]], promises: int
    ) -> None:
        self._access = access
        self._promises = promises
        self._views: list[memoryview] = []
        self._offsets: array[int] = array("q")
        for data, offset in pairs:
            self._views.append(memoryview(data).cast("B"))
            self._offsets.append(offset)
        self._lengths = list(map(len, self._views))
        self._failures: dict[int, OperationError] = {}
        self._broken: UringioError | None = None
        self._others: list[int] = []
        self._are_blocks = self._check()

    async def run(self) -> int:
        """Write all; the result counts bytes. Raises the first error, with all `failures`."""
        count = len(self._views)
        pieces = iter([range(n, min(n + PIECE_COUNT, count)) for n in range(0, count, PIECE_COUNT)])
        if not any(self._lengths):
            await trio.lowlevel.checkpoint()
        elif count <= PIECE_COUNT:
            await self._write_pieces(pieces)
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(PIECES_AT_A_TIME):
                    nursery.start_soon(self._write_pieces, pieces)
        if self._others:
            await self._write_others(self._others)
        if self._broken is not None:
            raise self._broken
        if self._failures:
            raise self._first_failure()
        return sum(self._lengths)

    def _check(self) -> bool:
        """Refuse what cannot be written; the result is whether all are blocks."""
        access, offsets, lengths = self._access, self._offsets, self._lengths
        if not lengths:
            return True
        simple = min(offsets) >= 0 and min(lengths) > 0 and max(lengths) <= LENGTH_MAX
        if (
            simple
            and not self._promises & RWF_ATOMIC
            and all_multiples(offsets, access.file.block_bytes)
            and all_multiples(lengths, access.file.block_bytes)
        ):
            return True
        for view, offset in zip(self._views, offsets, strict=True):
            access.check(view, offset, self._promises)
        return False

    async def _write_pieces(self, pieces: Iterator[range]) -> None:
        for piece in pieces:
            if self._failures or self._broken:
                for number in piece:
                    self._failures[number] = self._not_begun(number)
                continue
            try:
                await self._write_piece(piece)
            except UringioError as exc:  # the ring: kept, or it would come in a group
                self._broken = exc

    async def _write_piece(self, piece: range) -> None:
        """Write those of a piece that can go as they are; the others are kept for later."""
        views, offsets = self._views[piece.start : piece.stop], self._offsets
        lengths = self._lengths[piece.start : piece.stop]
        addresses = addresses_of(views)
        numbers: Sequence[int] = piece
        if not (self._are_blocks and all_multiples(addresses, self._access.file.memory_bytes)):
            numbers = self._sort_out(piece)
            if not numbers:
                return
            views = [self._views[n] for n in numbers]
            lengths = [self._lengths[n] for n in numbers]
            addresses = array("Q", [addresses[n - piece.start] for n in numbers])
            offsets = array("q", [offsets[n] for n in numbers])
        else:
            offsets = offsets[piece.start : piece.stop]
        fd = self._access.file.fd
        flags = self._access.straight_flags(min(lengths), self._promises)
        many = Many(fd, flags, views, addresses, array("i", lengths), offsets)
        await self._access.reactor.perform_many(many)
        if many.results == many.lengths:
            self._access.count(fd, flags, sum(lengths))
            return
        for number, view, offset, result in zip(numbers, views, offsets, many.results, strict=True):
            operation = write(fd, view, offset, len(view), flags=flags)
            try:
                await self._access.finish(operation, -errno.EIO if result == STARTED else result)
            except OperationError as exc:
                self._failures[number] = exc
            else:
                self._access.count(fd, flags, len(view))

    def _sort_out(self, piece: range) -> list[int]:
        """Tell the pairs that can be written as they are, and keep the numbers of the others."""
        straight = []
        for number in piece:
            view, offset = self._views[number], self._offsets[number]
            if self._access.is_straight(view, offset) and 0 < len(view) <= LENGTH_MAX:
                straight.append(number)
            elif len(view):
                self._others.append(number)
        return straight

    async def _write_others(self, numbers: Sequence[int]) -> None:
        left = iter(numbers)

        async def write_on() -> None:
            for number in left:
                view, offset = self._views[number], self._offsets[number]
                try:
                    if self._failures or self._broken:
                        raise self._not_begun(number)
                    await self._access.write(view, offset, self._promises)
                except OperationError as exc:
                    self._failures[number] = exc
                except UringioError as exc:
                    self._broken = exc

        async with trio.open_nursery() as nursery:
            for _ in range(min(COPIES_MAX, len(numbers))):
                nursery.start_soon(write_on)

    def _not_begun(self, number: int) -> OperationError:
        path, length = self._access.file.path, self._lengths[number]
        return operation_error(errno.ECANCELED, "write", path, self._offsets[number], length)

    def _first_failure(self) -> OperationError:
        """Choose the error to raise: the first that is no mere consequence of another."""
        numbers = sorted(self._failures)
        causes = [n for n in numbers if self._failures[n].errno != errno.ECANCELED]
        failure = self._failures[(causes or numbers)[0]]
        failure.failures = {n: self._failures[n].errno or errno.EIO for n in numbers}
        return failure
