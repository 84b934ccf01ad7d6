"""Replace: a range of an existing file gets new bytes, all of them or none, whatever happens.

A redo journal: the new bytes go to a file beside the target first. An undo journal would have to
read the old ones first, and would take a replace back that had got as far as its last fsync. With
redo nothing is read, the bytes are in memory already, and "begun" and "done" are the same for
recovery: it writes the journal into the range, once or ten times.

The steps, each begun when the one before has succeeded, and what a crash after it leaves:

    lock the range, here and against other processes               old bytes
    reserve the target's blocks, so that no disk fills later       old bytes
    create the journal, reserve it, write the new bytes            old bytes, and a torn journal
    chain: header, fsync(journal), fsync(directory)                old, or new by recovery
    chain: write the range, fdatasync(target)                      new, by recovery
    read back, compare                                             new, by recovery
    chain: unlink(journal), fsync(directory)                       new
    unlock

Which call makes which promise:
- fsync(journal): its bytes are there. No order between header and payload is asked for: two CRC32C
  tell a whole journal from a torn one, which is a replace that never happened.
- fsync(directory), the first: the journal is found again. Only then is the target touched. This is
  the point of no return; from here on nothing is cancelled.
- fdatasync(target): the range holds the new bytes without the journal. Its size does not change.
- fsync(directory), the second: the journal stays away. Without it a power cut could bring it back
  after the caller has written the range anew, and recovery would undo that.

The journal holds the exact range, not its blocks: recovery must not bring back a neighbour's bytes
that somebody has written since. For the same reason the ends of the range that are no whole blocks
go through the page cache (see pieces.py), where the kernel changes these bytes and no other.

When an operation fails before the point of no return, the journal is removed, and that is made
durable: the file holds the old bytes. If that cannot be done, or the directory's fsync was what
failed (it is never asked again, for it would say a false 0), the old bytes are there but a power
cut may bring the new ones. After the point of no return the journal stays. Both are a
`PendingReplaceError`, which says which, and the file object takes no replace any more: opening the
file again completes what the journal holds. That writes the bytes again before it asks for an
fsync, so it is no second try of the fsync that failed. A read-back that differs is such a failure.

Several replaces: in one file object, those that overlap wait in line (range_lock.py) and the others
go side by side. Between file objects and processes the same bytes are held by locks of fcntl(2)
(file_lock.py), in no order of arrival. Each piece is written through the descriptor that holds its
lock, so a lock that was had after a kill means that no old write is on its way. Journals of one
file therefore never overlap, and recovery may take them in any order.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import trio

from uringio._trio.file_lock import F_OFD_SETLK, Claim, locked
from uringio._trio.pieces import Piece, parts
from uringio._trio.range_lock import RangeLock
from uringio._trio.recovery import has_abandoned, recover
from uringio._trio.replace_journal import JOURNALS_MAX, REPLACE_BYTES_MAX, find_home
from uringio._trio.replace_steps import Replaced, run_replace
from uringio.exceptions import PendingReplaceError, UnavailableError, operation_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringio._trio.opening import OpenFile
    from uringio._trio.reactor import Reactor
    from uringio._trio.replace_journal import Home
    from uringio._trio.slots import SlotQueue

ATTEMPTS_MAX = 8
"""How often one replace ends others that were broken off beside it, before it gives up: each time
another process has to be killed in the middle of its own."""

NOT_HERE = (
    "replace keeps a journal beside the file, so the file needs a name in a directory that this "
    "process can write, and a file system that keeps a time of birth (statx(2)), on Linux"
)


class Replacing:
    """The replaces of one file object. `buffered` opens its descriptor through the page cache."""

    def __init__(
        self, reactor: Reactor, slots: SlotQueue, file: OpenFile, buffered: Callable[[], int]
    ) -> None:
        self._reactor = reactor
        self._slots = slots
        self._file = file
        self._buffered = buffered
        self._ranges = RangeLock()
        self._journals = trio.Semaphore(JOURNALS_MAX)
        self._failure: PendingReplaceError | None = None

    async def replace(self, offset: int, data: memoryview, *, verify: bool) -> Replaced:
        """Replace a range; see `UringFile.replace`."""
        piece = Piece(offset, len(data))
        self._check(piece)
        if not piece.length:
            await trio.lowlevel.checkpoint()
            return Replaced(offset, 0, 0, self._file.direct, verified=False, verified_direct=False)
        async with self._ranges.hold(piece.offset, piece.end), self._journals:
            self._check(piece)  # it may have broken, or been cut, while this one waited
            home = find_home(self._file.fd, self._file.path, to_write=True)
            if home is None:
                raise UnavailableError(f"{self._file.path}: {NOT_HERE}")
            try:
                self._check_home(home)
                return await self._replace(home, piece, data, verify=verify)
            finally:
                os.close(home.dir_fd)

    async def _replace(
        self, home: Home, piece: Piece, data: memoryview, *, verify: bool
    ) -> Replaced:
        """Lock the range, make sure that no old journal is left for it, and replace it."""
        claims = [
            Claim(fd, part.offset, part.length)
            for fd, part in parts(piece, self._file, self._buffered)
        ]
        for _ in range(ATTEMPTS_MAX):
            async with locked(claims, home.path) as held:
                # A journal that a process left after this file was opened: were it completed later,
                # it would undo what is written now.
                if not has_abandoned(home):
                    try:
                        return await run_replace(
                            self._reactor, self._slots, self._file, self._buffered, home,
                            piece, data, verify=verify,
                        )  # fmt: skip
                    except PendingReplaceError as exc:
                        self._failure = exc
                        if self._reactor.gave_up:
                            held.clear()  # what is in flight keeps its lock to the end
                        raise
            await recover(self._reactor, self._slots, self._file, home, wait=False)
        raise operation_error(errno.EBUSY, "replace", home.path, piece.offset, piece.length)

    def _check(self, piece: Piece) -> None:
        """Refuse what cannot be done before anything is."""
        path = self._file.path
        if self._failure is not None:
            raise self._failure.again()
        if piece.length > REPLACE_BYTES_MAX:
            raise ValueError(f"one replace is {REPLACE_BYTES_MAX} bytes at the most: do several")
        size = os.fstat(self._file.fd).st_size
        if piece.end > size:
            raise ValueError(
                f"{path} has {size} bytes and the range ends at {piece.end}: replace never makes a "
                "file longer"
            )
        if fcntl.fcntl(self._file.fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            hint = 'open it with mode "r+"'
            raise operation_error(errno.EBADF, "replace", path, piece.offset, piece.length, hint)
        for _ in parts(piece, self._file, self._buffered):
            continue  # opens what it needs: refused now if nothing may go through the page cache

    def _check_home(self, home: Home) -> None:
        """Refuse a file whose journal might not be found or believed later."""
        if F_OFD_SETLK is None:
            raise UnavailableError(f"{home.path}: {NOT_HERE}")
        links = os.fstat(self._file.fd).st_nlink
        if links != 1 or mount_of(self._file.fd) != mount_of(home.dir_fd):
            raise UnavailableError(
                f"{home.path} has {links} names or is a mount point: who opens it elsewhere would "
                "not find the journal"
            )
        if os.geteuid() not in {0, home.owner}:
            hint = "only the owner of a file can replace: a journal of anybody else is not believed"
            raise operation_error(errno.EPERM, "replace", home.path, hint=hint)


def mount_of(fd: int) -> str:
    """Tell the number of the mount that a descriptor was opened through (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        return next((line for line in lines if line.startswith("mnt_id:")), "")
