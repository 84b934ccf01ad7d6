"""Open a file, and find out whether direct I/O is really to be had on it.

What the kernel does: O_DIRECT in open(2) with O_CREAT can leave a created file behind and say
EINVAL. So a file is opened without it, asked (statx(2) STATX_DIOALIGN, Linux 6.1), and switched by
F_SETFL. Where statx says nothing, tmpfs and btrfs take O_DIRECT and then copy through the page
cache all the same; what gives them away is that they also take an access that is not aligned,
which real direct I/O refuses with EINVAL. They count as buffered here, for that is what they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uringio._ring import libc, operations
from uringio._ring.kernel import UNCACHED_SINCE, kernel_version
from uringio._ring.operations import BLOCK_BYTES, IS_LINUX, O_DIRECT, RWF_DONTCACHE
from uringio.exceptions import UnavailableError, operation_error

if TYPE_CHECKING:
    from uringio._ring.operations import Operation
    from uringio._trio.modes import Cache
    from uringio._trio.reactor import Reactor

Direct = Literal["auto", "require", "never"]

BEHIND_ALL = 1 << 62
"""An offset in bytes that no file reaches."""

NOT_OFFERED = "the file system does not offer direct I/O (O_DIRECT) for this file"


@dataclass(slots=True)
class OpenFile:
    """An open descriptor and how it may be used.

    `block_bytes` is what offsets and lengths of writes must be multiples of, `memory_bytes` the
    same for addresses; both are 1 when the file is buffered. `required` says that nothing may go
    through the page cache, `uncached` that what does need not stay there (RWF_DONTCACHE).
    `atomic_write_bytes` are the shortest and the longest atomic write, None where there is none.
    """

    fd: int
    path: str
    direct: bool
    block_bytes: int
    memory_bytes: int
    required: bool = False
    uncached: bool = False
    atomic_write_bytes: tuple[int, int] | None = None

    @property
    def cache(self) -> Cache:
        """How big aligned writes go to the disk."""
        return "direct" if self.direct else "uncached" if self.uncached else "cached"


async def open_file(reactor: Reactor, operation: Operation, path: str, direct: Direct) -> OpenFile:
    """Open by `operation` and settle direct or buffered. The caller closes the descriptor."""
    if direct not in {"auto", "require", "never"}:
        raise ValueError(f'direct must be "auto", "require" or "never", not {direct!r}')
    fd = await reactor.perform(operation)
    if fd < 0:
        raise operation_error(-fd, "open", path)
    try:
        memory_bytes = 0 if direct == "never" else _switch_to_direct(fd, operation.flags)
        if direct == "require" and not memory_bytes:
            raise UnavailableError(f'{path}: {NOT_OFFERED}; direct="auto" writes it buffered')
    except BaseException:
        os.close(fd)
        raise
    if not memory_bytes:
        uncached = direct == "auto" and takes_uncached(fd)
        return OpenFile(fd, path, False, block_bytes=1, memory_bytes=1, uncached=uncached)
    units = libc.statx_atomic_write(fd)
    required = direct == "require"
    return OpenFile(fd, path, True, BLOCK_BYTES, memory_bytes, required, atomic_write_bytes=units)


def _switch_to_direct(fd: int, flags: int) -> int:
    """Set O_DIRECT; the result is the alignment of memory in bytes, 0 when it is not to be had."""
    said = libc.statx_direct_alignment(fd)
    if not O_DIRECT or said == (0, 0) or (said and said.offset > BLOCK_BYTES):
        return 0
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, before | O_DIRECT)
    except OSError:
        return 0
    if said is not None:
        return said.memory
    if _refuses_unaligned(fd, fresh=bool(flags & os.O_EXCL)):
        return BLOCK_BYTES
    fcntl.fcntl(fd, fcntl.F_SETFL, before)
    return 0


def _refuses_unaligned(fd: int, *, fresh: bool) -> bool:
    try:
        if fresh:  # reading an empty file ends before anything is checked
            os.pwrite(fd, b"\0", 0)
            os.ftruncate(fd, 0)
        else:
            os.pread(fd, 1, 0)
    except OSError as exc:
        return exc.errno == errno.EINVAL
    return False


def takes_uncached(fd: int) -> bool:
    """Whether this file takes RWF_DONTCACHE: asked by a read behind the end of any file.

    The file system answers for reads and writes alike, EOPNOTSUPP where it knows no such thing.
    """
    if not IS_LINUX or kernel_version() < UNCACHED_SINCE:
        return False
    try:
        os.preadv(fd, [bytearray(1)], BEHIND_ALL, RWF_DONTCACHE)
    except OSError:
        return False
    return True


async def open_directory(reactor: Reactor, path: str) -> int:
    """Open a directory for *at() calls and for fsync; the result is the descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    fd = await reactor.perform(operations.open_at(AT_FDCWD, path or ".", flags))
    if fd < 0:
        raise operation_error(-fd, "open", path)
    return fd


AT_FDCWD = -100
"""openat(2): relative to the working directory."""
