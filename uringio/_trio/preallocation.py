"""Reserve a file's blocks ahead of the writes.

What the disk does (ext4, XFS): writes into blocks that fallocate(2) has reserved run side by side
and at the speed of an overwrite; writes that make the file grow take the inode's lock one by one,
at a third of the speed. So a file of known size is reserved whole, before its first write: a full
disk is then known at once. A file of unknown size grows by doubling steps, and what was too much is
given back when it is cut to size. A reservation waits for the writes in flight, so the steps are
few. Whatever became of a reservation, the file is cut to its true size at the end.

Who asks ext4 for more than there is gets an error, but not at once: it takes block after block
until none is left to anybody, and others fail for want of one meanwhile. So what cannot fit is not
asked for.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING

from uringio._ring import operations
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from uringio._trio.reactor import Reactor

STEP_BYTES_MIN = 64 << 20
"""20 to 100 ms of writing: long against the stall of a reservation, short on a small disk."""
STEP_BYTES_MAX = 1 << 30
"""At most this much is held for a file that never grows into it."""

NOT_SUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
STAT_BLOCK_BYTES = 512
"""What st_blocks counts in (stat(2))."""
INTERRUPTED_MAX = 16
"""EINTRs in a row before a reservation gives up: a signal interrupts it, and it starts over."""


class Preallocation:
    """Keeps the reserved end of one file ahead of its writes. All values are in bytes."""

    def __init__(self, reactor: Reactor, fd: int, path: str, size: int | None) -> None:
        self._reactor = reactor
        self._fd = fd
        self._path = path
        self._size = size
        self._step = STEP_BYTES_MIN
        self.end = 0
        # How long the file may have become. A reservation that fails or is cancelled can have done
        # a part, and ext4 has moved the size over it by then.
        self.reached = 0
        self.supported = True

    def wish(self, end: int) -> int:
        """Say how far `reserve(end)` goes if nothing is in its way."""
        if not self.supported or end <= self.end:
            return end
        if self._size is not None and self._size > self.end:
            return self._size
        return max(self.end + self._step, end)

    async def reserve(self, end: int, end_max: int | None = None) -> None:
        """Make sure that blocks are reserved up to `end`; the whole file, if its size is known.

        Of a file of unknown size no block is reserved beyond `end_max`, which is no less than
        `end`. Raises `NoSpaceError` when the disk or the quota is too small. Where the file system
        cannot reserve, `supported` becomes False and writes go on without.
        """
        assert end_max is None or end_max >= end, "what is needed is more than what may be had"
        while self.supported and end > self.end:
            whole = self._size is not None and self._size > self.end
            wanted = self.wish(end) - self.end
            if end_max is not None and not whole:
                wanted = min(wanted, end_max - self.end)
            result = await self._fallocate(wanted)
            if result >= 0:
                self.end += wanted
                self._step = min(self._step * 2, STEP_BYTES_MAX)
            elif -result in NOT_SUPPORTED:
                self.supported = False
            elif -result in NO_SPACE and not whole and wanted > end - self.end:
                # The step was a guess; what is needed now may still fit.
                self._step = max(wanted // 2, end - self.end)
            else:
                raise operation_error(-result, "fallocate", self._path, self.end, wanted)

    async def _fallocate(self, length: int) -> int:
        if length > self._room_bytes():
            return -errno.ENOSPC
        self.reached = max(self.reached, self.end + length)
        for _ in range(INTERRUPTED_MAX):
            operation = operations.fallocate(self._fd, self.end, length)
            result = await self._reactor.perform(operation)
            if result != -errno.EINTR:
                break
        return result

    def _room_bytes(self) -> float:
        """Return what the file system can give at the most, in bytes, with what the file has."""
        try:
            disk = os.fstatvfs(self._fd)
        except OSError:
            return math.inf  # the reservation will tell
        if not disk.f_blocks:
            return math.inf  # it does not say, as a tmpfs without a limit
        blocks = disk.f_bavail if os.geteuid() else disk.f_bfree
        return blocks * disk.f_frsize + os.fstat(self._fd).st_blocks * STAT_BLOCK_BYTES
