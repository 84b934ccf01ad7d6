"""UringFile: reads and writes at offsets, each awaited by itself, with the caller's own memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._ring.operations import LENGTH_MAX
from uringio._trio.access import FileAccess
from uringio._trio.chain import Chain
from uringio._trio.many import ManyWrites
from uringio._trio.modes import promise_flags
from uringio._trio.replacing import Replacing
from uringio.exceptions import ClosedError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from uringio._trio.modes import FileStatistics
    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.recovery import Recovered
    from uringio._trio.replace_steps import Replaced
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
    `cache` is "direct", or how big writes go through the page cache: "uncached" (and out of it at
    once, from 256 KiB, where the file system can) or "cached"; `statistics` counts what went where.
    `recovered` tells of replaces that a crash broke off and that the open has ended.
    """

    def __init__(
        self,
        reactor: Reactor,
        slots: SlotQueue,
        file: OpenFile,
        recovered: tuple[Recovered, ...] = (),
    ) -> None:
        self._reactor = reactor
        self._access = FileAccess(reactor, slots, file)
        self._call = _Call(self)
        self._calls = 0
        self._unused = trio.lowlevel.ParkingLot()
        self._open = True
        self.path = file.path
        self.direct = file.direct
        self.cache = file.cache
        self.recovered = recovered
        self._replacing = Replacing(reactor, slots, file, self._access.buffered)

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
        return self._access.file.fd

    @property
    def atomic_write_bytes(self) -> tuple[int, int] | None:
        """The shortest and the longest atomic write, in bytes, or None where there is none."""
        return self._access.file.atomic_write_bytes

    def statistics(self) -> FileStatistics:
        """Take a snapshot of how many bytes went which way. Cheap: it copies a few counters."""
        return self._access.statistics()

    async def pwrite(
        self, data: Buffer, offset: int, *, durable: bool = False, atomic: bool = False
    ) -> int:
        """Write all of `data` at `offset`; the result is its length in bytes.

        On return every byte has a completion: written, not durable (see `fsync`). `data` must not
        change before that. Raises `OperationError`; what was written before an error is unknown. A
        cancelled task leaves when the kernel no longer needs the memory.

        `durable` (RWF_DSYNC) makes it durable on return: these bytes, and what is needed to read
        them back (the size, where the blocks are; not the times, not the file's name), are beyond
        the disk's own cache. Nothing is said of other writes. An error is as final as an fsync's:
        do not trust a second try. For many writes at a time one `fsync` behind them costs less.

        `atomic` (RWF_ATOMIC): after a power cut the file has all of `data` or none of it. The
        length must be a power of two within `atomic_write_bytes` and divide the offset, else
        `ValueError`; `UnavailableError` where there is no such thing. It is not durable by itself.
        """
        if not self._open:
            self._check_open()
        self._calls += 1  # and not by _Call: every small write passes here
        try:
            access = self._access
            view = memoryview(data).cast("B")
            flags = promise_flags(durable=durable, atomic=atomic) if durable or atomic else 0
            operation = access.straight(view, offset, flags)
            if operation is None:
                access.check(view, offset, flags)
                await access.write(view, offset, flags)
                return len(view)
            result = await self._reactor.performing(operation)
            length = operation.length
            if result != length:
                await access.finish(operation, result)
            access.count(operation.fd, operation.flags, length)
            return length
        finally:
            self._calls -= 1
            if not self._open:
                self._unused.unpark_all()

    async def pwrite_many(
        self,
        pairs: Iterable[tuple[Buffer, int]],
        *,
        durable: bool = False,
        atomic: bool = False,
    ) -> int:
        """Write many (data, offset) pairs side by side; the result counts bytes.

        In no order: the pairs must not overlap. One task awaits them; up to 256 are in flight, and
        where one ends the next begins, in C. Pairs are taken 1,024 at a time, the next while the
        last are written, so an iterator need not have them all at once; their memory must stay as
        it is until the call returns.

        After an error no more are begun; it is raised when those in flight have ended, and its
        `failures` name every pair that was not written: its number, and its errno (ECANCELED where
        it was not begun). All others were; what an iterator has still is left there and not named.
        What cannot be written (ValueError, TypeError) is found when it is taken: of the first 1,024
        before anything is written, later when those before it are; then, as with an exception of
        the iterator itself, what was taken before is written.
        `durable` and `atomic` are promises of each write, as in `pwrite`.
        """
        with self._call:
            promises = promise_flags(durable=durable, atomic=atomic)
            return await ManyWrites(self._access, pairs, promises).run()

    def chain(self) -> Chain:
        """Collect operations in the block, and run them in order at its end.

            async with file.chain() as chain:
                chain.pwrite(record, offset)
                chain.fsync(data_only=True)
                chain.pwrite(header, 0)
                chain.fsync(data_only=True)

        Each begins when the one before has succeeded in full. The first error is raised, and none
        behind it ran. An exception in the block runs nothing; nor does a cancellation before it
        ends, and after that the chain runs to its end.
        """
        self._check_open()
        return Chain(self._access, self._call)

    async def pread_into(self, data: Buffer, offset: int) -> int:
        """Read into writable memory from `offset`; the result is the length, short at the end."""
        with self._call:
            view = memoryview(data).cast("B")
            if view.readonly:
                raise TypeError("pread_into needs writable memory: a bytearray, an mmap, a slot")
            if offset < 0:
                raise ValueError(f"an offset is 0 or more, not {offset}")
            if not len(view):
                await trio.lowlevel.checkpoint()
                return 0
            access, file = self._access, self._access.file
            straight = access.is_straight(view, offset)
            fd = file.fd if straight else access.buffered()
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
                if straight and result % file.block_bytes:
                    # The end, or a short read, and what is left is no block: from the page cache,
                    # or, where that is ruled out, from there if the device takes it.
                    if offset + done >= os.fstat(fd).st_size:
                        break
                    fd = fd if file.required else access.buffered()
            return done

    async def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes from `offset`; shorter only at the end of the file."""
        data = bytearray(length)
        done = await self.pread_into(data, offset)
        return bytes(data[:done])

    async def replace(self, offset: int, data: Buffer, *, verify: bool = True) -> Replaced:
        """Overwrite the range at `offset` so that a crash leaves its old bytes or its new ones.

        Of any alignment, 1 GiB at the most, and inside the file: it never gets longer. On return
        the new bytes are durable and, with `verify`, were read back from the device and compared by
        CRC32C. `data` must not change before that. Overlapping replaces are ordered, others go side
        by side. A journal of the range's size lies beside the file meanwhile, and the next
        `Ring.open` of the file ends what a crash broke off (see `recovered`): use nothing else on
        the file before. Only for the file's owner or root, and a file of one name.

        Raises `PendingReplaceError` when the range may hold a mixture or its fate is not known (the
        text says which): this object takes no further replace then; close the file and open it
        again. After any other error, and when cancelled, the range holds the old bytes. Not
        cancellable from the moment on that the journal is made durable.
        """
        with self._call:
            view = memoryview(data).cast("B")
            if offset < 0:
                raise ValueError(f"an offset is 0 or more, not {offset}")
            return await self._replacing.replace(offset, view, verify=verify)

    async def fsync(self, *, data_only: bool = False) -> None:
        """Make every write that was awaited before this call durable (fdatasync for `data_only`).

        Writes still in flight are not covered. Raises `OperationError`; do not call it again after
        an error: the kernel has forgotten which pages it lost, and would say 0.
        """
        with self._call:
            result = await self._reactor.perform(
                operations.fsync(self._access.file.fd, data_only=data_only)
            )
            if result < 0:
                raise operation_error(-result, "fsync", self.path)

    async def aclose(self) -> None:
        """Wait for operations in flight, then close. Makes nothing durable. Not cancellable."""
        if not self._open:
            return
        self._open = False
        with trio.CancelScope(shield=True):
            while self._calls:
                await self._unused.park()
            for fd in self._access.descriptors():
                await self._reactor.perform_always(operations.close(fd))

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError(f"{self.path} is closed")


class _Call:
    """Counts a call under way, so that a close waits for it. One for all calls of a file."""

    __slots__ = ("file",)

    def __init__(self, file: UringFile) -> None:
        self.file = file

    def __enter__(self) -> None:
        file = self.file
        file._check_open()  # noqa: SLF001  # UringFile's own other half
        file._calls += 1  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        file = self.file
        file._calls -= 1  # noqa: SLF001
        if not file._open:  # noqa: SLF001
            file._unused.unpark_all()  # noqa: SLF001
