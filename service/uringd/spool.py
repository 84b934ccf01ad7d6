"""Where uploads begin: a spool file of their own, locked as long as anything may write to it."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from typing import TYPE_CHECKING

from uringd.root import SPOOL_SUFFIX
from uringd.upload_errors import UploadError, failed
from uringd.uploads import Upload
from uringd.wire import RemoteProtocolError, check_name
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import open_file, operations

if TYPE_CHECKING:
    from uringd.root import Root
    from uringd.wire import Durability
    from uringio import Ring


async def create_upload(
    ring: Ring,
    root: Root,
    name: str,
    *,
    size: int | None,
    overwrite: bool,
    durability: Durability,
) -> Upload:
    """Begin an upload: an exclusively locked spool file, reserved when its size is known."""
    try:
        check_name(name)
    except RemoteProtocolError as exc:
        raise UploadError(exc.code, exc.text) from exc
    try:
        await root.check_free(ring.reactor, name, overwrite=overwrite)
    except OperationError as exc:
        raise failed(exc) from exc
    upload_id = secrets.token_hex(16)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    spool_name = upload_id + SPOOL_SUFFIX
    opening = operations.open_beneath(root.spool_fd, spool_name, flags, 0o666)
    try:
        file = await open_file(ring.reactor, opening, name, "auto")
    except OperationError as exc:
        raise failed(exc) from exc
    try:
        # The fence: held until the last write of this process has ended, however it ends. Nobody
        # else knows the file yet, so that this does not wait.
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        await ring.reactor.perform_always(operations.unlink(root.spool_fd, spool_name))
        await ring.reactor.perform_always(operations.close(file.fd))
        raise failed(operation_error(exc.errno or errno.EIO, "flock", name)) from exc
    upload = Upload(
        ring,
        root,
        file,
        upload_id,
        name,
        size=size,
        overwrite=overwrite,
        durability=durability,
    )
    try:
        await upload.reserve()
    except OperationError as exc:
        await upload.abort()
        raise failed(exc) from exc
    except BaseException:
        await upload.abort()
        raise
    return upload
