"""The journal of a replace: what stands in it, what it is called, and whose it is.

One file per replace, beside the file it is for: `.uringio-journal-<inode, hex>-<0 to 7>`. Named by
the inode, so that it is found whatever the file is called by then, as long as it stays in its
directory; with a few fixed numbers, so that an open asks for eight names instead of listing a
directory of any size.

    0      header, one block; its last 4 bytes are the CRC32C of the rest
    4096   zeros up to where the range begins in its block (offset % 4096 bytes)
           the new bytes, `length` of them, whose CRC32C the header has
           zeros up to the end of the block

A journal is believed when both checksums are right, it is for this very inode (number and time of
birth: numbers are used again), and it belongs to the file's owner. The first tells a whole one from
a torn one, in whatever order its blocks reached the disk. The second keeps it from the file that
has taken the name or the inode number of the one it was for. The third keeps out who may create
names in the directory but not write the file.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from crc32c import crc32c

from uringio._ring import libc, operations
from uringio._ring.libc import FileIdentity
from uringio._ring.operations import BLOCK_BYTES
from uringio._trio.publish import Step
from uringio.exceptions import UnavailableError

MAGIC = b"uringio\n"
VERSION = 1

HEADER = struct.Struct("<8sIQqIQQI")
"""Magic, version; inode, birth in seconds and nanoseconds; offset, length, the payload's CRC32C."""
HEADER_BYTES = BLOCK_BYTES
CRC = struct.Struct("<I")

JOURNALS_MAX = 8
"""Replaces of one file at a time, in all processes: more keep no disk busier, and each may hold
REPLACE_BYTES_MAX of it."""

REPLACE_BYTES_MAX = 1 << 30
"""One replace at the most. So much disk it needs beside the file, and recovery reads it twice and
writes it once before an open returns: seconds. Whoever has more replaces it piece by piece."""

OFFSET_MAX = (1 << 63) - 1
"""The end of the longest file (off_t)."""

PREFIX = ".uringio-journal-"


@dataclass(frozen=True, slots=True)
class Record:
    """A journal's header: the file it is for, and the range, in bytes, that it replaces."""

    identity: FileIdentity
    offset: int
    length: int
    crc32c: int

    def pack(self) -> bytes:
        """Lay out the header's block."""
        fields = (*self.identity, self.offset, self.length, self.crc32c)
        body = HEADER.pack(MAGIC, VERSION, *fields).ljust(HEADER_BYTES - CRC.size, b"\0")
        return body + CRC.pack(crc32c(body))

    @classmethod
    def unpack(cls, block: bytes, path: str) -> Record | None:
        """Read a header's block; None when it is torn, or none.

        Raises `UnavailableError` for a whole header of another version: it may stand for a replace
        that has begun, and this code cannot end it.
        """
        body, crc = block[: -CRC.size], block[-CRC.size :]
        if len(block) != HEADER_BYTES or CRC.pack(crc32c(body)) != crc:
            return None
        magic, version, inode, birth_s, birth_ns, offset, length, payload = HEADER.unpack_from(body)
        if magic != MAGIC:
            return None
        if version != VERSION:
            raise UnavailableError(
                f"{path} is a journal of version {version}, and this library knows {VERSION}: open "
                "the file with the library that began the replace"
            )
        if not (1 <= length <= REPLACE_BYTES_MAX and offset + length <= OFFSET_MAX):
            return None
        return cls(FileIdentity(inode, birth_s, birth_ns), offset, length, payload)


def payload_at(offset: int, at: int) -> int:
    """Where in the journal of a range that begins at `offset` the file's byte `at` stands."""
    return HEADER_BYTES + at - (offset - offset % BLOCK_BYTES)


def journal_bytes(offset: int, length: int) -> int:
    """Size of a whole journal."""
    return -(-payload_at(offset, offset + length) // BLOCK_BYTES) * BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Home:
    """The directory a file is in, and the file's identity and owner.

    `path` is the file's, as the caller gave it: what errors name.
    """

    dir_fd: int
    path: str
    identity: FileIdentity
    owner: int
    group: int
    mode: int

    def name(self, number: int) -> str:
        """Name of the journal with a number from 0 to JOURNALS_MAX - 1."""
        return f"{PREFIX}{self.identity.inode:x}-{number}"

    def path_of(self, name: str) -> str:
        """Path of a name in the directory, for errors."""
        return os.path.join(os.path.dirname(self.path), name)

    @property
    def directory(self) -> str:
        """What errors call the directory."""
        return f"the directory of {self.path}"

    def present(self) -> list[str]:
        """Names of journals that exist, whatever they are."""
        return [name for n in range(JOURNALS_MAX) if _exists(self.dir_fd, name := self.name(n))]

    def is_ours(self, found: os.stat_result) -> bool:
        """Whether a journal can be the work of the file's owner, and nobody else's."""
        return stat.S_ISREG(found.st_mode) and found.st_uid == self.owner and found.st_nlink <= 1


def find_home(fd: int, path: str, *, to_write: bool) -> Home | None:
    """Find the directory in which an open file has its name; the caller closes `dir_fd`.

    None when it is no regular file, has no name any more, or this process cannot reach it. To find
    names takes less of a right (O_PATH) than `to_write` them.
    """
    status = os.fstat(fd)
    identity = libc.statx_identity(fd) if stat.S_ISREG(status.st_mode) else None
    if identity is None:
        return None
    try:
        directory, name = os.path.split(os.readlink(f"/proc/self/fd/{fd}"))
        flags = os.O_RDONLY if to_write else os.O_PATH
        dir_fd = os.open(directory, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        same = os.path.samestat(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), status)
    except OSError:
        same = False
    if not same:
        os.close(dir_fd)
        return None
    return Home(dir_fd, path, identity, status.st_uid, status.st_gid, status.st_mode)


def removal_steps(home: Home, dir_fd: int, name: str) -> list[Step]:
    """Build the chain that removes a journal for good; `dir_fd` is open for reading."""
    return [
        Step(operations.unlink(dir_fd, name), home.path_of(name)),
        Step(operations.fsync(dir_fd), home.directory),
    ]


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
