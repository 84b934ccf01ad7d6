"""System calls that Python's os module lacks, through ctypes: they work without the extension.

Each returns its result, or -errno: the convention of a CQE. A function that the C library does not
have answers -ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

SYS_OPENAT2 = 437
"""The same number on every architecture: openat2 came after the tables were unified."""

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

OPEN_HOW = struct.Struct("@QQQ")
"""struct open_how (openat2(2)): flags, mode, resolve."""

AT_EMPTY_PATH = 0x1000
STATX_DIOALIGN = 0x2000
STATX_WRITE_ATOMIC = 0x10000
STATX_BYTES = 256
STATX_MASK_OFFSET = 0
STATX_DIO_OFFSET = 152
"""stx_dio_mem_align and stx_dio_offset_align, two u32, in struct statx (linux/stat.h)."""
STATX_ATOMIC_OFFSET = 168
"""stx_atomic_write_unit_min and stx_atomic_write_unit_max, two u32."""

STATX_INO, STATX_BTIME = 0x100, 0x800
STATX_INO_OFFSET = 32
STATX_BTIME_OFFSET = 80
"""stx_ino, u64, and stx_btime, an i64 of seconds and a u32 of nanoseconds."""

STATFS_BYTES = 256
"""struct statfs has 120 bytes on 64-bit Linux; f_type, a long, comes first."""

I64, U64 = ctypes.c_int64, ctypes.c_uint64


def _call(name: str, *args: object) -> int:
    function = getattr(_libc, name, None)
    if function is None:
        return -errno.ENOSYS
    result: int = function(*args)
    return result if result >= 0 else -ctypes.get_errno()


def fallocate(fd: int, offset: int, length: int) -> int:
    """fallocate(2), mode 0. Not posix_fallocate, which writes zeros where it cannot reserve."""
    return _call("fallocate64", fd, 0, I64(offset), I64(length))


def renameat2(dir_fd: int, path: bytes, other_fd: int, other_path: bytes, flags: int) -> int:
    """renameat2(2)."""
    return _call("renameat2", dir_fd, path, other_fd, other_path, flags)


def open_how(flags: int, mode: int) -> bytes:
    """Pack struct open_how for an open that stays beneath its directory and follows no link."""
    return OPEN_HOW.pack(flags, mode, RESOLVE)


def openat2(dir_fd: int, path: bytes, flags: int, mode: int) -> int:
    """openat2(2) with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS."""
    how = ctypes.create_string_buffer(open_how(flags, mode), OPEN_HOW.size)
    return _call("syscall", ctypes.c_long(SYS_OPENAT2), dir_fd, path, how, U64(OPEN_HOW.size))


class DirectAlignment(NamedTuple):
    """What statx(2) says of O_DIRECT on a file: both in bytes, both 0 where it is not to be had."""

    memory: int
    offset: int


def statx_direct_alignment(fd: int) -> DirectAlignment | None:
    """STATX_DIOALIGN of an open file (Linux 6.1), or None where nothing is said about it."""
    said = _statx_pair(fd, STATX_DIOALIGN, STATX_DIO_OFFSET)
    return None if said is None else DirectAlignment(*said)


def statx_atomic_write(fd: int) -> tuple[int, int] | None:
    """STATX_WRITE_ATOMIC of an open file (Linux 6.11): shortest and longest in bytes, or None."""
    said = _statx_pair(fd, STATX_WRITE_ATOMIC, STATX_ATOMIC_OFFSET)
    return said if said is not None and said[0] else None


def _statx_pair(fd: int, asked: int, at: int) -> tuple[int, int] | None:
    answer = ctypes.create_string_buffer(STATX_BYTES)
    if _call("statx", fd, b"", AT_EMPTY_PATH, asked, answer) < 0:
        return None
    (mask,) = struct.unpack_from("=I", answer, STATX_MASK_OFFSET)
    if not mask & asked:
        return None
    first, second = struct.unpack_from("=II", answer, at)
    return first, second


def file_system_type(fd: int) -> int:
    """f_type of the file system that an open file is on (fstatfs(2)). Raises OSError."""
    answer = ctypes.create_string_buffer(STATFS_BYTES)
    result = _call("fstatfs", fd, answer)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    (kind,) = struct.unpack_from("@l", answer)
    return int(kind)


class FileIdentity(NamedTuple):
    """What tells a file from every other of its file system, also from one that gets its number.

    The inode number, and the time that inode was made (seconds and nanoseconds).
    """

    inode: int
    birth_s: int
    birth_ns: int


def statx_identity(fd: int) -> FileIdentity | None:
    """Tell an open file's identity (statx(2)), or None where no time of birth is kept."""
    answer = ctypes.create_string_buffer(STATX_BYTES)
    wanted = STATX_INO | STATX_BTIME
    if _call("statx", fd, b"", AT_EMPTY_PATH, wanted, answer) < 0:
        return None
    (mask,) = struct.unpack_from("=I", answer, STATX_MASK_OFFSET)
    if mask & wanted != wanted:
        return None
    (inode,) = struct.unpack_from("=Q", answer, STATX_INO_OFFSET)
    return FileIdentity(inode, *struct.unpack_from("=qI", answer, STATX_BTIME_OFFSET))


def syncfs(fd: int) -> int:
    """syncfs(2): write back all of a file system and flush its device."""
    return _call("syncfs", fd)
