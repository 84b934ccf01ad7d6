"""One operation as a plain system call: what the thread ring and the simulated ring are made of.

Results follow the CQE convention: the system call's value, or -errno. Also used for the few
operations that a kernel's io_uring lacks (FTRUNCATE before Linux 6.9).
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from uringio._ring import libc
from uringio._ring.operations import FSYNC_DATASYNC, IS_LINUX, RENAME_NOREPLACE, Opcode, Operation

if TYPE_CHECKING:
    from collections.abc import Callable


HAS_WRITE_FLAGS = hasattr(os, "RWF_DSYNC")
"""Whether this system has pwritev2(2): without it Python refuses flags by NotImplementedError."""


def _write(op: Operation) -> int:
    assert op.data is not None
    view = memoryview(op.data).cast("B")[: op.length]
    if op.flags and not HAS_WRITE_FLAGS:
        return -errno.EOPNOTSUPP
    if op.flags:
        return os.pwritev(op.fd, [view], op.offset, op.flags)
    return os.pwrite(op.fd, view, op.offset)


def _read(op: Operation) -> int:
    assert op.data is not None
    return os.preadv(op.fd, [memoryview(op.data).cast("B")[: op.length]], op.offset)


def _fsync(op: Operation) -> int:
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS: fsync(2) stops at the drive's cache
        fcntl.fcntl(op.fd, full)
    elif op.flags & FSYNC_DATASYNC:
        os.fdatasync(op.fd)
    else:
        os.fsync(op.fd)
    return 0


def _ftruncate(op: Operation) -> int:
    os.ftruncate(op.fd, op.length)
    return 0


def _open(op: Operation) -> int:
    return os.open(op.path, op.flags, op.mode, dir_fd=None if op.fd < 0 else op.fd)


def _open_beneath(op: Operation) -> int:
    result = libc.openat2(op.fd, op.path, op.flags, op.mode) if IS_LINUX else -errno.ENOSYS
    return _walk_beneath(op) if result == -errno.ENOSYS else result


def _walk_beneath(op: Operation) -> int:
    """Do what openat2 would, a component at a time, each held by a descriptor and never a link."""
    if not op.path:
        return -errno.ENOENT
    *parents, name = op.path.split(b"/")
    fd = os.dup(op.fd)
    try:
        for component in parents:
            if component == b"..":
                return -errno.EXDEV
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            child = os.open(component, flags, dir_fd=fd)
            os.close(fd)
            fd = child
        if name == b"..":
            return -errno.EXDEV
        return os.open(name or b".", op.flags | os.O_NOFOLLOW, op.mode, dir_fd=fd)
    finally:
        os.close(fd)


def _close(op: Operation) -> int:
    os.close(op.fd)
    return 0


def _rename(op: Operation) -> int:
    if not op.flags & RENAME_NOREPLACE:
        os.rename(op.path, op.other_path, src_dir_fd=op.fd, dst_dir_fd=op.other_fd)
        return 0
    return libc.renameat2(op.fd, op.path, op.other_fd, op.other_path, op.flags)


def _link(op: Operation) -> int:
    os.link(op.path, op.other_path, src_dir_fd=op.fd, dst_dir_fd=op.other_fd)
    return 0


def _unlink(op: Operation) -> int:
    os.unlink(op.path, dir_fd=op.fd)
    return 0


def _make_directory(op: Operation) -> int:
    os.mkdir(op.path, op.mode, dir_fd=op.fd)
    return 0


CALLS: dict[Opcode, Callable[[Operation], int]] = {
    Opcode.NOP: lambda _: 0,
    Opcode.WRITE: _write,
    Opcode.WRITE_FIXED: _write,
    Opcode.READ: _read,
    Opcode.READ_FIXED: _read,
    Opcode.FSYNC: _fsync,
    Opcode.FALLOCATE: lambda op: libc.fallocate(op.fd, op.offset, op.length),
    Opcode.FTRUNCATE: _ftruncate,
    Opcode.OPENAT: _open,
    Opcode.OPENAT2: _open_beneath,
    Opcode.CLOSE: _close,
    Opcode.RENAMEAT: _rename,
    Opcode.LINKAT: _link,
    Opcode.UNLINKAT: _unlink,
    Opcode.MKDIRAT: _make_directory,
}


def execute(operation: Operation) -> int:
    """Do the operation now, in this thread: its result, or -errno."""
    try:
        return CALLS[operation.opcode](operation)
    except OSError as exc:
        return -(exc.errno or errno.EIO)
    except (OverflowError, ValueError):  # Python looked before the kernel could
        return -errno.EINVAL


def execute_chain(operations: list[Operation]) -> list[int]:
    """Do soft-linked operations one after another: an error or a short one cancels what follows."""
    results: list[int] = []
    broken = False
    for operation in operations:
        result = -errno.ECANCELED if broken else execute(operation)
        results.append(result)
        broken = broken or breaks_chain(operation, result)
    return results


# A soft link is said to break at an error (io_uring_enter(2)). It breaks where the kernel marks the
# request as failed, and of our operations only these are marked. An fsync, ftruncate, fallocate,
# rename, link, unlink or mkdir that fails says so in its completion, and what is linked behind it
# is done all the same (Linux 6.18; older kernels marked some of them). So nothing that must not
# follow such a failure may be linked behind it: `_trio/publish.py` cuts chains there.
BREAKS_LINKS = frozenset(
    {
        Opcode.READ,
        Opcode.READ_FIXED,
        Opcode.WRITE,
        Opcode.WRITE_FIXED,
        Opcode.OPENAT,
        Opcode.OPENAT2,
        Opcode.CLOSE,
    }
)


def breaks_chain(operation: Operation, result: int) -> bool:
    """Whether what stands behind such a result in a chain is not to be done."""
    return result < 0 or (operation.data is not None and result < operation.length)
