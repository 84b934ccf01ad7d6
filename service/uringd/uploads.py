"""An upload on the server: a spool file that fills, and is published or thrown away.

Which promise rests on what:
- written: every chunk's write has a full-length completion (`WriteBehind`).
- durable: after that, an fsync of the spool file that succeeded.
- published: after that, the rename into place and the fsync of its directory. One chain does it
  (`uringio._trio.publish`), so the name cannot appear over bytes that are not durable.
An upload whose write or fsync failed is broken for good: nothing about it is acknowledged after.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from uringd.config import ALIGNMENT_BYTES
from uringd.root import SPOOL_SUFFIX
from uringd.upload_errors import NAME_ERRORS, UploadError, failed
from uringd.wire import (
    RANGES_MAX,
    Durability,
    ErrorCode,
    RemoteProtocolError,
    UploadState,
    Verdict,
    WrittenRanges,
    check_name,
    checksum,
)
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import (
    Place,
    Preallocation,
    WriteBehind,
    operations,
    publish_steps,
    run_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.root import Root
    from uringio import Ring
    from uringio.lowlevel import OpenFile, Slot

LEVELS = {
    Durability.WRITTEN: "written",
    Durability.DURABLE: "durable",
    Durability.PUBLISHED: "published",
}


@dataclass(frozen=True, slots=True)
class Published:
    """What a commit came to."""

    size: int
    crc32c: int
    durability: Durability
    seconds: float


class Upload:
    """One upload, filled by one session."""

    def __init__(
        self,
        ring: Ring,
        root: Root,
        file: OpenFile,
        upload_id: str,
        name: str,
        *,
        size: int | None,
        overwrite: bool,
        durability: Durability,
    ) -> None:
        self._ring = ring
        self._root = root
        self._file = file
        self.id = upload_id
        self.name = name
        self.size = size
        self.direct = file.direct
        self._overwrite = overwrite
        self._durability = durability
        self._reserved = Preallocation(ring.reactor, file.fd, name, size)
        self._behind = WriteBehind(ring.reactor, ring.slots, file.fd, name, file.block_bytes)
        self._accepted = WrittenRanges()
        # Chunks complete in any order: for a while there may be more ranges than were accepted.
        self._written = WrittenRanges(ranges_max=2 * RANGES_MAX, chunks_remembered=0)
        self.durable = 0
        self.state = UploadState.RECEIVING
        self.started = time.monotonic()
        self.reported = False
        # One at a time: another session may abort the upload while this one fills it.
        self._lock = trio.Lock()

    @property
    def accepted(self) -> int:
        """Every byte below this position was received and verified."""
        return self._accepted.prefix

    @property
    def written(self) -> int:
        """Every byte below this position is written."""
        return self._written.prefix

    @property
    def is_broken(self) -> bool:
        """Whether a write or fsync failed: only an abort is left."""
        return self._behind.failure is not None

    @property
    def lost_writes(self) -> bool:
        """Whether the failure is of a write or an fsync: what was only written may be lost."""
        failure = self._behind.failure
        return failure is not None and failure.operation in {"write", "fsync"}

    @property
    def failure(self) -> UploadError | None:
        """The first write or fsync that failed, as the client is told."""
        return None if self._behind.failure is None else failed(self._behind.failure)

    async def reserve(self) -> None:
        """Reserve the whole file, when its size was declared: a full disk is known now."""
        if self.size:
            await self._reserved.reserve(self.size)

    def check_chunk(self, offset: int, length: int) -> None:
        """Refuse a chunk that cannot belong here, before its payload is received."""
        end = offset + length
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
        if length % ALIGNMENT_BYTES and end < max(self._accepted.end, self.size or 0):
            raise UploadError(
                ErrorCode.OUT_OF_RANGE,
                f"a chunk of {length} bytes is no multiple of {ALIGNMENT_BYTES} and not the last",
                offset=offset,
            )

    async def write(
        self, slot: Slot, offset: int, length: int, crc32c: int, on_done: Callable[[Slot], None]
    ) -> None:
        """Take a received and verified chunk: it is written in the background.

        `on_done(slot)` is called once, when the slot is free to be given back.
        """
        await self._acquire()
        try:
            await self._write(slot, offset, length, crc32c, on_done)
        finally:
            self._lock.release()

    async def _write(
        self, slot: Slot, offset: int, length: int, crc32c: int, on_done: Callable[[Slot], None]
    ) -> None:
        self._refuse_if_broken()
        verdict = self._judge(offset, length, crc32c)
        if verdict is Verdict.FORGOTTEN:
            verdict = await self._compare(slot, offset, length, crc32c)
        if verdict is Verdict.CONFLICT:
            raise UploadError(
                ErrorCode.CONFLICT,
                f"there are other bytes at {offset} already",
                offset=offset,
            )
        if verdict is Verdict.REPEATED:
            on_done(slot)
            return
        await self._reserve_for(offset + length)
        if length % ALIGNMENT_BYTES:
            self.size = offset + length  # the tail fixes the size

        def done(slot: Slot, offset: int, length: int, failure: OperationError | None) -> None:
            if failure is None:
                self._written.add(offset, length, crc32c)
            else:
                self.state = UploadState.BROKEN
            on_done(slot)

        self._behind.submit(slot, offset, length, done)
        self._accepted.add(offset, length, crc32c)

    async def sync(self) -> int:
        """Make durable what was received; the result is the durable position."""
        async with self._lock:
            await self._settle()
            written = self.written
            result = await self._ring.reactor.perform(
                operations.fsync(self._file.fd, data_only=True)
            )
            if result < 0:
                self._break(operation_error(-result, "fsync", self.name))
            self.durable = max(self.durable, written)
            return self.durable

    async def commit(self, size: int, crc32c: int | None, durability: Durability) -> Published:
        """Publish. On return the level that was asked for holds.

        Refused with INCOMPLETE or CONTENT_MISMATCH, the upload goes on. Once it publishes it is
        not cancelled: the answer is either a receipt or an error, and either is true.
        """
        async with self._lock:
            self._refuse_if_broken()
            self._check_complete(size, crc32c)
            durability = durability or self._durability or Durability.PUBLISHED
            self.state = UploadState.COMMITTING
            try:
                with trio.CancelScope(shield=True):
                    await self._settle()
                    await self._publish(size, durability)
            finally:
                if self.state is UploadState.COMMITTING:
                    self.state = UploadState.RECEIVING
            seconds = time.monotonic() - self.started
            return Published(size, self._accepted.crc32c(size), durability, seconds)

    async def abort(self) -> None:
        """Throw the upload away: waits for its writes, then removes the spool file."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                self.reported = True  # what is about to fail is no news: it is wanted
                self._behind.fail(operation_error(errno.ECANCELED, "write", self.name))
                await self._behind.wait_settled()
                if self._file.fd >= 0:
                    unlink = operations.unlink(self._root.spool_fd, self.id + SPOOL_SUFFIX)
                    await self._ring.reactor.perform_always(unlink)
                    await self._close()

    async def _close(self) -> None:
        """Close the spool file, and with it the lock that is its fence."""
        fd, self._file.fd = self._file.fd, -1
        await self._ring.reactor.perform_always(operations.close(fd))

    async def _publish(self, size: int, durability: Durability) -> None:
        reactor = self._ring.reactor
        components = check_name(self.name)
        parent_fd = -1
        try:
            parent_fd = await self._root.open_parent(reactor, components)
            longest = max(self._behind.padded_end, self._reserved.reached)
            steps = publish_steps(
                self._file.fd,
                Place(self._root.spool_fd, self.id + SPOOL_SUFFIX, self.name),
                Place(parent_fd, components[-1], self.name),
                tail=None,
                cut_to=size if longest != size else None,
                overwrite=self._overwrite,
                durability=LEVELS[durability],  # type: ignore[arg-type]
            )
            await run_steps(reactor, steps)
        except OperationError as exc:
            if exc.errno == errno.EISDIR:
                raise failed(operation_error(errno.EEXIST, "rename", self.name)) from exc
            if exc.errno in NAME_ERRORS:
                # The file is whole and durable; only its name is not to be had.
                raise failed(exc) from exc
            self._break(exc)
        finally:
            if parent_fd >= 0:
                await reactor.perform_always(operations.close(parent_fd))
        await self._close()

    def _check_complete(self, size: int, crc32c: int | None) -> None:
        if self.size is not None and size != self.size:
            raise UploadError(
                ErrorCode.OUT_OF_RANGE, f"COMMIT says {size} bytes, the upload has {self.size}"
            )
        if self._accepted.end > size:
            raise UploadError(
                ErrorCode.OUT_OF_RANGE,
                f"COMMIT says {size} bytes, and there are some up to {self._accepted.end}",
            )
        missing = self._accepted.missing(size)
        if missing:
            lacking = sum(length for _, length in missing)
            raise UploadError(
                ErrorCode.INCOMPLETE, f"{lacking} bytes are missing", missing=tuple(missing)
            )
        if crc32c is not None and crc32c != self._accepted.crc32c(size):
            raise UploadError(
                ErrorCode.CONTENT_MISMATCH,
                f"COMMIT says CRC32C {crc32c:08x}, the bytes have "
                f"{self._accepted.crc32c(size):08x}",
            )

    async def _acquire(self) -> None:
        """Take the lock; unlike `async with`, without a scheduler pass where it is free."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    def _judge(self, offset: int, length: int, crc32c: int) -> Verdict:
        try:
            return self._accepted.judge(offset, length, crc32c)
        except RemoteProtocolError as exc:
            raise UploadError(exc.code, exc.text, offset=offset) from exc

    async def _reserve_for(self, end: int) -> None:
        try:
            await self._reserved.reserve(end)
        except OperationError as exc:
            self._break(exc)

    async def _settle(self) -> None:
        """Wait until all that was accepted is written."""
        await self._behind.wait_settled()
        self._refuse_if_broken()

    async def _compare(self, slot: Slot, offset: int, length: int, crc32c: int) -> Verdict:
        """Tell a chunk that came again from another one by reading back what was written."""
        await self._settle()
        padded = -(-length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        operation = operations.read(
            self._file.fd, slot.memory, offset, padded, buffer_index=slot.buffer_index
        )
        result = await self._ring.reactor.perform(operation)
        if result < length:
            number = -result if result < 0 else errno.EIO
            raise failed(operation_error(number, "read", self.name, offset, length))
        same = checksum.crc32c(slot.memory[:length]) == crc32c
        return Verdict.REPEATED if same else Verdict.CONFLICT

    def _refuse_if_broken(self) -> None:
        if self._behind.failure is not None:
            self.state = UploadState.BROKEN
            raise failed(self._behind.failure)

    def _break(self, failure: OperationError) -> None:
        self._behind.fail(failure)
        self._refuse_if_broken()
