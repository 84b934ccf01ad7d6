"""Why an upload cannot do what was asked: the code and the sentence that the client gets."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from uringio.exceptions import OperationError

NAME_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV})
"""A name cannot be had: nothing is wrong with the upload or with the disk."""


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


def failed(exc: OperationError) -> UploadError:
    """Turn an error of the file system into what the client is told."""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        code = ErrorCode.NO_SPACE
    elif exc.errno == errno.EEXIST:
        return UploadError(ErrorCode.EXISTS, f"{exc.path} exists already")
    elif exc.errno in NAME_ERRORS:
        return UploadError(ErrorCode.BAD_NAME, f"{exc.path} cannot be a file here: {exc.strerror}")
    else:
        code = ErrorCode.IO
    return UploadError(code, str(exc))  # an offset would say that only one chunk is concerned
