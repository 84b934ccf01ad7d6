"""Where a short write goes on, and why one that cannot go on failed.

What the kernel does: a write that meets a limit in its middle (a full disk, a quota, RLIMIT_FSIZE)
reports what it got done, and only a write from there names the limit. A direct write has to start
on the alignment that statx(2) STATX_DIOALIGN names, so one from where the first stopped may be
refused with EINVAL, which says nothing of the limit. A disk's blocks are whole when it is full, so
the rest starts at the last block boundary before, and what was half done is done again. Where that
is where the write began, there is nothing left but to ask from the very byte: that either goes on
or names its error.

RLIMIT_FSIZE can be any number. The kernel cuts a write to it first and looks at the alignment
afterwards, so a direct write over a limit in mid-sector is an EINVAL from its start.
"""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING

from uringio._ring.operations import BLOCK_BYTES, RWF_ATOMIC, write
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from uringio._ring.operations import Operation
    from uringio.exceptions import OperationError


def rest_of_write(operation: Operation, result: int) -> Operation | None:
    """Make the write that goes on after one whose result was less than its length.

    None where none can: it did nothing or failed (see `write_error`). An atomic write is never
    continued, for two are not one.
    """
    assert operation.data is not None
    assert result < operation.length
    if result <= 0 or operation.flags & RWF_ATOMIC:
        return None
    stopped = operation.offset + result
    start = stopped - stopped % BLOCK_BYTES
    if start <= operation.offset:
        start = stopped
    done = start - operation.offset
    return write(
        operation.fd,
        memoryview(operation.data).cast("B")[done:],
        start,
        operation.length - done,
        buffer_index=operation.buffer_index,
        flags=operation.flags,
    )


def write_error(operation: Operation, result: int, path: str) -> OperationError:
    """Make the error of a write that cannot go on after `result`: -errno, or a length."""
    number = -result if result < 0 else errno.EIO  # 0: what takes nothing never ends
    end = operation.offset + operation.length
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if number == errno.EINVAL and limit != resource.RLIM_INFINITY and end > limit:
        number = errno.EFBIG
    return operation_error(number, "write", path, operation.offset, operation.length)
