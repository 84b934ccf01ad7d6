"""The page cache may show bytes that the disk has not: who compares a file has to look below it.

What the kernel does when a write-back fails: it calls the pages clean, and goes on to show their
bytes to every reader until memory is short. One fsync (or syncfs) is told of it, whoever asks
first, and the next succeeds. So a file that was only written, is equal to what was sent and has
passed an fsync may still be lost. What is clean can be thrown out of the cache, and is then read
from the disk; what is dirty stays, and has an fsync before it that will tell.
"""

from __future__ import annotations

import os


def forget_clean_pages(fd: int, offset: int = 0, length: int = 0) -> None:
    """Have bytes of a file read from the disk, but for those that are still to get there.

    `offset` and `length` in bytes; 0 is up to its end. A hint (posix_fadvise(2)): memory file
    systems have no disk, and pages that a process has mapped stay. Raises OSError.
    """
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
