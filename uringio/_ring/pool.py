"""The pool: page-aligned memory cut into slots, registered with the ring where that can be had.

What the kernel wants of such memory:
- `mmap.mmap(-1, n)` is MAP_SHARED, and shared anonymous memory gets no huge pages. The pool asks
  for MAP_PRIVATE, aligns itself to 2 MiB, says MADV_HUGEPAGE and touches every page before it is
  registered: the kernel pins the pages that are there then. A device takes 254 segments a request,
  so 1 MiB of scattered 4 KiB pages is two requests, and one piece of a huge page is one.
- A pool that is unmapped while it is registered is not an error: the kernel goes on writing the old
  pages and calls it success. The pool therefore outlives the ring.
- After fork(2), pages pinned for I/O would be copied on the next write and the ring would see the
  old copy. MADV_DONTFORK keeps the pool out of the child: there, its views must not be touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import resource
from pathlib import Path

from uringio.exceptions import UringioError

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
HUGE_PAGE_BYTES = 2 << 20
"""Transparent huge pages of x86-64 and of arm64 with 4 KiB pages; elsewhere just an alignment."""

SLOT_BYTES_MIN = 4 << 10
SLOT_BYTES_MAX = 16 << 20
"""A slot is one write: beyond 16 MiB the device cuts it up anyway and one failure costs more."""

SLOTS_MIN = 2
"""One slot fills while the other is written."""
SLOTS_MAX = 16_384
"""The kernel's own bound on registered buffers (io_uring_register(2))."""

RING_BYTES_MAX = 512 << 10
"""What the ring's own queues may take of RLIMIT_MEMLOCK, at 4,096 entries."""

SLOTS_DEFAULT = 16
SLOT_BYTES_DEFAULT = 1 << 20
"""16 slots of 1 MiB keep this project's reference disks busy; more depth gained nothing there."""


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


class BufferPool:
    """`count` slots of `slot_bytes` bytes each, page-aligned and touched.

    `take` and `give` are plain: who waits for a slot, waits in the layer above.
    """

    def __init__(self, count: int, slot_bytes: int) -> None:
        if not SLOTS_MIN <= count <= SLOTS_MAX:
            raise ValueError(f"slots must be {SLOTS_MIN} to {SLOTS_MAX}, not {count}")
        if not SLOT_BYTES_MIN <= slot_bytes <= SLOT_BYTES_MAX or slot_bytes % PAGE_BYTES:
            raise ValueError(
                f"slot_bytes must be a multiple of {PAGE_BYTES} from {SLOT_BYTES_MIN} to "
                f"{SLOT_BYTES_MAX}, not {slot_bytes}"
            )
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
            Slot(i, self._memory[i * slot_bytes : (i + 1) * slot_bytes]) for i in range(count)
        ]
        self.free = list(reversed(self.slots))

    def take(self) -> Slot | None:
        """Take a free slot, or None. Its view is whole again and its length 0."""
        if not self.free:
            return None
        slot = self.free.pop()
        slot.view, slot.length, slot.taken = slot.memory, 0, True
        return slot

    def give(self, slot: Slot) -> None:
        """Put a slot back: only when no operation uses it any more."""
        assert slot.taken, "a slot was given back twice"
        slot.taken = False
        self.free.append(slot)

    def has_huge_pages(self) -> bool:
        """Whether the kernel backs any of the pool with huge pages now (/proc/self/smaps)."""
        try:
            text = Path("/proc/self/smaps").read_text()
        except OSError:
            return False
        return huge_bytes_at(text, self.address) > 0

    def close(self) -> None:
        """Unmap. Views that users still hold keep their memory until they drop it."""
        self.free.clear()
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


def memlock_limit() -> int | None:
    """RLIMIT_MEMLOCK in bytes, or None where this process may lock all it likes."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY or _may_lock_all() else limit


def _may_lock_all() -> bool:
    """CAP_IPC_LOCK (bit 14) is effective: the limit is not looked at (capabilities(7))."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(match and int(match[1], 16) >> 14 & 1)


def default_slots(slot_bytes: int, wanted: int = SLOTS_DEFAULT) -> int:
    """As many slots as RLIMIT_MEMLOCK lets an unprivileged user register, up to `wanted`."""
    limit = memlock_limit()
    if limit is None:
        return wanted
    return max(SLOTS_MIN, min(wanted, (limit - RING_BYTES_MAX) // slot_bytes))
