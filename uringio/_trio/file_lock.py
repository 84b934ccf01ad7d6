"""Locks that hold between open files, whichever process they are in, and a fence after a kill.

What the kernel does (fcntl(2), "Open file description locks"; flock(2)): both kinds of lock belong
to the open file description, not to the process. They go when the description does, and that is
when the last user of it lets go: an operation in flight is one. After a SIGKILL, writes that were
in flight still reach the disk, seconds later on a slow one, and until the last of them the lock
stays. So whoever gets the lock knows that nothing of its former owner is on its way any more, for
as long as each write goes through the description that holds the lock of its bytes.

Neither lock can be waited for and be given up again, so a wait asks every few milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

LOCK_POLL_S = 0.005
"""Short against a replace with its fsyncs, long against the 2 us of asking."""

LOCK_WAIT_S = 60.0
"""How long somebody else may hold a lock before a wait for it ends in EBUSY: what a close also
gives the kernel to finish what is in flight."""

FLOCK = struct.Struct("@hhqqi0q")
"""struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for a lock of a description)."""

F_OFD_SETLK = getattr(fcntl, "F_OFD_SETLK", None)
"""Linux only."""

BUSY_HINT = "somebody else holds it: another replace of these bytes, or a lock of fcntl(2)"


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes of a file, and the descriptor through which alone they are written."""

    fd: int
    offset: int
    length: int


@contextlib.asynccontextmanager
async def locked(claims: Sequence[Claim], path: str) -> AsyncIterator[list[Claim]]:
    """Hold all of `claims`, which must not overlap; wait up to LOCK_WAIT_S, or raise EBUSY.

    What is yielded are the claims that are given up in the end: clear it to leave them to the
    descriptor's end.
    """
    held: list[Claim] = []

    def take_all() -> bool:
        for claim in claims:
            if not _set_range(claim, fcntl.F_WRLCK, path):
                release()  # all or none: nobody waits with half of them
                return False
            held.append(claim)
        return True

    def release() -> None:
        while held:
            _set_range(held.pop(), fcntl.F_UNLCK, path)

    try:
        await wait_for(take_all, path, claims[0].offset)
        yield held
    finally:
        release()


async def wait_for(attempt: Callable[[], bool], path: str, offset: int | None = None) -> None:
    """Ask until `attempt` says True, LOCK_WAIT_S at the most: then raise EBUSY."""
    await trio.lowlevel.checkpoint_if_cancelled()
    until = trio.current_time() + LOCK_WAIT_S
    while not attempt():
        if trio.current_time() > until:
            raise operation_error(errno.EBUSY, "lock", path, offset, hint=BUSY_HINT)
        await trio.sleep(LOCK_POLL_S)


def try_flock(fd: int) -> bool:
    """Take the whole file for this description, if nobody has it; it goes with the close."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_range(claim: Claim, kind: int, path: str) -> bool:
    assert F_OFD_SETLK is not None
    record = FLOCK.pack(kind, os.SEEK_SET, claim.offset, claim.length, 0)
    try:
        fcntl.fcntl(claim.fd, F_OFD_SETLK, record)
    except OSError as exc:
        if exc.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        number = exc.errno or errno.EIO
        raise operation_error(number, "lock", path, claim.offset, claim.length) from exc
    return True
