"""Recovery: an open looks for journals of its file and ends the replaces that they stand for.

A journal is locked by whoever works with it (flock(2)) until nothing of that is in flight:
- locked: a replace is under way, or its process was killed and the kernel is not done. An open
  waits for it, since it cannot tell one from the other.
- not locked: abandoned. A whole one is written into the range, made durable, read back, and
  removed. A torn one is a replace that never touched its file: it is removed.
- of another file or another owner: left alone, and reported.

A kill leaves the page cache, and in it a journal that may be whole there and nowhere else: its
process may not have come to its fsyncs, or have heard that one of them failed. So it is read from
the disk (page_cache.py), and it is made durable, with its name, before the first byte of the range
is written. Else a power cut would find the range mixed, and no journal.

A file that was cut shorter after the crash is not made longer: what is left of the range is
written, as if the replace had come before the cut.

Everything here may be broken off anywhere, by a kill or a cancel, and done again from the start:
the journal goes last. An open for reading recovers too, for it could not read the file otherwise;
where it may not, it is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from crc32c import crc32c

from uringio._ring import operations
from uringio._ring.page_cache import forget_clean_pages
from uringio._trio.file_lock import Claim, locked, try_flock, wait_for
from uringio._trio.opening import OpenFile
from uringio._trio.pieces import Piece, cut, read_whole, write_steps
from uringio._trio.publish import Step, run_steps
from uringio._trio.reading_back import open_reader
from uringio._trio.replace_journal import (
    HEADER_BYTES,
    Record,
    find_home,
    payload_at,
    removal_steps,
)
from uringio.exceptions import OperationError, PendingReplaceError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uringio._ring.increment import Slot
    from uringio._trio.reactor import Reactor
    from uringio._trio.replace_journal import Home
    from uringio._trio.slots import SlotQueue

Outcome = Literal["completed", "torn", "foreign"]

REFUSED = (
    "a replace of this file was broken off and could not be completed: open it again as its owner, "
    "on a disk that works"
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an open found beside its file, and did about it.

    "completed": the `length` bytes at `offset` are the new ones now. "torn": the replace had not
    begun, the range is as it was, the journal is removed. "foreign": the journal is not this
    file's, or not by its owner, and was left alone.
    """

    journal: str
    outcome: Outcome
    offset: int | None = None
    length: int | None = None


async def recover_opened(
    reactor: Reactor, slots: SlotQueue, file: OpenFile
) -> tuple[Recovered, ...]:
    """Recover a file that was just opened. Raises `PendingReplaceError`, and closes it then."""
    try:
        home = find_home(file.fd, file.path, to_write=False)
        if home is None:
            return ()
        try:
            return await recover(reactor, slots, file, home, wait=True)
        finally:
            os.close(home.dir_fd)
    except BaseException:
        await reactor.perform_always(operations.close(file.fd))
        raise


def has_abandoned(home: Home) -> bool:
    """Whether there is a journal that nobody works with, and that is not foreign.

    An empty one does not count: it may have been created this moment and not be locked yet, and it
    is torn otherwise.
    """
    for name in home.present():
        with _opened(home, name) as journal:
            if journal is not None and journal.is_abandoned():
                record = journal.header()
                if record is None or record.identity == home.identity:
                    return True
    return False


async def recover(
    reactor: Reactor, slots: SlotQueue, file: OpenFile, home: Home, *, wait: bool
) -> tuple[Recovered, ...]:
    """Settle every abandoned journal; with `wait` also those that are locked now."""
    found = []
    for name in home.present():
        with _opened(home, name) as journal:
            if journal is None:
                continue
            if not journal.ours:
                found.append(Recovered(name, "foreign"))
                continue
            if wait:
                await wait_for(partial(try_flock, journal.fd), home.path)
            elif not try_flock(journal.fd):
                continue
            if journal.there():
                found.append(await _settle(reactor, slots, file, journal))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal that is open for reading; one that is not `ours` is not opened."""

    home: Home
    name: str
    fd: int = -1
    ours: bool = False

    @property
    def path(self) -> str:
        return self.home.path_of(self.name)

    def there(self) -> bool:
        """Whether it still has its name: who held the lock before may have removed it."""
        return os.fstat(self.fd).st_nlink > 0

    def is_abandoned(self) -> bool:
        """Whether it is ours, has something in it, and nobody works with it."""
        if not self.ours or not try_flock(self.fd):
            return False
        return self.there() and os.fstat(self.fd).st_size > 0

    def header(self) -> Record | None:
        try:
            block = os.pread(self.fd, HEADER_BYTES, 0)
        except OSError as exc:
            raise _refused(operation_error(exc.errno or errno.EIO, "read", self.path)) from exc
        return Record.unpack(block, self.path)


@contextlib.contextmanager
def _opened(home: Home, name: str) -> Iterator[_Journal | None]:
    """Open a journal; None when it has gone meanwhile."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = -1
    journal: _Journal | None = _Journal(home, name)
    try:
        if home.is_ours(os.stat(name, dir_fd=home.dir_fd, follow_symlinks=False)):
            fd = os.open(name, flags, dir_fd=home.dir_fd)
            journal = _Journal(home, name, fd, home.is_ours(os.fstat(fd)))
            forget_clean_pages(fd)
    except FileNotFoundError:
        journal = None
    except OSError as exc:
        error = operation_error(exc.errno or errno.EIO, "open", home.path_of(name))
        raise _refused(error) from exc
    try:
        yield journal
    finally:
        if fd >= 0:
            os.close(fd)


async def _settle(
    reactor: Reactor, slots: SlotQueue, file: OpenFile, journal: _Journal
) -> Recovered:
    record = journal.header()
    if record is not None and record.identity != journal.home.identity:
        return Recovered(journal.name, "foreign", record.offset, record.length)
    slot = await slots.acquire()
    try:
        if record is None or not await _is_whole(reactor, slot, journal, record):
            with contextlib.suppress(OperationError):  # in nobody's way but that of a number
                await _remove(reactor, journal)
            return Recovered(journal.name, "torn")
        await _make_durable(reactor, journal)
        await _complete(reactor, slot, file, journal, record)
    except OperationError as exc:
        raise _refused(exc) from exc
    finally:
        slots.release(slot)
    return Recovered(journal.name, "completed", record.offset, record.length)


async def _is_whole(reactor: Reactor, slot: Slot, journal: _Journal, record: Record) -> bool:
    """Whether every byte of the payload is there. All are looked at before one is written."""
    crc = 0
    for piece in cut(record.offset, record.length, len(slot.memory)):
        if not await _read_piece(reactor, slot, journal, record, piece):
            return False
        crc = crc32c(piece.memory(slot), crc)
    return crc == record.crc32c


async def _make_durable(reactor: Reactor, journal: _Journal) -> None:
    """Make a journal durable, and its name."""
    with _directory(journal.home) as dir_fd:
        syncs = (journal.fd, journal.path), (dir_fd, journal.home.directory)
        await run_steps(reactor, [Step(operations.fsync(fd), path) for fd, path in syncs])


async def _complete(
    reactor: Reactor, slot: Slot, file: OpenFile, journal: _Journal, record: Record
) -> None:
    """Write the new bytes, through the page cache: it is rare, and of any alignment.

    By a description of its own, because the caller's may be for reading only.
    """
    try:
        fd = os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise operation_error(exc.errno or errno.EIO, "open", file.path) from exc
    target = OpenFile(fd, file.path, direct=False, block_bytes=1, memory_bytes=1)
    try:
        async with (
            locked([Claim(fd, record.offset, record.length)], file.path),
            open_reader(reactor, target) as reader,
        ):
            end = os.fstat(fd).st_size
            written: list[tuple[Piece, int]] = []
            for piece in cut(record.offset, record.length, len(slot.memory)):
                if piece.offset >= end:
                    break
                await _read_piece(reactor, slot, journal, record, piece)
                kept = Piece(piece.offset, min(piece.end, end) - piece.offset)
                await run_steps(reactor, write_steps(slot, kept, target, lambda: fd))
                written.append((kept, crc32c(kept.memory(slot))))
            await run_steps(reactor, [Step(operations.fsync(fd, data_only=True), file.path)])
            for piece, crc in written:
                await reader.compare(slot, piece, crc)
            await _remove(reactor, journal)
    finally:
        await reactor.perform_always(operations.close(fd))


async def _read_piece(
    reactor: Reactor, slot: Slot, journal: _Journal, record: Record, piece: Piece
) -> bool:
    """Read a piece of the payload into a slot; False when the journal ends before it does."""
    memory, needed = slot.memory[: piece.padded], piece.end - piece.base
    at = payload_at(record.offset, piece.base)
    return await read_whole(reactor, journal.fd, journal.path, memory, at, needed) >= needed


async def _remove(reactor: Reactor, journal: _Journal) -> None:
    """Remove a journal, and see to it that it stays away."""
    with _directory(journal.home) as dir_fd:
        await run_steps(reactor, removal_steps(journal.home, dir_fd, journal.name))


@contextlib.contextmanager
def _directory(home: Home) -> Iterator[int]:
    """Open the directory of journals: what is held of it may be a path, which has no fsync."""
    try:
        dir_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home.dir_fd)
    except OSError as exc:
        number = exc.errno or errno.EIO
        raise operation_error(number, "open", home.directory) from exc
    try:
        yield dir_fd
    finally:
        os.close(dir_fd)


def _refused(exc: OperationError) -> PendingReplaceError:
    number = exc.errno or errno.EIO
    hint = f"{exc.hint}; {REFUSED}" if exc.hint else REFUSED
    return PendingReplaceError(number, exc.operation, exc.path, exc.offset, exc.length, hint)
