"""The bytes of an upload: which were accepted, which are written, and the writes between the two.

Everything that decides whether a chunk is taken lives here. Lanes fill one upload side by side: a
chunk is judged and submitted under a lock, so that two that overlap never both pass.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

import trio

from uringd.config import ALIGNMENT_BYTES
from uringd.reading_back import start_read_back
from uringd.upload_errors import UploadError, failed, fenced, thrown_away
from uringd.wire import (
    RANGES_MAX,
    ByteRange,
    ErrorCode,
    RemoteProtocolError,
    Verdict,
    WrittenRanges,
    checksum,
)
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import Preallocation, WriteBehind, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uringd.holds import Hold
    from uringd.quota import SpoolQuota
    from uringio import Ring
    from uringio.lowlevel import OpenFile, Slot


SLOTS_MAX = 16_384
"""Chunks of one upload that may be in flight at once: one for each slot of the largest pool."""


class Filling:
    """Fills one spool file. `reached` is how long the file may be already, in bytes."""

    def __init__(
        self,
        ring: Ring,
        quota: SpoolQuota,
        file: OpenFile,
        upload_id: str,
        name: str,
        size: int | None,
        reached: int = 0,
    ) -> None:
        self._reactor = ring.reactor
        self._quota = quota
        self._file = file
        self._id = upload_id
        self._name = name
        self.size = size
        self._reserved = Preallocation(ring.reactor, file.fd, name, size)
        self._reserved.reached = reached
        self._behind = WriteBehind(ring.reactor, ring.slots, file.fd, name, file.block_bytes)
        self.accepted = WrittenRanges()
        # Chunks complete in any order: for a while there may be more ranges than were accepted.
        ranges_max = RANGES_MAX + SLOTS_MAX
        self.written = WrittenRanges(ranges_max=ranges_max, chunks_remembered=0)
        self.undurable_bytes = 0
        self.closed = False
        self._thrown_away = False
        self.lock = trio.Lock()
        self._in_flight: dict[int, None] = {}
        self._sequence = 0
        self._arrivals = trio.lowlevel.ParkingLot()

    @property
    def failure(self) -> OperationError | None:
        """What broke the upload: the first write, fsync or record that failed."""
        return self._behind.failure

    @property
    def longest(self) -> int:
        """How long the file may have become by padding and reservations, in bytes."""
        return max(self._behind.padded_end, self._reserved.reached)

    def restore(self, ranges: Iterable[ByteRange]) -> None:
        """Take over what is durable from an earlier life of the upload."""
        for part in ranges:
            self.accepted.restore(part)
            self.written.restore(part)
            end = part.offset + part.length
            if end % ALIGNMENT_BYTES:
                self.size = end  # the tail fixes the size

    def check(self) -> None:
        """Raise UploadError if the upload is broken, NOT_FOUND if it was thrown away."""
        if self._behind.failure is not None:
            raise self._refusal(self._behind.failure)

    def fail(self, failure: OperationError) -> UploadError:
        """Break the upload. The first failure is the one that counts, and what the result tells."""
        self._behind.fail(failure)
        return self._refusal(self._behind.failure or failure)

    def _refusal(self, failure: OperationError) -> UploadError:
        return thrown_away() if self._thrown_away else failed(failure)

    def throw_away(self) -> None:
        """Let no more in. Who waits to come in is told that there is no such upload any more."""
        self._thrown_away = True
        self.fail(operation_error(errno.ECANCELED, "write", self._name))

    async def reserve(self) -> None:
        """Reserve the whole file, when its size was declared: a full disk is known now."""
        if self.size:
            await self._reserved.reserve(self.size)

    def check_chunk(self, offset: int, length: int) -> None:
        """Refuse a chunk that cannot belong here, before its payload is received."""
        end = offset + length
        if self.closed:
            text = "the upload is being committed, or was closed"
            raise UploadError(ErrorCode.OUT_OF_ORDER, text, offset=offset)
        if offset % ALIGNMENT_BYTES:
            raise UploadError(
                ErrorCode.MISALIGNED,
                f"a chunk begins at {offset}, which is no multiple of {ALIGNMENT_BYTES}",
                offset=offset,
            )
        if self.size is not None and end > self.size:
            raise UploadError(
                ErrorCode.OUT_OF_RANGE,
                f"a chunk ends at {end}, and the upload at {self.size}",
                offset=offset,
            )
        if length % ALIGNMENT_BYTES and end < max(self.accepted.end, self.size or 0):
            raise UploadError(
                ErrorCode.OUT_OF_RANGE,
                f"a chunk of {length} bytes is no multiple of {ALIGNMENT_BYTES} and not the last",
                offset=offset,
            )

    async def write(
        self,
        hold: Hold,
        slot: Slot,
        offset: int,
        length: int,
        crc32c: int,
        on_done: Callable[[Slot], None],
        read_back: Slot | None = None,
    ) -> None:
        """Take a received and verified chunk: it is written in the background.

        `on_done(slot)` is called once, when the slot is free to be given back. Raises UploadError,
        and the slot stays the caller's. With memory to `read_back` into, the chunk counts as
        written, for every promise that rests on it, once the file has given it back with the
        checksum that was said; another one breaks the upload. Whether `hold` is fenced, and whether
        the file is still open, is looked at under the lock: who fences or closes has it too, so
        that no byte of a fenced session comes after, and none goes to a file that got this one's
        descriptor.
        """
        try:  # unlike `async with`, without a scheduler pass where the lock is free
            self.lock.acquire_nowait()
        except trio.WouldBlock:
            await self.lock.acquire()
        try:
            self.check()
            if hold.is_fenced:
                raise fenced()
            self.check_chunk(offset, length)  # again: another lane may have fixed the size
            verdict = await self._judge(slot, offset, length, crc32c)
            if verdict is Verdict.CONFLICT:
                text = f"there are other bytes at {offset} already"
                raise UploadError(ErrorCode.CONFLICT, text, offset=offset)
            if verdict is Verdict.REPEATED:
                on_done(slot)
                return
            await self._reserve(offset + length)
            self.check()  # another write may have failed meanwhile
            self._submit(slot, offset, length, crc32c, on_done, read_back)
        finally:
            self.lock.release()

    def _submit(
        self,
        slot: Slot,
        offset: int,
        length: int,
        crc32c: int,
        on_done: Callable[[Slot], None],
        read_back: Slot | None,
    ) -> None:
        sequence = self._sequence

        def written(_: Slot, offset: int, length: int, failure: OperationError | None) -> None:
            if failure is not None or read_back is None:
                done(failure)
                return
            chunk = ByteRange(offset, length, crc32c)
            start_read_back(self._reactor, self._file.fd, self._name, read_back, chunk, compared)

        def compared(failure: OperationError | None) -> None:
            if failure is not None:
                self.fail(failure)
            done(failure)

        def done(failure: OperationError | None) -> None:
            del self._in_flight[sequence]
            if failure is None:
                self.written.add(offset, length, crc32c)
                self.undurable_bytes += length
            if self._arrivals:
                self._arrivals.unpark_all()
            on_done(slot)

        self._behind.submit(slot, offset, length, written)
        self._in_flight[sequence] = None
        self._sequence += 1
        self.accepted.add(offset, length, crc32c)
        if length % ALIGNMENT_BYTES:
            self.size = offset + length  # the tail fixes the size

    async def wait_arrived(self) -> None:
        """Wait until what was accepted until now is written or failed; more may come meanwhile."""
        last = self._sequence - 1
        while self._in_flight and next(iter(self._in_flight)) <= last:
            await self._arrivals.park()

    async def wait_settled(self) -> None:
        """Wait until nothing is in flight, however it went. With the lock held, so it stays."""
        while self._in_flight:
            await self._arrivals.park()

    async def _judge(self, slot: Slot, offset: int, length: int, crc32c: int) -> Verdict:
        try:
            verdict = self.accepted.judge(offset, length, crc32c)
        except RemoteProtocolError as exc:
            raise UploadError(exc.code, exc.text, offset=offset) from exc
        if verdict is not Verdict.FORGOTTEN:
            return verdict
        return await self._compare(slot, offset, length, crc32c)

    async def _compare(self, slot: Slot, offset: int, length: int, crc32c: int) -> Verdict:
        """Tell a chunk that came again from another one by reading back what was written."""
        await self.wait_settled()
        self.check()
        padded = -(-length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        memory, index = slot.memory, slot.buffer_index
        if slot.index < 0:  # a client's: it may be sealed, and is not ours to overwrite
            memory, index = memoryview(mmap.mmap(-1, padded)), -1
        operation = operations.read(self._file.fd, memory, offset, padded, buffer_index=index)
        result = await self._reactor.perform(operation)
        if result < length:
            number = -result if result < 0 else errno.EIO
            failure = operation_error(number, "read", self._name, offset, length)
            self.fail(failure)  # what cannot be read back cannot be published
            raise failed(failure)
        same = checksum.crc32c(memory[:length]) == crc32c
        return Verdict.REPEATED if same else Verdict.CONFLICT

    async def _reserve(self, end: int) -> None:
        try:
            counted = self._quota.reserve(self._id, end, self._reserved.wish(end))
            await self._reserved.reserve(end, counted)
        except OperationError as exc:
            self.fail(exc)
            raise failed(exc) from exc
