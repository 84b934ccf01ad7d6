"""Many writes of one file at a time: which of them the ring keeps going, and what became of each.

Pairs are taken a piece at a time, and the next while the last is written: what Python does for a
write before it begins costs a tenth of what a fast disk takes for it, and who has very many pairs
need not have them all at once. Those that can go as they are, one task awaits together (see
uringio/_ring/many.py). The others are copied or go through the page cache, COPIES_MAX at a time.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sized
from itertools import islice
from typing import TYPE_CHECKING

import trio

from uringio._ring.many import STARTED, Many, addresses_of, all_multiples
from uringio._ring.operations import LENGTH_MAX, RWF_ATOMIC, write
from uringio.exceptions import OperationError, UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from uringio._trio.access import FileAccess

COPIES_MAX = 16
"""Writes of a piece at a time that need a slot or the page cache: the default pool's slots."""

PIECE_COUNT = 512
"""Writes that are checked and handed over together: half a millisecond of Python, in which nobody
reaps, and a third of what the writes in flight keep a fast disk busy for."""

PIECES_AT_A_TIME = 3
"""One is made ready while one is written, and one is there when that has nothing more to begin: as
fast as fio is within a twentieth, where two pieces were a tenth slower."""


class ManyWrites:
    """Writes (memory, offset) pairs of one file. `run` once."""

    def __init__(
        self, access: FileAccess, pairs: Iterable[tuple[Buffer, int]], promises: int
    ) -> None:
        self._access = access
        self._promises = promises
        self._pairs = iter(pairs)
        self._known = len(pairs) if isinstance(pairs, Sized) else 0
        self._taken = 0
        self._bytes = 0
        self._failures: dict[int, OperationError] = {}
        self._broken: Exception | None = None

    async def run(self) -> int:
        """Write all; the result counts bytes. Raises the first error, with all `failures`."""
        first = _Piece(self)
        if not any(first.lengths):
            await trio.lowlevel.checkpoint()
        if len(first.views) < PIECE_COUNT:
            await self._write(first)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_on, first)
                for _ in range(PIECES_AT_A_TIME - 1):
                    nursery.start_soon(self._write_on, None)
        if self._broken is not None:
            raise self._broken
        if self._failures:
            raise self._first_failure()
        return self._bytes

    def take(self) -> tuple[int, list[tuple[Buffer, int]]]:
        """Take the next pairs; the number of the first, counted from 0, and they."""
        first = self._taken
        pairs = list(islice(self._pairs, PIECE_COUNT))
        self._taken += len(pairs)
        return first, pairs

    @property
    def access(self) -> FileAccess:
        """How the file is written."""
        return self._access

    @property
    def promises(self) -> int:
        """RWF_ flags of every write."""
        return self._promises

    async def _write_on(self, piece: _Piece | None) -> None:
        """Write pieces until there are none, or something went wrong.

        What was taken is begun at once: so all that comes before a bad pair is. What goes wrong is
        kept: it would come in a group.
        """
        try:
            while piece or not (self._failures or self._broken):
                piece = piece or _Piece(self)
                if not piece.views:
                    break
                await self._write(piece)
                piece = None
        except Exception as exc:  # noqa: BLE001  # of the ring, or of whoever makes the pairs
            self._broken = self._broken or exc

    async def _write(self, piece: _Piece) -> None:
        """Write those of a piece that can go as they are, then the others."""
        straight, others = piece.sort_out()
        if straight:
            await self._write_straight(piece, straight)
        if others:
            await self._write_others(piece, others)

    async def _write_straight(self, piece: _Piece, numbers: Sequence[int]) -> None:
        access, fd = self._access, self._access.file.fd
        views, addresses, lengths, offsets = piece.arrays(numbers)
        flags = access.straight_flags(min(lengths), self._promises)
        many = Many(fd, flags, views, addresses, lengths, offsets)
        await access.reactor.perform_many(many)
        if many.results == many.lengths:
            self._count(fd, flags, sum(lengths))
            return
        for number, view, offset, result in zip(numbers, views, offsets, many.results, strict=True):
            operation = write(fd, view, offset, len(view), flags=flags)
            try:
                await access.finish(operation, -errno.EIO if result == STARTED else result)
            except OperationError as exc:
                self._failures[piece.first + number] = exc
            else:
                self._count(fd, flags, len(view))

    def _count(self, fd: int, flags: int, length: int) -> None:
        self._access.count(fd, flags, length)
        self._bytes += length

    async def _write_others(self, piece: _Piece, numbers: Sequence[int]) -> None:
        left = iter(numbers)

        async def write_on() -> None:
            for number in left:
                if self._failures or self._broken:
                    self._not_begun(piece, number)
                    continue
                view, offset = piece.views[number], piece.offsets[number]
                try:
                    await self._access.write(view, offset, self._promises)
                    self._bytes += len(view)
                except OperationError as exc:
                    self._failures[piece.first + number] = exc
                except UringioError as exc:
                    self._broken = self._broken or exc

        async with trio.open_nursery() as nursery:
            for _ in range(min(COPIES_MAX, len(numbers))):
                nursery.start_soon(write_on)

    def _not_begun(self, piece: _Piece, number: int) -> None:
        path, offset, length = self._access.file.path, piece.offsets[number], piece.lengths[number]
        failure = operation_error(errno.ECANCELED, "write", path, offset, length)
        self._failures[piece.first + number] = failure

    def _first_failure(self) -> OperationError:
        """Choose the error to raise: the first that is no mere consequence of another.

        It names those of a sequence that were not taken, too. An iterator may have no end, or wait
        for what comes of this call: nothing more is taken of it.
        """
        numbers = sorted(self._failures)
        causes = [n for n in numbers if self._failures[n].errno != errno.ECANCELED]
        failure = self._failures[(causes or numbers)[0]]
        failure.failures = {n: self._failures[n].errno or errno.EIO for n in numbers}
        failure.failures |= dict.fromkeys(range(self._taken, self._known), errno.ECANCELED)
        return failure


class _Piece:
    """The next pairs of `writes`, checked: ValueError or TypeError, before any of it is written."""

    def __init__(self, writes: ManyWrites) -> None:
        self._access = writes.access
        self.first, pairs = writes.take()
        self.views = [memoryview(data).cast("B") for data, _ in pairs]
        self.offsets = array("q", [offset for _, offset in pairs])
        self.lengths = list(map(len, self.views))
        self._addresses = addresses_of(self.views)
        self._are_blocks = self._check(writes.promises)

    def sort_out(self) -> tuple[Sequence[int], Sequence[int]]:
        """Tell the numbers of pairs that can be written as they are from the others'."""
        if self._are_blocks and all_multiples(self._addresses, self._access.file.memory_bytes):
            return range(len(self.views)), ()
        straight, others = [], []
        for number, (view, offset) in enumerate(zip(self.views, self.offsets, strict=True)):
            if self._access.is_straight(view, offset) and 0 < len(view) <= LENGTH_MAX:
                straight.append(number)
            elif len(view):
                others.append(number)
        return straight, others

    def arrays(
        self, numbers: Sequence[int]
    ) -> tuple[list[memoryview], array[int], array[int], array[int]]:
        """Give views, addresses, lengths and offsets of some of the pairs."""
        if len(numbers) == len(self.views):
            return self.views, self._addresses, array("i", self.lengths), self.offsets
        return (
            [self.views[n] for n in numbers],
            array("Q", [self._addresses[n] for n in numbers]),
            array("i", [self.lengths[n] for n in numbers]),
            array("q", [self.offsets[n] for n in numbers]),
        )

    def _check(self, promises: int) -> bool:
        """Refuse what cannot be written; the result is whether all are blocks."""
        access, offsets, lengths = self._access, self.offsets, self.lengths
        if not lengths:
            return True
        simple = min(offsets) >= 0 and min(lengths) > 0 and max(lengths) <= LENGTH_MAX
        if (
            simple
            and not promises & RWF_ATOMIC
            and all_multiples(offsets, access.file.block_bytes)
            and all_multiples(lengths, access.file.block_bytes)
        ):
            return True
        for view, offset in zip(self.views, offsets, strict=True):
            access.check(view, offset, promises)
        return False
