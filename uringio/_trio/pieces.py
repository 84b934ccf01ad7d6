"""Pieces: a range of a file, cut so that each piece fits a slot and stays aligned in it.

A piece begins at the same place in its block as its memory does in the slot's first block. So a
block of the file is a block of memory, and a direct write of the blocks in the middle of a piece
needs no second copy. Only the first piece can begin, and only the last can end, inside a block.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._ring.operations import BLOCK_BYTES
from uringio._trio.publish import Step
from uringio.exceptions import UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from uringio._ring.increment import Slot
    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

PIECES_MAX = 8
"""Pieces in flight for one replace: half of the default pool, so that others go on beside it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range in bytes of the file, and where it stands in a slot."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length

    @property
    def base(self) -> int:
        """The offset of the first byte's block: what a slot's memory begins with."""
        return self.offset - self.offset % BLOCK_BYTES

    @property
    def padded(self) -> int:
        """Bytes of the whole blocks that it touches, from `base`."""
        return -(-self.end // BLOCK_BYTES) * BLOCK_BYTES - self.base

    def memory(self, slot: Slot) -> memoryview:
        """Its bytes in a slot."""
        start = self.offset - self.base
        return slot.memory[start : start + self.length]

    def fill(self, slot: Slot, data: memoryview) -> None:
        """Copy its bytes into a slot, and zeros into what is left of its blocks."""
        start = self.offset - self.base
        slot.memory[:start] = bytes(start)
        self.memory(slot)[:] = data
        slot.memory[start + self.length : self.padded] = bytes(self.padded - start - self.length)


def cut(offset: int, length: int, slot_bytes: int) -> Iterator[Piece]:
    """Cut a range into pieces, in order; all but the first begin on a block."""
    start, end = offset, offset + length
    while start < end:
        stop = min(end, start - start % BLOCK_BYTES + slot_bytes)
        yield Piece(start, stop - start)
        start = stop


def parts(piece: Piece, file: OpenFile, buffered: Callable[[], int]) -> Iterator[tuple[int, Piece]]:
    """Tell which descriptor writes what of a piece: (descriptor, range) in order.

    On a direct file whole blocks go past the page cache; what is left at either end goes through
    it, because the kernel there changes no byte but those, whoever writes beside them.
    """
    block = file.block_bytes
    first = min(-(-piece.offset // block) * block, piece.end)
    last = max(piece.end - piece.end % block, first)
    for start, stop, direct in (
        (piece.offset, first, False),
        (first, last, True),
        (last, piece.end, False),
    ):
        if start < stop:
            yield (file.fd if direct else buffered()), Piece(start, stop - start)


def write_steps(
    slot: Slot, piece: Piece, file: OpenFile, buffered: Callable[[], int]
) -> list[Step]:
    """Build the writes of a piece that a slot is filled with."""
    steps = []
    for fd, part in parts(piece, file, buffered):
        start = part.offset - piece.base
        data = slot.memory[start : start + part.length]
        index = slot.buffer_index
        write = operations.write(fd, data, part.offset, part.length, buffer_index=index)
        steps.append(Step(write, file.path))
    return steps


@contextlib.asynccontextmanager
async def some_slots(slots: SlotQueue, pieces: int) -> AsyncIterator[list[Slot]]:
    """Hold one slot, and as many more as are free and of use.

    Only the first is waited for: who holds slots and waits for more waits for others who do so.
    """
    held = [await slots.acquire()]
    try:
        while len(held) < min(pieces, PIECES_MAX, max(1, len(slots.pool) // 2)):
            slot = slots.acquire_nowait()
            if slot is None:
                break
            held.append(slot)
        yield held
    finally:
        for slot in held:
            slots.release(slot)


async def side_by_side(
    held: Sequence[Slot], pieces: Iterator[Piece], work: Callable[[Slot, Piece], Awaitable[None]]
) -> None:
    """Await `work` for every piece, one per slot at a time; raise the first error when all ended.

    Pieces are begun in order: what `work` does before its first await, it does in that order.
    """
    failures: list[UringioError] = []

    async def go_on(slot: Slot) -> None:
        for piece in pieces:
            if failures:
                return
            try:
                await work(slot, piece)
            except UringioError as exc:
                failures.append(exc)

    async with trio.open_nursery() as nursery:
        for slot in held:
            nursery.start_soon(go_on, slot)
    if failures:
        raise failures[0]


async def read_whole(
    reactor: Reactor, fd: int, path: str, memory: memoryview, offset: int, needed: int
) -> int:
    """Read until `needed` bytes are there, or the file ends; the result says how many.

    Asks for all of `memory`, so that a direct read stays one of whole blocks.
    """
    done = 0
    while done < needed:
        length = len(memory) - done
        operation = operations.read(fd, memory[done:], offset + done, length)
        result = await reactor.perform(operation)
        if result < 0:
            raise operation_error(-result, "read", path, offset + done, length)
        if result == 0:
            break
        done += result
    return done
