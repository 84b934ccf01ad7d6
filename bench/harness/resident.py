"""How much of a file the page cache holds (mincore(2)), which is what a direct write saves.

mincore of a mapping that was never touched tells of the file's pages in the cache, of whoever put
them there, and reads none of them. It is asked right after a contender has ended, before anybody
reads its file. The counters of /proc/meminfo would tell of the whole machine instead.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def cached_bytes(path: Path) -> int | None:
    """Bytes of a file that are in the page cache; None where the kernel does not say."""
    fd = os.open(path, os.O_RDWR)  # it tells only who may write (mincore(2), Linux 5.2)
    try:
        size = os.fstat(fd).st_size
        if not size:
            return 0
        with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE) as mapping:
            pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            anchor = ctypes.c_char.from_buffer(mapping)
            address = ctypes.c_void_p(ctypes.addressof(anchor))
            failed = _libc.mincore(address, ctypes.c_size_t(size), pages)
            del anchor  # a live export would keep the mapping from closing
    finally:
        os.close(fd)
    if failed:
        return None
    resident = sum(bytes(pages).count(value) for value in range(1, 256, 2))
    return min(size, resident * mmap.PAGESIZE)
