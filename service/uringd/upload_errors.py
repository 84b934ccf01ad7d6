"""Why an upload cannot do what was asked: the code and the sentence that the client gets."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from uringio.exceptions import OperationError

NAME_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV})
"""A name cannot be had: nothing is wrong with the upload or with the disk."""

NAMING = frozenset({"search", "mkdir", "rename", "link"})
"""What is done to give a file its name, with directories on the way."""

NAMING_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ENOENT, errno.EISDIR}
)
"""What these say when somebody has changed ROOT: permissions, a mount, a directory that is gone. It
can be changed back, so an upload is not thrown away for it."""


class UploadError(Exception):
    """An upload cannot do what was asked; the code and the text are the client's answer."""

    def __init__(
        self,
        code: ErrorCode,
        text: str,
        *,
        offset: int | None = None,
        missing: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.offset = offset
        self.missing = missing


def fenced() -> UploadError:
    """Say that a newer epoch has the upload now."""
    return UploadError(ErrorCode.FENCED, "a newer client has taken the upload over")


def thrown_away() -> UploadError:
    """Say that somebody aborted the upload, or that it broke and nobody kept it."""
    return UploadError(ErrorCode.NOT_FOUND, "there is no such upload any more: it was thrown away")


def is_of_the_name(exc: OperationError) -> bool:
    """Whether giving a file its name has failed, and nothing else has."""
    return exc.operation in NAMING and exc.errno in NAME_ERRORS | NAMING_ERRORS


def failed(exc: OperationError) -> UploadError:
    """Turn an error of the file system into what the client is told."""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        code = ErrorCode.NO_SPACE
    elif exc.errno == errno.EEXIST:
        return UploadError(ErrorCode.EXISTS, f"{exc.path} exists already")
    elif exc.errno in NAME_ERRORS or is_of_the_name(exc):
        return UploadError(ErrorCode.BAD_NAME, f"{exc.path} cannot be a file here: {exc.strerror}")
    else:
        code = ErrorCode.IO
    return UploadError(code, str(exc))  # an offset would say that only one chunk is concerned


def known(upload_id: str) -> UploadError:
    """Say that an upload cannot be created twice."""
    return UploadError(ErrorCode.BUSY, f"there is an upload {upload_id}: resume it")


def still_written() -> UploadError:
    """Say that an upload's spool file is locked."""
    text = "another session has not let go of the upload yet, or writes of one that was killed"
    return UploadError(ErrorCode.BUSY, f"{text} may still reach the disk")


def not_found(upload_id: str) -> UploadError:
    """Say that there is no such upload."""
    text = f"there is no upload {upload_id}: it ended, expired, or never was"
    return UploadError(ErrorCode.NOT_FOUND, text)


def check_epoch(named: int, current: int, *, join: bool) -> None:
    """Raise UploadError (FENCED) unless RESUME names the upload's epoch, or none and no lane."""
    if (named or join) and named != current:
        text = f"the upload is at epoch {current}, not {named}: a newer client has taken it over"
        raise UploadError(ErrorCode.FENCED, text)
