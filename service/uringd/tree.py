"""The regular files below a directory, as `put --recursive` sends them.

Nothing is followed: a symbolic link could lead out of the directory, or round in it. Links, pipes,
sockets and devices are told and left out; what cannot be read is told as a failure. The walk is
lazy and holds one open directory for each level.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK is for a pipe that took a file's place since it was looked at."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A regular file: where it is, its name relative to the directory, its size in bytes."""

    path: str
    name: str
    size: int
    modified_ns: int


class Listener(Protocol):
    """Who is told what is not sent."""

    def skipped(self, path: str, reason: str) -> None:
        """Hear of what is no regular file."""

    def unreadable(self, path: str, reason: str) -> None:
        """Hear of what could not be looked at."""


def walk(directory: str, listener: Listener, prefix: str = "") -> Iterator[TreeFile]:
    """Yield the regular files below a directory, each directory's in order of their names.

    Raises OSError when the directory itself cannot be read; what is below it is told to `listener`.
    """
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from walk(entry.path, listener, f"{prefix}{entry.name}/")
                continue
        except OSError as exc:
            listener.unreadable(entry.path, exc.strerror or str(exc))
            continue
        if stat.S_ISREG(status.st_mode):
            name = prefix + entry.name
            yield TreeFile(entry.path, name, status.st_size, status.st_mtime_ns)
        else:
            listener.skipped(entry.path, _kind(status.st_mode))


def read_small(path: str, bytes_max: int) -> bytes | None:
    """Return a file's content, or None if it has more than `bytes_max` bytes. Raises OSError."""
    fd = os.open(path, OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no regular file any more")
        parts: list[bytes] = []
        left = bytes_max + 1
        while left and (data := os.read(fd, left)):
            parts.append(data)
            left -= len(data)
    finally:
        os.close(fd)
    return b"".join(parts) if left else None


def _kind(mode: int) -> str:
    names = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(mode), "no regular file")
