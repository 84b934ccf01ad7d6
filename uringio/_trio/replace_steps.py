"""The steps of one replace, from the journal to its removal. Why they are these: replacing.py."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio
from crc32c import crc32c

from uringio._ring import operations
from uringio._trio.file_lock import try_flock, wait_for
from uringio._trio.opening import open_file
from uringio._trio.pieces import Piece, cut, side_by_side, some_slots, write_steps
from uringio._trio.preallocation import Preallocation
from uringio._trio.publish import Step, run_steps
from uringio._trio.reading_back import open_reader
from uringio._trio.replace_journal import (
    HEADER_BYTES,
    JOURNALS_MAX,
    Record,
    journal_bytes,
    payload_at,
    removal_steps,
)
from uringio.exceptions import (
    OperationError,
    PendingReplaceError,
    TargetExistsError,
    UringioError,
    operation_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringio._ring.increment import Slot
    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.reading_back import Reader
    from uringio._trio.replace_journal import Home
    from uringio._trio.slots import SlotQueue

WILL_COMPLETE = (
    "the new bytes are safe in a journal and the next open of the file writes them; until then the "
    "range may hold old and new bytes mixed"
)
IN_DOUBT = (
    "the range holds the old bytes, but the journal could not be removed for sure: the next open "
    "of the file, or one after a power cut, may yet bring the new ones"
)
DATA_CHANGED = "the data was changed while it was being written"


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a replace did: `length` bytes at `offset` are the new ones, and durable.

    `crc32c` is theirs. `direct` says whether the whole blocks of the range went past the page
    cache (its ends, where they are no whole blocks, never do). `verified`: they were read back and
    compared; `verified_direct`: past the page cache, so it was the device that answered.
    """

    offset: int
    length: int
    crc32c: int
    direct: bool
    verified: bool
    verified_direct: bool


async def run_replace(
    reactor: Reactor,
    slots: SlotQueue,
    file: OpenFile,
    buffered: Callable[[], int],
    home: Home,
    piece: Piece,
    data: memoryview,
    *,
    verify: bool,
) -> Replaced:
    """Replace a range that is locked. Slots and descriptors are all had before the first write.

    Raises `PendingReplaceError` after the point of no return, and any other error before it.
    """
    pieces = list(cut(piece.offset, piece.length, slots.pool.slot_bytes))
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(some_slots(slots, len(pieces)))
        reader = await stack.enter_async_context(open_reader(reactor, file)) if verify else None
        blocks = Preallocation(reactor, file.fd, file.path, piece.end)
        blocks.end = piece.offset
        await blocks.reserve(piece.end)
        name, journal = await _create_journal(reactor, file, home)
        try:
            run = _Replace(reactor, file, buffered, home, name, journal, held, pieces, data)
            await run.write_journal()
            with trio.CancelScope(shield=True):
                await run.finish(reader)
        finally:
            await reactor.perform_always(operations.close(journal.fd))
    direct = reader is not None and reader.file.direct
    return Replaced(
        piece.offset, piece.length, run.crc, file.direct, reader is not None, verified_direct=direct
    )


async def _create_journal(reactor: Reactor, file: OpenFile, home: Home) -> tuple[str, OpenFile]:
    """Create a journal under a number that is free; it is locked, and belongs to the file's owner.

    Raises EBUSY when no number gets free in LOCK_WAIT_S.
    """
    while True:
        for name in map(home.name, range(JOURNALS_MAX)):
            journal = await _try_create(reactor, file, home, name)
            if journal is not None:
                return name, journal
        await wait_for(lambda: len(home.present()) < JOURNALS_MAX, home.path)


async def _try_create(reactor: Reactor, file: OpenFile, home: Home, name: str) -> OpenFile | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    opening = operations.open_at(home.dir_fd, name, flags, 0o600)
    path = home.path_of(name)
    try:
        journal = await open_file(reactor, opening, path, "auto" if file.direct else "never")
    except TargetExistsError:
        return None
    try:
        if try_flock(journal.fd) and os.fstat(journal.fd).st_nlink:
            _give_to_owner(journal.fd, home)
            return journal
    except OSError as exc:
        for removal in (operations.unlink(home.dir_fd, name), operations.close(journal.fd)):
            await reactor.perform_always(removal)
        raise operation_error(exc.errno or errno.EIO, "create", path) from exc
    # An open came between the two calls, took it for torn, and is about to remove it.
    await reactor.perform_always(operations.close(journal.fd))
    return None


def _give_to_owner(fd: int, home: Home) -> None:
    """Give the journal the file's owner and readers: it holds what the file will hold."""
    mode = 0o600 | (home.mode & 0o444)
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (home.owner, home.group):
        try:
            os.fchown(fd, home.owner, home.group)
        except OSError:
            if status.st_uid != home.owner:
                raise
            mode = 0o600  # only the group is another: it gets no right
    os.fchmod(fd, mode)


class _Replace:
    """One replace, from its journal's first byte to its removal."""

    def __init__(
        self,
        reactor: Reactor,
        file: OpenFile,
        buffered: Callable[[], int],
        home: Home,
        name: str,
        journal: OpenFile,
        held: list[Slot],
        pieces: list[Piece],
        data: memoryview,
    ) -> None:
        self._reactor = reactor
        self._file = file
        self._buffered = buffered
        self._home = home
        self._name = name
        self._journal = journal
        self._held = held
        self._pieces = pieces
        self._data = data
        self._offset = pieces[0].offset
        self._crcs: dict[Piece, int] = {}
        self.crc = 0

    async def write_journal(self) -> None:
        """Make the journal durable, or remove it. Can be cancelled until its last chain begins."""
        size = journal_bytes(self._offset, len(self._data))
        blocks = Preallocation(self._reactor, self._journal.fd, self._journal.path, size)
        steps: list[Step] = []
        try:
            await blocks.reserve(size)
            if len(self._pieces) == 1:
                steps.append(self._journal_step(self._held[0], self._pieces[0]))
            else:
                await side_by_side(self._held, iter(self._pieces), self._write_to_journal)
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            # Without a header it is torn: nothing is lost if a power cut brings it back.
            unlink = operations.unlink(self._home.dir_fd, self._name)
            await self._reactor.perform_always(unlink)
            raise
        steps += self._header_steps()
        with trio.CancelScope(shield=True):
            try:
                await run_steps(self._reactor, steps)
            except BaseException as exc:
                if await self._withdraw(exc) or not isinstance(exc, UringioError):
                    raise
                raise self._pending(exc, IN_DOUBT) from exc

    async def finish(self, reader: Reader | None) -> None:
        """Write the range, make it durable, read it back, remove the journal. To be shielded."""
        sync = Step(operations.fsync(self._file.fd, data_only=True), self._file.path)
        try:
            if len(self._pieces) == 1:
                slot, piece = self._held[0], self._pieces[0]
                steps = write_steps(slot, piece, self._file, self._buffered)
                await run_steps(self._reactor, [*steps, sync])
            else:
                await side_by_side(self._held, iter(self._pieces), self._write_to_file)
                await run_steps(self._reactor, [sync])
            if reader is not None:
                compare = partial(self._compare, reader)
                await side_by_side(self._held, iter(self._pieces), compare)
            home = self._home
            await run_steps(self._reactor, removal_steps(home, home.dir_fd, self._name))
        except UringioError as exc:
            raise self._pending(exc, WILL_COMPLETE) from exc

    def _journal_step(self, slot: Slot, piece: Piece) -> Step:
        """Fill a slot and build its write to the journal. Called in the order of the pieces."""
        piece.fill(slot, self._bytes_of(piece))
        memory = piece.memory(slot)
        self._crcs[piece] = crc32c(memory)
        self.crc = crc32c(memory, self.crc)
        write = operations.write(
            self._journal.fd,
            slot.memory[: piece.padded],
            payload_at(self._offset, piece.base),
            piece.padded,
            buffer_index=slot.buffer_index,
        )
        return Step(write, self._journal.path)

    async def _write_to_journal(self, slot: Slot, piece: Piece) -> None:
        await run_steps(self._reactor, [self._journal_step(slot, piece)])

    def _header_steps(self) -> list[Step]:
        record = Record(self._home.identity, self._offset, len(self._data), self.crc)
        page = mmap.mmap(-1, HEADER_BYTES)  # aligned, as a direct write wants it
        page[:] = record.pack()
        return [
            Step(operations.write(self._journal.fd, page, 0, len(page)), self._journal.path),
            Step(operations.fsync(self._journal.fd), self._journal.path),
            Step(operations.fsync(self._home.dir_fd), self._home.directory),
        ]

    async def _write_to_file(self, slot: Slot, piece: Piece) -> None:
        piece.fill(slot, self._bytes_of(piece))
        if crc32c(piece.memory(slot)) != self._crcs[piece]:
            path = self._file.path
            raise operation_error(
                errno.EIO, "replace", path, piece.offset, piece.length, DATA_CHANGED
            )
        await run_steps(self._reactor, write_steps(slot, piece, self._file, self._buffered))

    async def _compare(self, reader: Reader, slot: Slot, piece: Piece) -> None:
        await reader.compare(slot, piece, self._crcs[piece])

    def _bytes_of(self, piece: Piece) -> memoryview:
        start = piece.offset - self._offset
        return self._data[start : start + piece.length]

    async def _withdraw(self, exc: BaseException) -> bool:
        """Remove a journal that may be whole; whether it surely stays away."""
        results = [
            await self._reactor.perform_always(step.operation)
            for step in removal_steps(self._home, self._home.dir_fd, self._name)
        ]
        # An fsync that failed says 0 when it is asked again: that 0 proves nothing.
        known_bad = isinstance(exc, OperationError) and exc.path == self._home.directory
        return not known_bad and not any(results)

    def _pending(self, exc: UringioError, meaning: str) -> PendingReplaceError:
        """Tell the failure, and what the range holds now."""
        if not isinstance(exc, OperationError):
            exc = operation_error(
                errno.EIO, "replace", self._file.path, self._offset, len(self._data), str(exc)
            )
        hint = f"{exc.hint}; {meaning}" if exc.hint else meaning
        number = exc.errno or errno.EIO
        return PendingReplaceError(number, exc.operation, exc.path, exc.offset, exc.length, hint)
