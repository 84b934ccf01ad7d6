"""Reserve a file's blocks ahead of the writes.

What the disk does (ext4, XFS): writes into blocks that fallocate(2) has reserved run side by side
and at the speed of an overwrite; writes that make the file grow take the inode's lock one by one,
at a third of the speed. So a file of known size is reserved whole, before its first write: a full
disk is then known at once. A file of unknown size grows by doubling steps, and what was too much is
given back when it is cut to size. A reservation waits for the writes in flight, so the steps are
few. Whatever became of a reservation, the file is cut to its true size at the end.
"""

from __future__ import annotations

import errno
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

    async def reserve(self, end: int) -> None:
        """Make sure that blocks are reserved up to `end`; the whole file, if its size is known.

        Raises `NoSpaceError` when the disk or the quota is too small. Where the file system cannot
        reserve, `supported` becomes False and writes go on without.
        """
        while self.supported and end > self.end:
            whole = self._size is not None and self._size > self.end
            wanted = (self._size or 0) - self.end if whole else max(self._step, end - self.end)
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
        self.reached = max(self.reached, self.end + length)
        for _ in range(INTERRUPTED_MAX):
            operation = operations.fallocate(self._fd, self.end, length)
            result = await self._reactor.perform(operation)
            if result != -errno.EINTR:
                break
        return result
