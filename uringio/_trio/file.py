"""UringFile: reads and writes at offsets, each awaited by itself, with the caller's own memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._ring.operations import LENGTH_MAX
from uringio._ring.short_writes import rest_of_write, write_error
from uringio._trio.chain import Chain, run_chain
from uringio._trio.many import ManyWrites
from uringio.exceptions import ClosedError, UringioError, operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from uringio._trio.many import Piece
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


COPIES_MAX = 16
"""Writes of pwrite_many at a time that need a slot or the page cache: the default pool's slots."""


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
        """Write many (data, offset) pairs side by side; the result counts bytes.

        In no order: the pairs must not overlap. All are checked before the first is written. One
        task awaits them, 256 are in flight, and the SQEs of a batch are filled in C. The first
        error is raised when all have ended; which of the others were written is unknown then.
        """
        with _Using(self):
            aligned, unaligned = self._pieces(pairs)
            many = ManyWrites(self._reactor, self._file.fd, self.path, iter(aligned))
            await many.run()
            failure = many.failure or await self._write_side_by_side(unaligned)
            if failure is not None:
                raise failure
            return sum(len(view) for view, _ in (*aligned, *unaligned))

    @contextlib.asynccontextmanager
    async def chain(self) -> AsyncIterator[Chain]:
        """Collect operations in the block, and run them in order, as one submission, at its end.

            async with file.chain() as chain:
                chain.pwrite(record, offset)
                chain.fsync(data_only=True)
                chain.pwrite(header, 0)
                chain.fsync(data_only=True)

        Each begins when the one before has succeeded in full. The first error is raised, and none
        behind it ran. An exception in the block runs nothing; nor does a cancellation before it
        ends, and after that the chain runs to its end.
        """
        chain = Chain(self.path, self._file.fd, self._check_aligned)
        yield chain
        with _Using(self):
            await run_chain(self._reactor, chain)

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
                    # The end, or a short read, and what is left is no block: from the page cache,
                    # or, where that is ruled out, from there if the device takes it.
                    if offset + done >= os.fstat(fd).st_size:
                        break
                    fd = fd if self._file.required else self._buffered()
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

    async def _write_side_by_side(self, pieces: list[Piece]) -> UringioError | None:
        """Write what has to be copied or buffered first, COPIES_MAX at a time."""
        failures: list[UringioError] = []
        left = iter(pieces)

        async def write_on() -> None:
            for view, offset in left:
                if failures:
                    return
                try:
                    await self.pwrite(view, offset)
                except UringioError as exc:
                    failures.append(exc)

        async with trio.open_nursery() as nursery:
            for _ in range(min(COPIES_MAX, len(pieces))):
                nursery.start_soon(write_on)
        return failures[0] if failures else None

    async def _write_all(self, fd: int, view: memoryview, offset: int) -> None:
        for start in range(0, len(view), LENGTH_MAX):
            piece = view[start : start + LENGTH_MAX]
            operation = operations.write(fd, piece, offset + start, len(piece))
            while (result := await self._reactor.perform(operation)) != operation.length:
                if result <= 0:
                    raise write_error(operation, result, self.path)
                operation = rest_of_write(operation, result)

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

    def _pieces(self, pairs: Iterable[tuple[Buffer, int]]) -> tuple[list[Piece], list[Piece]]:
        """Tell the pairs that can be written as they are from the others; all are looked at."""
        aligned: list[Piece] = []
        unaligned: list[Piece] = []
        for data, offset in pairs:
            view = memoryview(data).cast("B")
            _check_offset(offset)
            whole = self._is_block(offset, len(view))
            fits = whole and self._is_aligned(view)
            if not whole:
                self._buffered()  # refused now if nothing may go through the page cache
            if len(view):
                (aligned if fits else unaligned).append((view, offset))
        return aligned, unaligned

    def _check_aligned(self, view: memoryview, offset: int) -> None:
        _check_offset(offset)
        if not self._is_block(offset, len(view)) or not self._is_aligned(view):
            raise ValueError(
                f"{self.path} is direct: offset and length must be multiples of "
                f"{self._file.block_bytes}, memory of {self._file.memory_bytes}"
            )

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
        if self._file.required:
            raise ValueError(
                f'{self.path} is open with direct="require": offset and length must be multiples '
                f'of {self._file.block_bytes}; direct="auto" sends the rest through the page cache'
            )
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
