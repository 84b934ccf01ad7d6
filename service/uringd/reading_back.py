"""Reading a chunk back from where it was written, to hold it against its checksum.

For chunks whose memory somebody else can change while the disk reads it: what the disk has is the
only thing that can be compared. A direct read comes from the device; one through the page cache
shows what was handed to the kernel, which is as much as such a file can promise before its fsync.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from uringd.config import ALIGNMENT_BYTES
from uringd.wire import crc32c
from uringio.exceptions import OperationError, UringioError, operation_error
from uringio.lowlevel import operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.wire import ByteRange
    from uringio.lowlevel import Reactor, Slot

CHANGED = "it was changed while it was written: leave a chunk alone until it is acknowledged"


def start_read_back(
    reactor: Reactor,
    fd: int,
    name: str,
    slot: Slot,
    chunk: ByteRange,
    then: Callable[[OperationError | None], None],
) -> None:
    """Read a chunk into `slot`, in the background; `then` is told why it is not what was said.

    Called from the reaper, where nothing may raise. A read that ends before the chunk does is an
    error: the chunk was written to its end.
    """
    padded = -(-chunk.length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def failed(number: int, hint: str = "") -> OperationError:
        return operation_error(number, "read back", name, chunk.offset, chunk.length, hint)

    def completed(result: int) -> None:
        if result < chunk.length:
            then(failed(-result if result < 0 else errno.EIO))
        elif crc32c(slot.memory[: chunk.length]) != chunk.crc32c:
            then(failed(errno.EIO, CHANGED))
        else:
            then(None)

    index = slot.buffer_index
    operation = operations.read(fd, slot.memory, chunk.offset, padded, buffer_index=index)
    try:
        reactor.start(operation, completed)
    except UringioError as exc:
        then(failed(errno.EIO, str(exc)))
