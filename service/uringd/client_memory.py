"""Memory of a client: what is asked of it before the disk, or we, read from it.

What a client can do to memory that it shares, and what follows:
- A file that it truncates turns every access from user space beyond its new end into SIGBUS, which
  would end the server. The kernel's own accesses fail with EFAULT, or are short.
- A descriptor can be of anything: a pipe, a file of a slow disk, a file whose file system is a
  program of the client's (FUSE), which never answers, not even fstat(2), statfs(2) or the flush
  that is in close(2). Only memory answers at once, and F_GET_SEALS, which asks no file system, says
  what is memory; so that comes first, and what is none is closed by a thread that has time.
- Memory of huge pages (hugetlbfs) is not taken: a page that is not there yet may be one that is not
  to be had, and that is SIGBUS again.
- Seals are for ever, and only memfd_create makes files that can be sealed. With SHRINK and GROW the
  size stays; with WRITE no byte changes any more and no hole can be punched; the kernel adds WRITE
  only when nobody has a writable mapping and no page is pinned. With SEAL nothing can be added.

So `sealed` memory is the one memory of a client that is read from user space, for its checksum: its
size was looked at after it was sealed, so no access is beyond its end, and it has no holes, so that
no page of it has to be made on our account. What is left is a page that the machine's memory or
swap has lost, and that ends any program, whosever page it was. A client's userfaultfd(2) watches
its own mappings, never ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import queue
import threading
from dataclasses import dataclass

from uringd.config import ALIGNMENT_BYTES
from uringd.upload_errors import UploadError
from uringd.wire import ErrorCode
from uringio.lowlevel import Slot, file_system_type

TMPFS_MAGIC = 0x01021994
"""f_type of statfs(2), linux/magic.h: also of every memfd that is not of huge pages."""

F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE = 1, 2, 4, 8, 16
"""linux/fcntl.h; Python's fcntl has most of them, and on Linux only. FUTURE_WRITE: Linux 5.1."""

SEALS_WANTED = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE

BLOCK_BYTES = 512
"""What st_blocks counts in (stat(2))."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a descriptor turned out to be: `size` and `allocated` in bytes."""

    size: int
    allocated: int


def find_memory(fd: int) -> Found:
    """Look at what a client gave for its memory. Raises UploadError (UNSUPPORTED)."""
    if not is_memory(fd):
        raise _refusal("it is no memory of memfd_create(2)")
    if file_system_type(fd) != TMPFS_MAGIC:
        raise _refusal("it is of huge pages")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise _refusal("it cannot be read")
    found = os.fstat(fd)
    return Found(found.st_size, found.st_blocks * BLOCK_BYTES)


def is_memory(fd: int) -> bool:
    """Whether a descriptor is of memory, on tmpfs or of huge pages; asks nobody but the kernel."""
    try:
        fcntl.fcntl(fd, F_GET_SEALS)
    except OSError:
        return False
    return True


class Closer:
    """Closes what clients gave: memory at once, anything else in a thread, which may wait long.

    One thread for all: what a client keeps it from closing are that client's own descriptors, and
    those of others who send what is no memory.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def close(self, fd: int) -> None:
        """Close a descriptor, now or some time."""
        if is_memory(fd):
            os.close(fd)
            return
        self._queue.put(fd)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="uringd closer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # of a write that failed: not ours
                os.close(self._queue.get())


CLOSER = Closer()


def check_attached(fd: int, size: int) -> None:
    """Refuse to attach what is no memory of `size` bytes. Raises UploadError (UNSUPPORTED)."""
    found = find_memory(fd)
    if not size or found.size != size:
        raise _refusal(f"it has {found.size} bytes, and {size} were said")


def check_sealed(fd: int, offset: int, length: int) -> None:
    """Refuse a chunk's memory that could change. Raises UploadError (UNSUPPORTED)."""
    found = find_memory(fd)
    seals = fcntl.fcntl(fd, F_GET_SEALS)
    if seals & SEALS_WANTED != SEALS_WANTED:
        raise _refusal("it is not sealed: add F_SEAL_WRITE, SHRINK, GROW and SEAL")
    size = os.fstat(fd).st_size  # again: now it stays
    if offset + length > size:
        raise _refusal(f"it has {size} bytes, and the chunk ends at {offset + length}")
    if found.allocated < size:
        raise _refusal("it has holes: write all of it before it is sealed")


class SealedSlot(Slot):
    """A chunk in sealed memory, mapped for as long as it is a slot. It is not a slot of the pool.

    The mapping ends with the last reference to its memory, which may be the ring's.
    """

    __slots__ = ()

    def __init__(self, fd: int, offset: int, length: int) -> None:
        assert offset % ALIGNMENT_BYTES == length % ALIGNMENT_BYTES == 0
        try:
            mapping = mmap.mmap(
                fd,
                length,
                flags=mmap.MAP_SHARED | mmap.MAP_POPULATE,
                prot=mmap.PROT_READ,
                offset=offset,
            )
        except (OSError, ValueError) as exc:
            raise _refusal(f"it cannot be mapped ({exc})") from exc
        super().__init__(-1, memoryview(mapping))

    def release(self) -> None:
        """Let go of the memory."""
        self.view = self.memory = memoryview(b"")


def _refusal(why: str) -> UploadError:
    return UploadError(ErrorCode.UNSUPPORTED, f"the memory cannot be used: {why}")
