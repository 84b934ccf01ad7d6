"""Ring: what `open_ring` gives, and where files are created and opened."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Literal

from uringio._ring import operations
from uringio._ring.choose import choose_ring
from uringio._ring.increment import HUGE_PAGE_BYTES
from uringio._ring.pool import (
    SLOT_BYTES_DEFAULT,
    SLOTS_DEFAULT,
    SLOTS_MIN,
    BufferPool,
    default_slots,
)
from uringio._ring.sizing import suggest
from uringio._trio.file import MODES, UringFile
from uringio._trio.growth import Growth
from uringio._trio.opening import AT_FDCWD, Direct, open_directory, open_file
from uringio._trio.publish import Place
from uringio._trio.reactor import Reactor
from uringio._trio.recovery import recover_opened
from uringio._trio.slots import SlotQueue
from uringio._trio.statistics import snapshot
from uringio._trio.writer import BulkWriter, Receipt
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from typing_extensions import Buffer

    from uringio._ring.features import RingFeatures
    from uringio._ring.ring import RingLike
    from uringio._trio.modes import Cache
    from uringio._trio.statistics import RingStatistics

TEMPORARY_PREFIX = ".uringio-"
"""An unfinished file is `.uringio-` and 16 hex digits, beside its target. After a crash of the
machine such files may be left; nobody writes to them any more and they can be deleted."""

ENTRIES_DEFAULT = 256
"""Queue depth: eight times the default pool, so that only tasks of their own fill it."""


class Ring:
    """A ring, its reactor and its pool. Made by `open_ring`."""

    def __init__(self, reactor: Reactor, slots: SlotQueue) -> None:
        self.reactor = reactor
        self.slots = slots
        self._files: Counter[Cache] = Counter()

    @property
    def features(self) -> RingFeatures:
        """What this ring is made of, and what it could not get."""
        return self.reactor.ring.features

    def statistics(self) -> RingStatistics:
        """Take a snapshot. It copies every histogram, in less than 0.1 ms."""
        return snapshot(self.reactor, self.slots, self._files)

    @contextlib.asynccontextmanager
    async def create(
        self,
        path: str | os.PathLike[str],
        size: int | None = None,
        *,
        overwrite: bool = False,
        direct: Direct = "auto",
        mode: int = 0o666,
    ) -> AsyncIterator[BulkWriter]:
        """Write a new file that appears whole, at `commit`, or not at all.

        `size` in bytes, when it is known, is reserved at once, so that a full disk is known before
        the first write. Without `overwrite` an existing name is a `TargetExistsError`, now or at
        commit. `direct` is "auto" (past the page cache where the file system offers it; else
        through it without staying there, RWF_DONTCACHE, where that is offered and slots are at
        least 256 KiB), "require" (or `UnavailableError`) or "never" (the bytes stay in the page
        cache, for who reads them soon). `BulkWriter.cache` and the receipt say which it was.
        `mode` is reduced by the umask.
        Leaving without commit removes everything, also when cancelled.
        """
        if size is not None and size < 0:
            raise ValueError(f"size is 0 or more bytes, not {size}")
        path = os.fspath(path)
        directory, name = os.path.split(path)
        if not name:
            raise ValueError(f"{path!r} names no file")
        dir_fd = await open_directory(self.reactor, directory)
        try:
            if _exists(dir_fd, name, path) and not overwrite:
                raise operation_error(errno.EEXIST, "create", path)
            temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            opening = operations.open_at(dir_fd, temporary, flags, mode)
            try:
                file = await open_file(self.reactor, opening, path, direct)
            except BaseException:
                await self.reactor.perform_always(operations.unlink(dir_fd, temporary))
                raise
        except BaseException:
            await self.reactor.perform_always(operations.close(dir_fd))
            raise
        writer = BulkWriter(
            self.reactor,
            self.slots,
            file,
            Place(dir_fd, temporary, path),
            Place(dir_fd, name, path),
            size=size,
            overwrite=overwrite,
        )
        self._files[writer.cache] += 1
        async with writer:
            yield writer

    async def open(
        self,
        path: str | os.PathLike[str],
        mode: Literal["r", "r+", "w+", "x+"] = "r",
        *,
        direct: Direct = "auto",
        permissions: int = 0o666,
    ) -> UringFile:
        """Open a file for reads and writes at offsets; `mode` as in `open()`, `direct` in `create`.

        `permissions` of a file that is created are reduced by the umask. Close it, or use it with
        `async with`. A `UringFile.replace` that a crash broke off is completed first, also for "r";
        what cannot be completed is a `PendingReplaceError`. One that is under way in another open
        file is waited for, 60 s at the most.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        path = os.fspath(path)
        opening = operations.open_at(AT_FDCWD, path, MODES[mode], permissions)
        file = await open_file(self.reactor, opening, path, direct)
        recovered = await recover_opened(self.reactor, self.slots, file)
        self._files[file.cache] += 1
        return UringFile(self.reactor, self.slots, file, recovered)


@contextlib.asynccontextmanager
async def open_ring(
    slots: int | None = None,
    slot_bytes: int | None = None,
    *,
    slots_max: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    entries: int = ENTRIES_DEFAULT,
    backend: Literal["auto", "io_uring", "threads"] = "auto",
) -> AsyncIterator[Ring]:
    """Open a ring with a pool of `slots` slots of `slot_bytes` bytes, inside a trio run.

    `slot_bytes` is a multiple of the page from 4 KiB to 16 MiB. What is not given is chosen: for
    the device below `directory` where one is named (`Ring.features.sizes` says what and why, and
    OSError that there is none), else 16 slots of 1 MiB; without `slots`, no more than
    RLIMIT_MEMLOCK lets this user register.

    With `slots_max` the pool grows up to so many while tasks wait for a slot for longer than 20 ms,
    8 MiB or one slot at a time, and gives back what was spare for 5 s; what could not be registered
    is used unregistered, and what could not be had at all ends the growth: `Ring.features` says
    either. `entries` is the queue depth. `backend` "auto" takes io_uring, or threads where there is
    none (and says so in `Ring.features`); "io_uring" raises `UnavailableError` instead, with the
    reason and the mend. Leaving waits for what is in flight (60 s at the most), whatever happened,
    then frees it all.
    """
    sizes = None if directory is None else suggest(directory)
    if slot_bytes is None:
        slot_bytes = SLOT_BYTES_DEFAULT if sizes is None else sizes.slot_bytes
    if slots is None:
        slots = default_slots(slot_bytes, SLOTS_DEFAULT if sizes is None else sizes.slots)
        slots = slots if slots_max is None else max(SLOTS_MIN, min(slots, slots_max))
    raw = choose_ring(backend, entries)
    if sizes is not None:
        chosen = f"{sizes.slots} slots of {sizes.slot_bytes} bytes suggested for {sizes.reason}"
        raw.features.sizes = chosen
    async with run_ring(raw, slots, slot_bytes, slots_max) as ring:
        yield ring


@contextlib.asynccontextmanager
async def run_ring(
    raw: RingLike,
    slots: int | None = None,
    slot_bytes: int = SLOT_BYTES_DEFAULT,
    slots_max: int | None = None,
) -> AsyncIterator[Ring]:
    """As `open_ring`, for a ring that was made before: a simulated one, for example. Closes it."""
    try:
        count = default_slots(slot_bytes) if slots is None else slots
        pool = BufferPool(count, slot_bytes, slots_max)
    except BaseException:
        raw.close()
        raise
    raw.register(pool)
    features = raw.features
    features.slots, features.slots_max = len(pool), pool.slots_max
    features.slot_bytes = slot_bytes
    features.huge_pages = pool.has_huge_pages()
    if not features.huge_pages:
        small = len(pool) * slot_bytes < HUGE_PAGE_BYTES
        why = "it is smaller than one" if small else "transparent_hugepage is off or used up"
        features.note(f"the pool has no huge pages ({why})")
    reactor, queue = Reactor(raw), SlotQueue(pool)
    growth = Growth(reactor, queue)
    reactor.open()
    if pool.slots_max > pool.slots_min:
        growth.open()
    try:
        yield Ring(reactor, queue)
    finally:
        if pool.slots_max > pool.slots_min:
            await growth.aclose()
        if await reactor.aclose():
            raw.close()
            pool.close()
        else:
            reactor.keep(pool)


async def write_file(
    path: str | os.PathLike[str], data: Buffer, *, overwrite: bool = False
) -> Receipt:
    """Write `data` to a new file, durable and published on return: the one-liner."""
    view = memoryview(data).cast("B")
    async with open_ring() as ring, ring.create(path, len(view), overwrite=overwrite) as writer:
        await writer.write(view)
        return await writer.commit()


def _exists(dir_fd: int, name: str, path: str) -> bool:
    """Look for a name; one that could never be given (ENAMETOOLONG) is found out here, early."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise operation_error(exc.errno or errno.EIO, "create", path) from exc
    return True
