"""Write-behind: many chunk writes of one file in flight, none of them awaited.

Everything that turns a filled slot into written bytes lives here: padding, short writes, the first
error, and when a slot may be used again.

What the kernel does: a direct write that fails is reported in its own completion only, a later
fsync succeeds all the same; so every completion is looked at, and one failure ends the file's
writes for good. A short write is rare (a limit was hit, a signal came) and says how far it got:
the rest is submitted again from there, and then either works or names its error.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio.exceptions import OperationError, UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringio._ring.increment import Slot
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

    OnDone = Callable[[Slot, int, int, OperationError | None], None]


class WriteBehind:
    """Writes slots of one file at given offsets; `slots` bounds how many are in flight.

    `block_bytes` is what offsets and lengths must be multiples of (1 for buffered files): the last
    chunk may be shorter and is padded with zeros, so the file ends up to `block_bytes - 1` bytes
    too long and `padded_end` says that it has to be cut to size. `flags` are those of pwritev2(2).
    """

    def __init__(
        self,
        reactor: Reactor,
        slots: SlotQueue,
        fd: int,
        path: str,
        block_bytes: int,
        *,
        flags: int = 0,
    ) -> None:
        self.reactor = reactor
        self.slots = slots
        self.fd = fd
        self.path = path
        self.block_bytes = block_bytes
        self.flags = flags
        self.in_flight = 0
        self.short_writes = 0
        self.padded_end = 0
        self.failure: OperationError | None = None
        self._settled = trio.lowlevel.ParkingLot()

    def submit(self, slot: Slot, offset: int, length: int, on_done: OnDone) -> None:
        """Write the slot's first `length` bytes at `offset`, from now on in the background.

        The slot belongs to the write until `on_done(slot, offset, length, error)` is called from
        the reaper; from then on it is the callee's to give back or to keep. Raises the first
        failure, if there was one: the slot stays the caller's then.
        """
        self.check()
        assert offset % self.block_bytes == 0, "chunks start on a block"
        padded = pad(slot, length, self.block_bytes)
        chunk = _Chunk(self, slot, offset, length, padded, on_done)
        chunk.start()
        self.in_flight += 1
        self.padded_end = max(self.padded_end, offset + padded)

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.failure is not None:
            raise self.failure.again()

    async def wait_written(self) -> None:
        """Wait until every submitted chunk is written, or raise the first failure."""
        await self.wait_settled()
        self.check()

    async def wait_settled(self) -> None:
        """Wait until nothing is in flight, however it went."""
        while self.in_flight:
            await self._settled.park()

    def fail(self, failure: OperationError) -> None:
        """Keep the first failure: no new write is taken after it."""
        if self.failure is None:
            self.failure = failure

    def done(self) -> None:
        """Count a chunk out (called by the chunk)."""
        self.in_flight -= 1
        if not self.in_flight:
            self._settled.unpark_all()


def pad(slot: Slot, length: int, block_bytes: int) -> int:
    """Fill a slot with zeros from `length` to the end of its block; the result is where that is."""
    padded = -(-length // block_bytes) * block_bytes
    if padded > length:
        slot.memory[length:padded] = bytes(padded - length)
    return padded


class _Chunk:
    """One chunk write, until all of it is written or it failed."""

    __slots__ = ("length", "offset", "on_done", "owner", "padded", "slot", "written")

    def __init__(
        self,
        owner: WriteBehind,
        slot: Slot,
        offset: int,
        length: int,
        padded: int,
        on_done: OnDone,
    ) -> None:
        self.owner = owner
        self.slot = slot
        self.offset = offset
        self.length = length
        self.padded = padded
        self.written = 0
        self.on_done = on_done

    def start(self) -> None:
        start, slot = self.written, self.slot
        length = self.padded - start
        data = slot.memory[start:] if start else slot.memory
        operation = operations.write(
            self.owner.fd,
            data,
            self.offset + start,
            length,
            buffer_index=slot.buffer_index,
            flags=self.owner.flags,
        )
        self.owner.reactor.start(operation, self.completed)

    def completed(self, result: int) -> None:
        owner = self.owner
        # A direct write goes on from a block boundary: what was half done is done again.
        progress = self.written + max(result, 0)
        progress -= progress % owner.block_bytes
        if result > 0 and progress <= self.written:  # only from the very byte is the limit named
            progress = self.written + result
        if progress == self.padded:
            self._done(None)
            return
        if progress > self.written:
            owner.short_writes += 1
            self.written = progress
            try:
                self.start()
            except UringioError as exc:
                self._failed(errno.EIO, str(exc))
            return
        # No progress is no success: a write that took nothing would be tried for ever.
        self._failed(-result if result < 0 else errno.EIO)

    def _failed(self, number: int, hint: str = "") -> None:
        at, left = self.offset + self.written, self.length - self.written
        failure = operation_error(number, "write", self.owner.path, at, left, hint)
        self.owner.fail(failure)
        self._done(failure)

    def _done(self, failure: OperationError | None) -> None:
        self.owner.done()
        self.on_done(self.slot, self.offset, self.length, failure)
