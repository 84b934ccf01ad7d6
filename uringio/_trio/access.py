"""How the bytes of one open file get to the disk and back: which way each write goes.

Straight from the caller's memory where offset, length and memory suit the file; by a copy in a
slot where only the memory does not; else through the page cache, by a second descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from uringio._ring import libc
from uringio._ring.operations import LENGTH_MAX, RWF_ATOMIC, RWF_DONTCACHE, WRITE, Operation
from uringio._ring.short_writes import rest_of_write, write_error
from uringio._trio.carried import CARRIERS, IN_FLIGHT_MIN
from uringio._trio.modes import FileStatistics, buffered_flags, check_atomic
from uringio._trio.opening import takes_uncached
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

_address_of, _one_byte = ctypes.addressof, ctypes.c_char.from_buffer


class FileAccess:
    """The ways to the disk of one open file, and how many bytes went each of them."""

    def __init__(self, reactor: Reactor, slots: SlotQueue, file: OpenFile) -> None:
        self.reactor = reactor
        self.slots = slots
        self.file = file
        self._fd = file.fd
        self._block_mask = file.block_bytes - 1
        self._memory_mask = file.memory_bytes - 1
        self._buffered_fd = -1
        self._uncached = file.uncached
        self._direct_fd = file.fd if file.direct else -1
        self._direct_bytes = self._uncached_bytes = self._cached_bytes = 0
        self._copied_bytes = 0

    def descriptors(self) -> list[int]:
        """List what is open and has to be closed."""
        return [fd for fd in (self.file.fd, self._buffered_fd) if fd >= 0]

    def statistics(self) -> FileStatistics:
        """Take a snapshot."""
        return FileStatistics(
            direct_bytes=self._direct_bytes,
            uncached_bytes=self._uncached_bytes,
            cached_bytes=self._cached_bytes,
            copied_bytes=self._copied_bytes,
        )

    @property
    def carries_fsyncs(self) -> bool:
        """Whether a write is to carry the fsync behind it, as things are now (carried.py)."""
        durable = self.reactor.counters.is_durable
        if self.reactor.in_flight < IN_FLIGHT_MIN or not self._carrier:
            return False
        return all(durable(fd) for fd in self.descriptors())

    @cached_property
    def _carrier(self) -> bool:
        return self.file.direct and libc.file_system_type(self.file.fd) in CARRIERS

    def check(self, view: memoryview, offset: int, flags: int) -> None:
        """Refuse what cannot be written as asked, before any of it is."""
        if offset < 0:
            raise ValueError(f"an offset is 0 or more, not {offset}")
        if flags & RWF_ATOMIC and len(view):
            check_atomic(self.file, offset, len(view))
            if not self.is_aligned(view) and len(view) > self.slots.pool.slot_bytes:
                raise ValueError(
                    f"{self.file.path}: an atomic write of {len(view)} bytes needs memory aligned "
                    f"to {self.file.memory_bytes}; {self.slots.pool.slot_bytes} would fit a slot"
                )
        if not self.is_block(offset, len(view)):
            self.buffered()  # refused now if nothing may go through the page cache

    def is_block(self, offset: int, length: int) -> bool:
        """Whether offset and length suit the descriptor."""
        return not (offset | length) & self._block_mask

    def is_aligned(self, view: memoryview) -> bool:
        """Whether the memory suits the descriptor."""
        if not self._memory_mask:
            return True
        if view.readonly:
            return False  # bytes objects start 32 bytes into their allocation
        return not _address_of(_one_byte(view)) & self._memory_mask

    def is_straight(self, view: memoryview, offset: int) -> bool:
        """Whether the view can be written as it is."""
        return self.is_block(offset, len(view)) and self.is_aligned(view)

    def straight(self, view: memoryview, offset: int, flags: int) -> Operation | None:
        """Make the one operation that writes a view as it is, or None if it takes more than that.

        Every small write passes here: what can be left out is.
        """
        length = len(view)
        address = 0
        if (
            (offset | length) & self._block_mask
            or offset < 0
            or not 0 < length <= LENGTH_MAX
            or flags & RWF_ATOMIC
        ):
            return None
        if self._memory_mask:
            if view.readonly:
                return None
            address = _address_of(_one_byte(view))
            if address & self._memory_mask:
                return None
        elif self.file.uncached:
            flags |= buffered_flags(length, uncached=True)
        return Operation(WRITE, self._fd, offset, length, view, -1, flags, address)

    def straight_flags(self, length: int, flags: int) -> int:
        """Tell the flags of writes that go straight, `length` bytes or longer."""
        return flags | buffered_flags(length, uncached=self.file.uncached)

    async def write(self, view: memoryview, offset: int, flags: int) -> None:
        """Write all of a view; `flags` are its promises (see modes.py)."""
        if not len(view):
            await trio.lowlevel.checkpoint()
        elif not self.is_block(offset, len(view)):
            fd = self.buffered()
            flags |= buffered_flags(len(view), uncached=self._uncached)
            await self._write_all(fd, view, offset, flags)
        elif self.is_aligned(view):
            flags = self.straight_flags(len(view), flags)
            await self._write_all(self.file.fd, view, offset, flags)
        else:
            await self._write_copied(view, offset, flags)

    async def finish(self, operation: Operation, result: int) -> None:
        """Write what is left after a result, or raise the error that stopped it."""
        while result != operation.length:
            rest = rest_of_write(operation, result)
            if rest is None:
                raise write_error(operation, result, self.file.path)
            operation = rest
            result = await self.reactor.perform(operation)

    def count(self, fd: int, flags: int, length: int) -> None:
        """Count bytes that were written."""
        if fd == self._direct_fd:
            self._direct_bytes += length
        elif flags & RWF_DONTCACHE:
            self._uncached_bytes += length
        else:
            self._cached_bytes += length

    async def _write_all(self, fd: int, view: memoryview, offset: int, flags: int) -> None:
        for start in range(0, len(view), LENGTH_MAX):
            piece = view[start : start + LENGTH_MAX] if len(view) > LENGTH_MAX else view
            length = len(piece)
            operation = Operation(WRITE, fd, offset + start, length, piece, -1, flags)
            result = await self.reactor.perform(operation)
            if result != length:
                await self.finish(operation, result)
        self.count(fd, flags, len(view))

    async def _write_copied(self, view: memoryview, offset: int, flags: int) -> None:
        slot_bytes = self.slots.pool.slot_bytes
        for start in range(0, len(view), slot_bytes):
            slot = await self.slots.acquire()
            try:
                piece = view[start : start + slot_bytes]
                memory = slot.memory[: len(piece)]
                memory[:] = piece
                await self._write_all(self.file.fd, memory, offset + start, flags)
                self._copied_bytes += len(piece)
            finally:
                self.slots.release(slot)

    def buffered(self) -> int:
        """Open a second descriptor through the page cache, for what is not whole blocks.

        The kernel writes dirty pages back before a direct access to the same range, so the two
        agree; fsync of one covers both, for it is the same file.
        """
        file = self.file
        if not file.direct:
            return file.fd
        if file.required:
            raise ValueError(
                f'{file.path} is open with direct="require": offset and length must be multiples '
                f'of {file.block_bytes}; direct="auto" sends the rest through the page cache'
            )
        if self._buffered_fd < 0:
            access = fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_ACCMODE
            path = f"/proc/self/fd/{file.fd}"
            try:
                self._buffered_fd = os.open(path, access | os.O_CLOEXEC)
            except OSError as exc:
                raise operation_error(exc.errno or errno.EIO, "open", file.path) from exc
            self._uncached = takes_uncached(self._buffered_fd)
        return self._buffered_fd
