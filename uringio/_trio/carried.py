"""Fsyncs of a chain that a write carries itself.

What the kernel does: each member of a chain is begun when this process has seen the one before, so
a write and an fsync behind it are two wake-ups and a hop to a kernel worker, linked or not. A write
with RWF_DSYNC (RWF_SYNC for a whole fsync) makes its own bytes durable before it completes: on ext4
and XFS a direct write ends with the file's own fsync, or is one FUA request where the disk takes
such. It is one wake-up, and one that fails breaks the chain, so what stands behind can be linked.

What follows, as measured beside other work: with many operations in flight this thread is what is
scarce, and a record costs it a half (8 logs at a time: 1.0 to 1.3 times as fast as awaiting each
step, 16: 1.2, 32: 1.3 to 1.4). With few, a record waits longer for the kernel's worker than it
waited for us (one log: 0.3 to 1.1; 4: 0.7 to 1.6). So there the fsync is linked.

It says nothing of other writes: with FUA, what they left in the disk's cache stays there. So an
fsync is carried only where the write in front of it is all that there is to make durable: the only
one since the last fsync of the chain, in a file that owes nothing. FUSE hands the flag to a server
that may not look at it, and of other file systems we do not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringio._ring.operations import FSYNC, FSYNC_DATASYNC, RWF_DSYNC, RWF_SYNC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._ring.operations import Operation

CARRIERS = {0xEF53: "ext4", 0x58465342: "xfs"}
"""File systems whose direct writes can carry an fsync, by statfs(2)'s f_type."""

IN_FLIGHT_MIN = 4
"""Other operations in flight from which on writes carry fsyncs: of 4 logs all link theirs."""

BOTH = RWF_DSYNC | RWF_SYNC
"""What stands for a whole fsync: the file's times are covered, too."""


def carry_fsyncs(members: Sequence[Operation]) -> list[Operation]:
    """Let each write carry the fsync behind it, where that has nothing else to make durable.

    The members are writes, which are changed in place, and fsyncs of one file, all of whose
    earlier writes are durable.
    """
    carried: list[Operation] = []
    owed = 0
    for operation in members:
        if operation.opcode is not FSYNC:
            owed += not operation.flags & RWF_DSYNC
            carried.append(operation)
            continue
        if owed == 1 and not carried[-1].flags & RWF_DSYNC:
            carried[-1].flags |= RWF_DSYNC if operation.flags & FSYNC_DATASYNC else BOTH
        else:
            carried.append(operation)
        owed = 0
    return carried
