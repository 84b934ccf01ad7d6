"""Every exception that uringio raises on its own account.

An error of the kernel is an `OperationError`: an `OSError` that keeps errno and adds the operation,
the path, the offset and the length. Where Python has a class of its own for an errno
(`FileExistsError`, `FileNotFoundError`, `PermissionError`), the error is that class too, so that
`except FileExistsError` works as everywhere.
"""

from __future__ import annotations

import errno
import os


class UringioError(Exception):
    """The base of all that uringio raises on its own account."""


class OperationError(UringioError, OSError):
    """A file operation that the kernel refused or could not finish.

    Attributes: `errno`, `operation` (such as "write" or "fsync"), `path` (the file's path as the
    caller gave it), `offset` and `length` in bytes (None where the operation has none). `failures`
    is filled by `UringFile.pwrite_many`: errno by the number of each pair that was not written.
    """

    def __init__(
        self,
        number: int,
        operation: str,
        path: str,
        offset: int | None = None,
        length: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(number, os.strerror(number), path)
        self.operation = operation
        self.path = path
        self.offset = offset
        self.length = length
        self.hint = hint or HINTS.get(number, "")
        self.failures: dict[int, int] = {}

    def __str__(self) -> str:
        where = f" of {self.path}"
        if self.offset is not None:
            where += f" at offset {self.offset}"
        if self.length is not None:
            where += f", {self.length} bytes"
        name = errno.errorcode.get(self.errno or 0, str(self.errno))
        text = f"{self.operation}{where}: {self.strerror} ({name})"
        return f"{text}; {self.hint}" if self.hint else text

    def again(self) -> OperationError:
        """Make an equal error for a later caller: one instance is not raised from two tasks."""
        return operation_error(
            self.errno or errno.EIO, self.operation, self.path, self.offset, self.length, self.hint
        )

    def __reduce__(self) -> tuple[object, ...]:
        args = (self.errno, self.operation, self.path, self.offset, self.length, self.hint)
        return (operation_error, args)


class TargetExistsError(OperationError, FileExistsError):
    """The name is taken, and `overwrite` was not asked for (EEXIST)."""


class TargetMissingError(OperationError, FileNotFoundError):
    """The file, or a directory on the way to it, is not there (ENOENT)."""


class AccessError(OperationError, PermissionError):
    """The file system does not let this user do it (EACCES, EPERM)."""


class NoSpaceError(OperationError):
    """The disk, the quota or the process's file size limit is full (ENOSPC, EDQUOT, EFBIG)."""


class PendingReplaceError(OperationError):
    """A replace that has begun and is not known to have ended: only `Ring.open` settles it.

    `errno`, `operation`, `path` and `offset` say what failed, `hint` what the range holds until
    then. The journal that holds the new bytes is still beside the file: the next `Ring.open` of the
    file completes the replace, or refuses with this error again. Whoever reads the range before may
    see old and new bytes mixed.
    """

    def again(self) -> PendingReplaceError:
        """Make an equal error for a later caller."""
        return PendingReplaceError(*self._arguments())

    def __reduce__(self) -> tuple[object, ...]:
        return (PendingReplaceError, self._arguments())

    def _arguments(self) -> tuple[int, str, str, int | None, int | None, str]:
        number = self.errno or errno.EIO
        return number, self.operation, self.path, self.offset, self.length, self.hint


CLASSES: dict[int, type[OperationError]] = {
    errno.EEXIST: TargetExistsError,
    errno.ENOENT: TargetMissingError,
    errno.EACCES: AccessError,
    errno.EPERM: AccessError,
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.EFBIG: NoSpaceError,
}

HINTS = {
    errno.EEXIST: "pass overwrite=True to replace it",
    errno.ENOSPC: "free space on this file system, or write elsewhere",
    errno.EDQUOT: "the user's disk quota is used up",
    errno.EFBIG: "past the file size limit of the process (ulimit -f) or of the file system",
    errno.EMFILE: "the process has no descriptors left (ulimit -n)",
    errno.EROFS: "the file system is mounted read-only",
}


def operation_error(
    number: int,
    operation: str,
    path: str,
    offset: int | None = None,
    length: int | None = None,
    hint: str = "",
) -> OperationError:
    """Make the OperationError, of the class that fits errno `number` (positive)."""
    return CLASSES.get(number, OperationError)(number, operation, path, offset, length, hint)


class UnavailableError(UringioError):
    """What was asked for cannot be had here; the text says why and what mends it."""


class ClosedError(UringioError):
    """The ring, file or writer was closed, committed or aborted before."""


class BrokenError(UringioError):
    """The ring itself failed (submitting or reaping); nothing more can be written through it."""


class IncompleteError(UringioError):
    """A commit of another size than the one that was declared."""


class ForkedError(UringioError):
    """A ring was used in a process that was forked off the one that made it."""


class WrongThreadError(UringioError):
    """A ring was used from another thread than the one that made it."""
