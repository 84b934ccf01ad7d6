"""Published files below a directory, in byte order of their whole names.

A LIST is a hundred bytes, and a tree can have any number of files. So nothing is looked at that
cannot be in the answer: no directory that lies outside of the prefix or before `after`, and no file
but those whose names are wanted. To read a tree page by page costs about as much as to read it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from uringd.wire import NAME_BYTES_MAX, PRIVATE_NAME
from uringio.exceptions import OperationError, operation_error

if TYPE_CHECKING:
    from collections.abc import Iterator

UNLISTED = {PRIVATE_NAME, "lost+found"}
"""Directories of ROOT itself that are not ours to show: what fsck keeps cannot be read by all."""

WENT_AWAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What was in a directory when it was read is removed, or replaced: nothing is wrong."""

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Found = tuple[str, os.stat_result]


def list_files(dir_fd: int, prefix: str, after: str, count: int) -> list[Found]:
    """List the first `count` regular files whose names have `prefix` and are above `after`.

    Raises OperationError for what is there and cannot be looked at: no list lacks it in silence.
    Names that the wire cannot say are left out. Blocks.
    """
    found: list[Found] = []
    for each in _walk(dir_fd, "", prefix, after):
        found.append(each)
        if len(found) == count:
            break
    return found


def _walk(dir_fd: int, above: str, prefix: str, after: str) -> Iterator[Found]:
    """Yield files below a directory whose name, with its slash, is `above`; follow no link.

    Directories are as deep as a name can say: each costs a descriptor while it is read.
    """
    for name, is_directory in _entries(dir_fd, above):
        whole = above + name
        if is_directory:
            if not _is_wanted(whole + "/", prefix, after) or (not above and name in UNLISTED):
                continue
            with _looking_at(whole):
                child = os.open(name, DIRECTORY_FLAGS, dir_fd=dir_fd)
                try:
                    yield from _walk(child, whole + "/", prefix, after)
                finally:
                    os.close(child)
        elif _is_sayable(whole) and whole.startswith(prefix) and whole.encode() > after.encode():
            with _looking_at(whole):
                entry = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                if stat.S_ISREG(entry.st_mode):
                    yield whole, entry


def _is_wanted(above: str, prefix: str, after: str) -> bool:
    """Whether a file below a directory, named with its slash, can have `prefix` and follow."""
    if not _is_sayable(above):
        return False
    overlaps = above.startswith(prefix) or prefix.startswith(above)
    return overlaps and (above.encode() > after.encode() or after.startswith(above))


def _is_sayable(name: str) -> bool:
    """Whether a name can be said on the wire (somebody else may have put it there)."""
    encoded = os.fsencode(name)
    return len(encoded) <= NAME_BYTES_MAX and encoded == name.encode(errors="replace")


def _entries(dir_fd: int, above: str) -> list[tuple[str, bool]]:
    """Read a directory: names, and whether each is a directory, as their files are to be listed."""
    entries: list[tuple[str, bool]] = []
    with _looking_at(above or "."), os.scandir(dir_fd) as scan:
        entries += ((entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan)
    # A directory's files sort as if its name ended in a slash.
    return sorted(entries, key=lambda entry: os.fsencode(entry[0] + "/" * entry[1]))


@contextlib.contextmanager
def _looking_at(name: str) -> Iterator[None]:
    """Pass over what went away meanwhile; say where anything else went wrong."""
    try:
        yield
    except OperationError:
        raise  # it says where already
    except OSError as exc:
        if exc.errno not in WENT_AWAY:
            sayable = os.fsencode(name).decode(errors="replace")
            raise operation_error(exc.errno or errno.EIO, "list", sayable) from exc
