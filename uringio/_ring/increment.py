"""Increment: one mapping of page-aligned memory, cut into slots. A pool is made of these.

What the kernel wants of such memory:
- `mmap.mmap(-1, n)` is MAP_SHARED, and shared anonymous memory gets no huge pages. An increment
  asks for MAP_PRIVATE, aligns itself to 2 MiB, says MADV_HUGEPAGE and touches every page before it
  is registered: the kernel pins the pages that are there then. A device takes 254 segments a
  request, so 1 MiB of scattered 4 KiB pages is two requests, and one piece of a huge page is one.
- Memory that is unmapped while it is registered is not an error: the kernel goes on writing the old
  pages and calls it success. So it is unregistered first, or it outlives the ring.
- After fork(2), pages pinned for I/O would be copied on the next write and the ring would see the
  old copy. MADV_DONTFORK keeps them out of the child: there, their views must not be touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from pathlib import Path

from uringio.exceptions import UringioError

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
HUGE_PAGE_BYTES = 2 << 20
"""Transparent huge pages of x86-64 and of arm64 with 4 KiB pages; elsewhere just an alignment."""


class Slot:
    """One chunk-sized piece of the pool.

    `view` is the writable memory to fill, and `length` how many of its bytes were filled.
    """

    __slots__ = ("buffer_index", "index", "length", "memory", "taken", "view")

    def __init__(self, index: int, memory: memoryview) -> None:
        self.index = index
        self.memory = memory
        self.view = memory
        self.length = 0
        self.buffer_index = -1
        self.taken = False


class Increment:
    """`count` slots of `slot_bytes` bytes each, touched, with indices from `first` on.

    Raises `UringioError` where there is not so much memory.
    """

    def __init__(self, first: int, count: int, slot_bytes: int) -> None:
        self.first = first
        self.slot_bytes = slot_bytes
        self.size = count * slot_bytes
        self._map = _map_private(self.size + HUGE_PAGE_BYTES)
        anchor = ctypes.c_char.from_buffer(self._map)
        start = -ctypes.addressof(anchor) % HUGE_PAGE_BYTES
        self.address = ctypes.addressof(anchor) + start
        del anchor  # a live export would keep the mapping from closing
        _advise(self._map, start, self.size)
        self._memory = memoryview(self._map)[start : start + self.size]
        for offset in range(0, self.size, PAGE_BYTES):
            self._memory[offset] = 0  # touched: what gets registered is what will be written
        self.slots = [
            Slot(first + i, self._memory[i * slot_bytes : (i + 1) * slot_bytes])
            for i in range(count)
        ]

    def is_free(self) -> bool:
        """Whether nobody holds any of its slots."""
        return not any(slot.taken for slot in self.slots)

    def has_huge_pages(self) -> bool:
        """Whether the kernel backs any of it with huge pages now (/proc/self/smaps).

        The kernel walks every page of the process to answer, milliseconds: not for an increment
        that no huge page fits into.
        """
        if self.size < HUGE_PAGE_BYTES:
            return False
        try:
            text = Path("/proc/self/smaps").read_text()
        except OSError:
            return False
        return huge_bytes_at(text, self.address) > 0

    def close(self) -> None:
        """Unmap. Views that users still hold keep their memory until they drop it."""
        for slot in self.slots:
            slot.view = slot.memory = memoryview(b"")
        self.slots.clear()
        self._memory = memoryview(b"")
        try:
            self._map.close()
        except BufferError:
            return  # somebody kept a view: the mapping goes when the view does


def _map_private(length: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise UringioError(
            f"no {length} bytes of memory for the pool: ask for fewer or smaller slots"
        ) from exc


def _advise(mapping: mmap.mmap, start: int, length: int) -> None:
    for advice in ("MADV_HUGEPAGE", "MADV_DONTFORK"):
        if hasattr(mmap, advice):
            try:
                mapping.madvise(getattr(mmap, advice), start, length)
            except OSError:  # a kernel built without huge pages: has_huge_pages() tells
                continue


def huge_bytes_at(smaps: str, address: int) -> int:
    """Bytes of huge pages in the mapping that holds `address`, read from smaps text (proc(5))."""
    inside = False
    for line in smaps.splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0
