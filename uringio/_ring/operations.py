"""What a ring can be asked to do, as data.

An `Operation` says everything about one system call; a ring either turns it into an SQE or executes
it in a thread. The numbers of `Opcode` are the kernel's own (enum io_uring_op, linux/io_uring.h).
"""

from __future__ import annotations

import enum
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

FSYNC_DATASYNC = 1
"""fsync_flags of io_uring_enter(2): flush what is needed to read the data back, as fdatasync(2)."""

RENAME_NOREPLACE = 1
"""renameat2(2): fail with EEXIST instead of replacing the target."""

RWF_DSYNC, RWF_SYNC, RWF_ATOMIC, RWF_DONTCACHE = 0x02, 0x04, 0x40, 0x80
"""pwritev2(2): what a write promises and where it goes; see uringio/_trio/modes.py."""

BLOCK_BYTES = 4096
"""Direct writes start and end on this boundary even where the device takes 512 bytes: the file
system's own blocks are 4 KiB, and a part of one would be read, zeroed and serialised first."""

LENGTH_MAX = 0x7FFFF000
"""Bytes of one read or write at the most: the kernel cuts longer ones (write(2), NOTES)."""


class Opcode(enum.IntEnum):
    """The operations a ring takes, by the kernel's numbers."""

    NOP = 0
    FSYNC = 3
    READ_FIXED = 4
    WRITE_FIXED = 5
    ASYNC_CANCEL = 14
    FALLOCATE = 17
    OPENAT = 18
    CLOSE = 19
    READ = 22
    WRITE = 23
    OPENAT2 = 28
    RENAMEAT = 35
    UNLINKAT = 36
    MKDIRAT = 37
    LINKAT = 39
    FTRUNCATE = 55

    __hash__ = int.__hash__  # Enum hashes the name, in Python, each time one is looked up


FSYNC, CLOSE = Opcode.FSYNC, Opcode.CLOSE
READ_FIXED, WRITE_FIXED, READ, WRITE = (
    Opcode.READ_FIXED,
    Opcode.WRITE_FIXED,
    Opcode.READ,
    Opcode.WRITE,
)
"""By themselves, for what every small write passes: to look one up in its class takes longer than
to count an operation."""


@dataclass(slots=True)
class Operation:
    """One system call: what to do, to which descriptor, where, and with which memory.

    `offset` and `length` are in bytes. `data` is the memory of a read or write; it must stay as it
    is until the completion. `buffer_index` is its registered buffer, for fixed operations.
    `path` and `other_path` are relative to `fd` and `other_fd`, as in the *at() system calls.
    `address` is that of `data` where it is known (0: the ring finds out); of a cancel, the token.
    """

    opcode: Opcode
    fd: int = -1
    offset: int = 0
    length: int = 0
    data: Buffer | None = None
    buffer_index: int = -1
    flags: int = 0
    address: int = 0
    mode: int = 0
    path: bytes = b""
    other_fd: int = -1
    other_path: bytes = b""


def _encode(path: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:  # C would end the name there and mean another file
        raise ValueError(f"embedded null in path {path!r}")
    return encoded


def write(
    fd: int, data: Buffer, offset: int, length: int, *, buffer_index: int = -1, flags: int = 0
) -> Operation:
    """pwritev2(2) of `length` bytes; a `buffer_index` >= 0 makes it a fixed operation."""
    opcode = Opcode.WRITE if buffer_index < 0 else Opcode.WRITE_FIXED
    return Operation(opcode, fd, offset, length, data, buffer_index, flags)


def read(fd: int, data: Buffer, offset: int, length: int, *, buffer_index: int = -1) -> Operation:
    """preadv2(2) of up to `length` bytes; a `buffer_index` >= 0 makes it a fixed operation."""
    if memoryview(data).readonly:
        raise TypeError("a read needs writable memory")
    opcode = Opcode.READ if buffer_index < 0 else Opcode.READ_FIXED
    return Operation(opcode, fd, offset, length, data, buffer_index)


def fsync(fd: int, *, data_only: bool = False) -> Operation:
    """fsync(2), or fdatasync(2) for `data_only`. It knows nothing of writes still in flight."""
    return Operation(Opcode.FSYNC, fd, flags=FSYNC_DATASYNC if data_only else 0)


def fallocate(fd: int, offset: int, length: int) -> Operation:
    """fallocate(2) with mode 0: reserve the blocks and let the size grow to cover them."""
    return Operation(Opcode.FALLOCATE, fd, offset, length)


def ftruncate(fd: int, size: int) -> Operation:
    """ftruncate(2): set the size, in bytes, and give back what was reserved beyond it."""
    return Operation(Opcode.FTRUNCATE, fd, length=size)


def open_at(dir_fd: int, path: str, flags: int, mode: int = 0) -> Operation:
    """openat(2), close-on-exec. The result is the descriptor."""
    return Operation(
        Opcode.OPENAT, dir_fd, flags=flags | os.O_CLOEXEC, mode=mode, path=_encode(path)
    )


def open_beneath(dir_fd: int, path: str, flags: int, mode: int = 0) -> Operation:
    """openat2(2) that never leaves `dir_fd` and follows no link of any kind.

    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, close-on-exec.
    """
    return Operation(
        Opcode.OPENAT2, dir_fd, flags=flags | os.O_CLOEXEC, mode=mode, path=_encode(path)
    )


def close(fd: int) -> Operation:
    """close(2)."""
    return Operation(Opcode.CLOSE, fd)


def rename(
    dir_fd: int, path: str, other_dir_fd: int, other_path: str, *, replace: bool
) -> Operation:
    """renameat2(2); without `replace` an existing target is an EEXIST (RENAME_NOREPLACE)."""
    return Operation(
        Opcode.RENAMEAT,
        dir_fd,
        flags=0 if replace else RENAME_NOREPLACE,
        path=_encode(path),
        other_fd=other_dir_fd,
        other_path=_encode(other_path),
    )


def link(dir_fd: int, path: str, other_dir_fd: int, other_path: str) -> Operation:
    """linkat(2): a second name; an existing target is always an EEXIST."""
    return Operation(
        Opcode.LINKAT,
        dir_fd,
        path=_encode(path),
        other_fd=other_dir_fd,
        other_path=_encode(other_path),
    )


def unlink(dir_fd: int, path: str) -> Operation:
    """unlinkat(2) of a file."""
    return Operation(Opcode.UNLINKAT, dir_fd, path=_encode(path))


def make_directory(dir_fd: int, path: str, mode: int) -> Operation:
    """mkdirat(2)."""
    return Operation(Opcode.MKDIRAT, dir_fd, mode=mode, path=_encode(path))


NAMES = {
    Opcode.NOP: "nop",
    Opcode.FSYNC: "fsync",
    Opcode.READ_FIXED: "read",
    Opcode.WRITE_FIXED: "write",
    Opcode.ASYNC_CANCEL: "cancel",
    Opcode.FALLOCATE: "fallocate",
    Opcode.OPENAT: "open",
    Opcode.CLOSE: "close",
    Opcode.READ: "read",
    Opcode.WRITE: "write",
    Opcode.OPENAT2: "open",
    Opcode.RENAMEAT: "rename",
    Opcode.UNLINKAT: "unlink",
    Opcode.MKDIRAT: "mkdir",
    Opcode.LINKAT: "link",
    Opcode.FTRUNCATE: "truncate",
}
"""What errors call an operation."""

O_DIRECT = getattr(os, "O_DIRECT", 0)
"""0 where the system has no direct I/O, so that asking for it finds that nothing was offered."""

IS_LINUX = sys.platform == "linux"
