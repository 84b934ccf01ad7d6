"""UringFile: reads and writes at offsets, each awaited by itself, with the caller's own memory."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._ring.operations import LENGTH_MAX
from uringio.exceptions import ClosedError, UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

MODES = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
"""open()'s modes for a file that is addressed by offsets: "w" and "a" have no meaning here."""


class UringFile:
    """A file open for `pread`, `pwrite` and `fsync`. Made by `Ring.open`; use it with `async with`.

    Any number of tasks may use it at a time. Writes to the same bytes from two tasks at once end in
    either order. `direct` says whether it goes past the page cache; then memory that is not aligned
    is copied through slots, and what does not start and end on a block goes through the page cache.
    """

    def __init__(self, reactor: Reactor, slots: SlotQueue, file: OpenFile) -> None:
        self._reactor = reactor
        self._slots = slots
        self._file = file
        self._buffered_fd = -1
        self._using = 0
        self._unused = trio.lowlevel.ParkingLot()
        self._open = True
        self.path = file.path
        self.direct = file.direct

    async def __aenter__(self) -> Self:
        """Nothing more to do: the file is open."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    def fileno(self) -> int:
        """Return the descriptor, for calls that have no place here. It stays this object's."""
        return self._file.fd

    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset`; the result is its length in bytes.

        On return every byte has a completion: written, not durable (see `fsync`). `data` must not
        change before that. Raises `OperationError`; what was written before an error is unknown. A
        cancelled task leaves when the kernel no longer needs the memory.
        """
        with _Using(self):
            view = memoryview(data).cast("B")
            _check_offset(offset)
            if not len(view):
                await trio.lowlevel.checkpoint()
            elif not self._is_block(offset, len(view)):
                await self._write_all(self._buffered(), view, offset)
            elif self._is_aligned(view):
                await self._write_all(self._file.fd, view, offset)
            else:
                await self._write_copied(view, offset)
            return len(view)

    async def pwrite_many(self, pairs: Iterable[tuple[Buffer, int]]) -> int:
        """Write many (data, offset) pairs side by side, in one submission; the result counts bytes.

        In no order: the pairs must not overlap. The first error is raised when all have ended.
        """
        errors: list[BaseException] = []
        total = 0

        async def write_one(data: Buffer, offset: int) -> None:
            nonlocal total
            try:
                length = await self.pwrite(data, offset)  # not `total += await`: others add too
                total += length
            except (UringioError, TypeError, ValueError) as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            for data, offset in pairs:
                nursery.start_soon(write_one, data, offset)
        if errors:
            raise errors[0]
        return total

    async def pread_into(self, data: Buffer, offset: int) -> int:
        """Read into writable memory from `offset`; the result is the length, short at the end."""
        with _Using(self):
            view = memoryview(data).cast("B")
            if view.readonly:
                raise TypeError("pread_into needs writable memory: a bytearray, an mmap, a slot")
            _check_offset(offset)
            if not len(view):
                await trio.lowlevel.checkpoint()
                return 0
            direct = self._is_block(offset, len(view)) and self._is_aligned(view)
            fd = self._file.fd if direct else self._buffered()
            done = 0
            while done < len(view):
                length = min(len(view) - done, LENGTH_MAX)
                operation = operations.read(fd, view[done:], offset + done, length)
                result = await self._reactor.perform(operation)
                if result < 0:
                    raise operation_error(-result, "read", self.path, offset + done, length)
                done += result
                if result == 0:
                    break
                if direct and result % self._file.block_bytes:
                    fd = self._buffered()  # the end, or a short read: what is left is no block
            return done

    async def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes from `offset`; shorter only at the end of the file."""
        data = bytearray(length)
        done = await self.pread_into(data, offset)
        return bytes(data[:done])

    async def fsync(self, *, data_only: bool = False) -> None:
        """Make every write that was awaited before this call durable (fdatasync for `data_only`).

        Writes still in flight are not covered. Raises `OperationError`; do not call it again after
        an error: the kernel has forgotten which pages it lost, and would say 0.
        """
        with _Using(self):
            result = await self._reactor.perform(
                operations.fsync(self._file.fd, data_only=data_only)
            )
            if result < 0:
                raise operation_error(-result, "fsync", self.path)

    async def aclose(self) -> None:
        """Wait for operations in flight, then close. Makes nothing durable. Not cancellable."""
        if not self._open:
            return
        self._open = False
        with trio.CancelScope(shield=True):
            while self._using:
                await self._unused.park()
            for fd in (self._file.fd, self._buffered_fd):
                if fd >= 0:
                    await self._reactor.perform_always(operations.close(fd))

    async def _write_all(self, fd: int, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            length = min(len(view) - done, LENGTH_MAX)
            operation = operations.write(fd, view[done:], offset + done, length)
            result = await self._reactor.perform(operation)
            if result <= 0:
                number = -result if result else errno.EIO
                raise operation_error(number, "write", self.path, offset + done, length)
            done += result

    async def _write_copied(self, view: memoryview, offset: int) -> None:
        slot_bytes = self._slots.pool.slot_bytes
        for start in range(0, len(view), slot_bytes):
            slot = await self._slots.acquire()
            try:
                piece = view[start : start + slot_bytes]
                slot.memory[: len(piece)] = piece
                await self._write_all(self._file.fd, slot.memory[: len(piece)], offset + start)
            finally:
                self._slots.release(slot)

    def _is_block(self, offset: int, length: int) -> bool:
        return not (offset % self._file.block_bytes or length % self._file.block_bytes)

    def _is_aligned(self, view: memoryview) -> bool:
        if self._file.memory_bytes == 1:
            return True
        if view.readonly:
            return False  # bytes objects start 32 bytes into their allocation
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        return address % self._file.memory_bytes == 0

    def _buffered(self) -> int:
        """Open a second descriptor through the page cache, for what is not whole blocks.

        The kernel writes dirty pages back before a direct access to the same range, so the two
        agree; fsync of one covers both, for it is the same file.
        """
        if not self.direct:
            return self._file.fd
        if self._buffered_fd < 0:
            access = fcntl.fcntl(self._file.fd, fcntl.F_GETFL) & os.O_ACCMODE
            path = f"/proc/self/fd/{self._file.fd}"
            try:
                self._buffered_fd = os.open(path, access | os.O_CLOEXEC)
            except OSError as exc:
                raise operation_error(exc.errno or errno.EIO, "open", self.path) from exc
        return self._buffered_fd


class _Using:
    """Counts the calls under way, so that a close waits for them."""

    __slots__ = ("file",)

    def __init__(self, file: UringFile) -> None:
        self.file = file

    def __enter__(self) -> None:
        if not self.file._open:  # noqa: SLF001  # UringFile's own other half
            raise ClosedError(f"{self.file.path} is closed")
        self.file._using += 1  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        self.file._using -= 1  # noqa: SLF001
        if not self.file._using:  # noqa: SLF001
            self.file._unused.unpark_all()  # noqa: SLF001


def _check_offset(offset: int) -> None:
    if offset < 0:
        raise ValueError(f"an offset is 0 or more, not {offset}")
