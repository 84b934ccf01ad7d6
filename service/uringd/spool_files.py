"""Spool files: opened, and locked against every other process, also one that was killed.

The lock is the fence. It belongs to the open file, so it is held until the last write of the
process that took it has ended, however the process ended: a killed one's writes can reach the disk
seconds after it. Nobody else writes to the file, or removes it, before.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from uringd.root import SPOOL_SUFFIX
from uringd.upload_errors import known
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import open_file, operations

if TYPE_CHECKING:
    from uringd.records import UploadRecord
    from uringd.root import Root
    from uringio import Ring
    from uringio.lowlevel import OpenFile


async def create_spool(ring: Ring, root: Root, record: UploadRecord) -> OpenFile:
    """Make and lock an upload's spool file. Of several processes that try, the kernel chooses one.

    Raises UploadError (BUSY), OperationError.
    """
    try:
        return await open_spool(ring, root, record, os.O_CREAT | os.O_EXCL)
    except OperationError as exc:
        if exc.errno in {errno.EEXIST, errno.EAGAIN, errno.ENOENT}:
            raise known(record.upload_id) from exc
        raise


async def open_spool(ring: Ring, root: Root, record: UploadRecord, flags: int = 0) -> OpenFile:
    """Open and lock an upload's spool file; the caller closes it.

    Raises OperationError: EAGAIN when another process holds it, or held it until it was killed;
    ENOENT also when it was removed between the open and the lock.
    """
    name = record.upload_id + SPOOL_SUFFIX
    mode = 0o666 if flags & os.O_CREAT else 0  # openat2(2) takes none for what is there
    opening = operations.open_beneath(root.spool_fd, name, os.O_RDWR | flags, mode)
    file = await open_file(ring.reactor, opening, record.name, "auto")
    try:
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        number = 0 if os.fstat(file.fd).st_nlink else errno.ENOENT
    except OSError as exc:
        number = exc.errno or errno.EIO
    if number:
        if flags & os.O_CREAT:
            await undo_spool(ring, root, record, file)
        else:
            await ring.reactor.perform_always(operations.close(file.fd))
        raise operation_error(number, "flock", record.name)
    return file


async def undo_spool(ring: Ring, root: Root, record: UploadRecord, file: OpenFile) -> None:
    """Remove and close a spool file that was made just now."""
    unlink = operations.unlink(root.spool_fd, record.upload_id + SPOOL_SUFFIX)
    await ring.reactor.perform_always(unlink)
    await ring.reactor.perform_always(operations.close(file.fd))
