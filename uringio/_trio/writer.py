"""BulkWriter: a stream of bytes into a new file that appears whole or not at all.

Three positions, in bytes, never mixed up:
    accepted >= written >= durable
accepted is in our slots; written has a completion of full length; durable was followed by an fsync
that succeeded.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._trio.modes import buffered_flags
from uringio._trio.preallocation import Preallocation
from uringio._trio.publish import DURABILITIES, Durability, Place, publish_steps, run_steps
from uringio._trio.write_behind import WriteBehind, pad
from uringio.exceptions import ClosedError, IncompleteError, OperationError, operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from uringio._ring.features import Backend
    from uringio._ring.increment import Slot
    from uringio._trio.modes import Cache
    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue


SUBMIT_BYTES = 256 << 10
"""What a writer fills before it lets the ring submit: slots of this size or more go one by one."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit did.

    `size` is in bytes. `cache` says how they went to the disk: "direct" (past the page cache),
    "uncached" (through it, and dropped at once) or "cached"; `direct` is True for the first.
    `preallocated` says whether blocks were reserved ahead, `registered` whether the slots were
    registered buffers. `short_writes` counts writes that had to be continued, `seconds` is
    from create to commit.
    """

    path: str
    size: int
    durability: Durability
    backend: Backend
    direct: bool
    cache: Cache
    registered: bool
    preallocated: bool
    short_writes: int
    seconds: float


class BulkWriter:
    """Writes one new file. Made by `Ring.create`; leave its `async with` without commit to abort.

    One task at a time: a second one gets `trio.BusyResourceError`. After the first error the writer
    is broken: every call raises that error again, and leaving aborts.
    """

    def __init__(
        self,
        reactor: Reactor,
        slots: SlotQueue,
        file: OpenFile,
        source: Place,
        target: Place,
        *,
        size: int | None,
        overwrite: bool,
    ) -> None:
        self._reactor = reactor
        self._slots = slots
        self._file = file
        self._source = source
        self._target = target
        self._size = size
        self._overwrite = overwrite
        flags = buffered_flags(slots.pool.slot_bytes, uncached=file.uncached)
        self._behind = WriteBehind(
            reactor, slots, file.fd, target.path, file.block_bytes, flags=flags
        )
        self._reserved = Preallocation(reactor, file.fd, target.path, size)
        self._slot: Slot | None = None
        self._slot_start = 0
        self._filled = 0
        self._flushing = False
        self._ends: dict[int, int] = {}
        self._registered = True
        self._busy = False
        self._open = True
        self._published = False
        self._started = time.perf_counter()
        self.path = target.path
        self.direct = file.direct
        self.cache: Cache = "direct" if file.direct else "uncached" if flags else "cached"
        self.accepted = 0
        self.written = 0
        self.durable = 0
        self._prepared_bytes = 0

    async def __aenter__(self) -> Self:
        """Reserve the whole file when its size was declared. Raises `NoSpaceError`."""
        try:
            if self._size is not None and self._size > self._slots.pool.slot_bytes:
                await self._reserved.reserve(self._size)
        except BaseException:
            await self.abort()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Abort, unless committed."""
        await self.abort()

    async def write(self, data: Buffer) -> None:
        """Append any bytes-like object of any length, by a copy into slots.

        A checkpoint for cancellation at every call, for scheduling at every slot that gets full.
        On return all of it is accepted: `data` may be changed. A cancelled write has accepted what
        `accepted` says and no more. Raises the writer's first error; `IncompleteError` when the
        data would exceed the declared size (nothing is accepted then).
        """
        with self._exclusively():
            view = memoryview(data).cast("B")
            self._check_fits(len(view))
            await trio.lowlevel.checkpoint_if_cancelled()
            while len(view):
                slot = await self._slot_to_fill()
                length = min(len(view), len(slot.memory) - self._filled)
                slot.memory[self._filled : self._filled + length] = view[:length]
                await self._accept(length)
                view = view[length:]

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Lend the next piece of a slot: fill `slot.view` from its start, set `slot.length`.

        This is the way without the copy. The view is what is left of the current slot, 1 to
        `slot_bytes` bytes. On leaving, `length` bytes are accepted; on an exception, none.
        """
        with self._exclusively():
            slot = await self._slot_to_fill()
            slot.view, slot.length = slot.memory[self._filled :], 0
            yield slot
            if not 0 <= slot.length <= len(slot.view):
                raise ValueError(f"slot.length must be 0 to {len(slot.view)}, not {slot.length}")
            self._check_fits(slot.length)
            await self._accept(slot.length)

    async def flush(self) -> None:
        """Wait until accepted == written. Not durable: a power cut may still take it."""
        with self._exclusively():
            await self._flush()

    async def sync(self) -> None:
        """Make everything accepted durable (flush, then fdatasync).

        The bytes survive a power cut; the file is not visible under its name before `commit`. An
        fsync that fails breaks the writer: what it was about is lost and is never asked again.
        """
        with self._exclusively():
            await self._flush()
            written = self.written
            result = await self._reactor.perform(operations.fsync(self._file.fd, data_only=True))
            if result < 0:
                self._behind.fail(operation_error(-result, "fsync", self.path))
            self._behind.check()
            self.durable = written

    async def commit(self, *, durability: Durability = "published") -> Receipt:
        """Finish: durable, then visible under its name, then the name is durable.

        `durability` may ask for less: "durable" leaves the directory's fsync out, "written" every
        fsync (the file is whole and visible, but a power cut may take it).
        Raises `IncompleteError` when a declared size was not reached (the writer stays open),
        `TargetExistsError` when the name was taken meanwhile, or the first error of a write. When
        only the last step failed, the fsync of the directory, the whole file is visible under its
        name and the error says that a power cut may take the name. Can be
        cancelled until the last chunk is written; the publish itself runs to its end, and then the
        receipt is returned.
        """
        if durability not in DURABILITIES:
            raise ValueError(f"durability must be one of {DURABILITIES}, not {durability!r}")
        with self._exclusively():
            if self._size is not None and self.accepted != self._size:
                raise IncompleteError(
                    f"{self.path}: {self._size} bytes were declared and {self.accepted} written"
                )
            await self._settle_partial()
            await self._behind.wait_written()
            await trio.lowlevel.checkpoint_if_cancelled()
            with trio.CancelScope(shield=True):
                await self._publish(durability)
                await self._close()
            self.written = self.accepted
            self.durable = self.accepted if durability != "written" else self.durable
            return Receipt(
                path=self.path,
                size=self.accepted,
                durability=durability,
                backend=self._reactor.ring.features.backend,
                direct=self.direct,
                cache=self.cache,
                registered=self._registered,
                preallocated=self._reserved.end > 0,
                short_writes=self._behind.short_writes,
                seconds=time.perf_counter() - self._started,
            )

    async def abort(self) -> None:
        """Throw the file away: waits for writes in flight, then removes it. Not cancellable.

        Does nothing after a commit or an abort. `trio.BusyResourceError` while another task is in
        a call: it would go on in a slot and on a descriptor that are somebody else's by then.
        """
        if not self._open:
            return
        if self._busy:
            raise trio.BusyResourceError(f"another task is using the writer of {self.path}")
        self._busy = True
        with trio.CancelScope(shield=True):
            await self._behind.wait_settled()
            await self._close()

    async def _publish(self, durability: Durability) -> None:
        slot, filled, start = self._slot, self._filled, self._slot_start
        tail = None
        end = self._behind.padded_end
        if slot is not None and filled:
            self._registered &= slot.buffer_index >= 0
            padded = pad(slot, filled, self._file.block_bytes)
            tail = operations.write(
                self._file.fd,
                slot.memory,
                start,
                padded,
                buffer_index=slot.buffer_index,
                flags=self._behind.flags,
            )
            end = start + padded
        longest = max(end, self._reserved.reached)
        steps = publish_steps(
            self._file.fd,
            self._source,
            self._target,
            tail=tail,
            cut_to=self.accepted if longest != self.accepted else None,
            overwrite=self._overwrite,
            durability=durability,
        )
        try:
            self._behind.short_writes += await run_steps(self._reactor, steps)
        except OperationError as exc:
            self._behind.fail(exc)
            raise
        self._published = True

    async def _close(self) -> None:
        """Give everything back: the slot, the temporary name, the descriptors."""
        self._open = False
        if self._slot is not None:
            self._slots.release(self._slot)
            self._slot = None
        closing = [operations.close(self._file.fd), operations.close(self._target.dir_fd)]
        if not self._published:
            unlink = operations.unlink(self._source.dir_fd, self._source.name)
            closing.insert(0, unlink)
        for operation in closing:
            await self._reactor.perform_always(operation)

    async def _slot_to_fill(self) -> Slot:
        """Wait for a slot with room in it."""
        if self._slot is not None and self._filled == len(self._slot.memory):
            await self._dispatch()
        if self._slot is None:
            self._slot = await self._slots.acquire()
            self._slot_start = self.accepted
            self._filled = 0
        return self._slot

    async def _accept(self, length: int) -> None:
        assert self._slot is not None
        self._filled += length
        self.accepted += length
        if self._filled == len(self._slot.memory):
            await self._dispatch()

    async def _dispatch(self) -> None:
        """Submit the full slot. It stays the current one until it is submitted."""
        slot = self._slot
        assert slot is not None
        await self._settle_partial()
        try:
            await self._reserved.reserve(self._slot_start + self._filled)
        except OperationError as exc:
            self._behind.fail(exc)
            raise
        self._registered &= slot.buffer_index >= 0
        self._behind.submit(slot, self._slot_start, self._filled, self._chunk_done)
        self._slot = None
        # Operations go to the kernel when trio waits: without this, a caller that never does would
        # fill every slot before the disk saw the first. Small slots go together: a pass of the
        # scheduler, with its system calls, costs more than a write of 64 KiB.
        self._prepared_bytes += len(slot.memory)
        if self._prepared_bytes >= SUBMIT_BYTES or not self._slots.free:
            self._prepared_bytes = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _chunk_done(
        self, slot: Slot, offset: int, length: int, failure: OperationError | None
    ) -> None:
        self._slots.release(slot)
        if failure is None:
            self._mark_written(offset, offset + length)

    def _mark_written(self, start: int, end: int) -> None:
        """Move `written` on: completions come in any order, the position is a prefix."""
        if start > self.written:
            self._ends[start] = end
            return
        self.written = max(self.written, end)
        while (end := self._ends.pop(self.written, -1)) >= 0:
            self.written = end

    async def _flush(self) -> None:
        """Write what is filled; the slot stays current, and is written whole again when full.

        Its blocks up to here are then written twice, which only a flush in mid-slot costs.
        """
        await self._settle_partial()
        slot, filled, accepted = self._slot, self._filled, self.accepted
        if slot is not None and filled == len(slot.memory):
            await self._dispatch()
        elif slot is not None and self._slot_start + filled > self.written:
            self._flushing = True
            self._behind.submit(slot, self._slot_start, filled, _keep_slot)
        await self._behind.wait_written()
        self._flushing = False
        self.written = accepted

    async def _settle_partial(self) -> None:
        """Wait for a flush that was cancelled: its write and the next one share their blocks."""
        if self._flushing:
            await self._behind.wait_written()
            self._flushing = False

    def _check_fits(self, length: int) -> None:
        if self._size is not None and self.accepted + length > self._size:
            raise IncompleteError(
                f"{self.path}: {self._size} bytes were declared, "
                f"{self.accepted} are accepted and {length} more do not fit"
            )

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._open:
            raise ClosedError(f"{self.path}: the writer was committed or aborted before")
        if self._busy:
            raise trio.BusyResourceError(f"another task is using the writer of {self.path}")
        self._behind.check()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def _keep_slot(_slot: Slot, _offset: int, _length: int, _failure: OperationError | None) -> None:
    """Let a flushed slot go on being filled."""
