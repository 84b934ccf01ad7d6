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
from uringio.exceptions import OperationError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from uringio._trio.access import FileAccess

COPIES_MAX = 16
"""Writes at a time that need a slot or the page cache: the default pool's slots."""


class ManyWrites:
    """Writes (memory, offset) pairs of one file; all are checked when it is made. `run` once."""

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
        self._failures: dict[int, OperationError] = {}
        self._straight, self._others = self._sort_out()

    async def run(self) -> int:
        """Write all; the result counts bytes. Raises the first error, with all `failures`."""
        await self._write_straight(self._straight)
        await self._write_others(self._others)
        if self._failures:
            raise self._first_failure()
        return sum(map(len, self._views))

    def _sort_out(self) -> tuple[Sequence[int], Sequence[int]]:
        """Tell the pairs that can be written as they are from the others, by their numbers."""
        access, views, offsets = self._access, self._views, self._offsets
        every = range(len(views))
        if not views:
            return every, ()
        self._addresses = addresses_of(views)
        lengths = list(map(len, views))
        simple = min(offsets) >= 0 and min(lengths) > 0 and max(lengths) <= LENGTH_MAX
        if (
            simple
            and not self._promises & RWF_ATOMIC
            and all_multiples(offsets, access.file.block_bytes)
            and all_multiples(lengths, access.file.block_bytes)
            and all_multiples(self._addresses, access.file.memory_bytes)
        ):
            return every, ()
        straight: list[int] = []
        others: list[int] = []
        for number in every:
            view, offset = views[number], offsets[number]
            access.check(view, offset, self._promises)
            if access.is_straight(view, offset) and 0 < len(view) <= LENGTH_MAX:
                straight.append(number)
            elif len(view):
                others.append(number)
        return straight, others

    async def _write_straight(self, numbers: Sequence[int]) -> None:
        if not numbers:
            await trio.lowlevel.checkpoint()
            return
        views, offsets, addresses = self._views, self._offsets, self._addresses
        if len(numbers) < len(views):
            views = [views[n] for n in numbers]
            offsets = array("q", [offsets[n] for n in numbers])
            addresses = array("Q", [addresses[n] for n in numbers])
        lengths = array("i", map(len, views))
        fd = self._access.file.fd
        flags = self._access.straight_flags(min(lengths), self._promises)
        many = Many(fd, flags, views, addresses, lengths, offsets)
        await self._access.reactor.perform_many(many)
        if many.results == lengths:
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

    async def _write_others(self, numbers: Sequence[int]) -> None:
        left = iter(numbers)

        async def write_on() -> None:
            for number in left:
                view, offset = self._views[number], self._offsets[number]
                try:
                    if self._failures:
                        raise operation_error(
                            errno.ECANCELED, "write", self._access.file.path, offset, len(view)
                        )
                    await self._access.write(view, offset, self._promises)
                except OperationError as exc:
                    self._failures[number] = exc

        async with trio.open_nursery() as nursery:
            for _ in range(min(COPIES_MAX, len(numbers))):
                nursery.start_soon(write_on)

    def _first_failure(self) -> OperationError:
        """Choose the error to raise: the first that is no mere consequence of another."""
        numbers = sorted(self._failures)
        causes = [n for n in numbers if self._failures[n].errno != errno.ECANCELED]
        failure = self._failures[(causes or numbers)[0]]
        failure.failures = {n: self._failures[n].errno or errno.EIO for n in numbers}
        return failure
