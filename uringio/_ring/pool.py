"""The pool: slots for the bytes on their way to the disk, in one increment or in several.

It begins with the slots that were asked for and may grow up to `slots_max`, one increment at a
time, each a mapping of its own. Slots of old and new increments are in use side by side, so nothing
stops while it grows; an increment goes again as a whole, when none of its slots is held.

A free slot is given out by the lowest index. So what is needed least is what was added last, and
that becomes free as a whole when demand falls.
"""

from __future__ import annotations

import re
import resource
from heapq import heapify, heappop, heappush
from pathlib import Path

from uringio._ring.increment import PAGE_BYTES, Increment, Slot

SLOT_BYTES_MIN = 4 << 10
SLOT_BYTES_MAX = 16 << 20
"""A slot is one write: beyond 16 MiB the device cuts it up anyway and one failure costs more."""

SLOTS_MIN = 2
"""One slot fills while the other is written."""
SLOTS_MAX = 16_384
"""The kernel's own bound on registered buffers (io_uring_register(2))."""

MEMORIES_MAX = 256
"""Pieces of memory beside the pool that may be registered at once, where the kernel's bound leaves
room: a slab for each of so many clients. An empty entry of the table costs 16 bytes."""

INCREMENT_BYTES = 8 << 20
INCREMENT_SLOTS = 256
"""What the pool grows by at a time at the most, or one slot where that is bigger. To map, touch and
register 8 MiB of huge pages takes 1 ms (16 MiB, 2 ms), in which the event loop runs nothing else;
the disk goes on with what is in flight, and who waits for a slot has waited longer already. Small
slots cost by their number, and 256 of them as much."""

RING_BYTES_MAX = 512 << 10
"""What the ring's own queues may take of RLIMIT_MEMLOCK, at 4,096 entries."""

SLOTS_DEFAULT = 16
SLOT_BYTES_DEFAULT = 1 << 20
"""16 slots of 1 MiB keep this project's reference disks busy; more depth gained nothing there."""


class BufferPool:
    """`count` slots of `slot_bytes` bytes each, page-aligned and touched, and up to `slots_max`.

    `take` and `give` are plain: who waits for a slot, waits in the layer above.
    """

    def __init__(self, count: int, slot_bytes: int, slots_max: int | None = None) -> None:
        slots_max = count if slots_max is None else slots_max
        if not SLOTS_MIN <= count <= SLOTS_MAX:
            raise ValueError(f"slots must be {SLOTS_MIN} to {SLOTS_MAX}, not {count}")
        if not count <= slots_max <= SLOTS_MAX:
            raise ValueError(f"slots_max must be {count} (slots) to {SLOTS_MAX}, not {slots_max}")
        if not SLOT_BYTES_MIN <= slot_bytes <= SLOT_BYTES_MAX or slot_bytes % PAGE_BYTES:
            raise ValueError(
                f"slot_bytes must be a multiple of {PAGE_BYTES} from {SLOT_BYTES_MIN} to "
                f"{SLOT_BYTES_MAX}, not {slot_bytes}"
            )
        self.slot_bytes = slot_bytes
        self.slots_min, self.slots_max = count, slots_max
        self.growths = self.shrinks = 0
        self.increments: list[Increment] = []
        self.free: list[int] = []
        self._slots: dict[int, Slot] = {}
        self._add(Increment(0, count, slot_bytes))
        self._free_min = count

    @property
    def slots(self) -> list[Slot]:
        """All slots there are now."""
        return list(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def take(self) -> Slot | None:
        """Take a free slot, or None. Its view is whole again and its length 0."""
        if not self.free:
            return None
        slot = self._slots[heappop(self.free)]
        slot.view, slot.length, slot.taken = slot.memory, 0, True
        self._free_min = min(self._free_min, len(self.free))
        return slot

    def give(self, slot: Slot) -> None:
        """Put a slot back: only when no operation uses it any more."""
        assert slot.taken, "a slot was given back twice"
        slot.taken = False
        heappush(self.free, slot.index)

    def map_increment(self) -> Increment | None:
        """Map the next increment, or None at `slots_max`. `add` makes its slots the pool's.

        Raises `UringioError` where there is not so much memory.
        """
        step = min(max(1, INCREMENT_BYTES // self.slot_bytes), INCREMENT_SLOTS)
        used = {increment.first for increment in self.increments}
        for first in range(self.slots_min, self.slots_max, step):
            if first not in used:
                return Increment(first, min(step, self.slots_max - first), self.slot_bytes)
        return None

    def add(self, increment: Increment) -> None:
        """Take the slots of an increment in: they are free from now on."""
        self._add(increment)
        self.growths += 1

    def idle_increment(self) -> Increment | None:
        """Find an increment that nobody needed since the last call; never the first one.

        Not needed are as many slots as were free all the time.
        """
        spare, self._free_min = self._free_min, len(self.free)
        for increment in reversed(self.increments[1:]):
            if len(increment.slots) <= spare and increment.is_free():
                return increment
        return None

    def remove(self, increment: Increment) -> None:
        """Unmap an increment, which is not registered any more and whose slots are all free."""
        assert increment.is_free(), "a slot of it is held"
        assert all(slot.buffer_index < 0 for slot in increment.slots), "it is registered"
        self.increments.remove(increment)
        for slot in increment.slots:
            del self._slots[slot.index]
        self.free = [index for index in self.free if index in self._slots]
        heapify(self.free)
        self._free_min = min(self._free_min, len(self.free))
        self.shrinks += 1
        increment.close()

    def has_huge_pages(self) -> bool:
        """Whether the kernel backs any of the first increment with huge pages now."""
        return bool(self.increments) and self.increments[0].has_huge_pages()

    def close(self) -> None:
        """Unmap. Views that users still hold keep their memory until they drop it."""
        self.free.clear()
        self._slots.clear()
        for increment in self.increments:
            increment.close()
        self.increments.clear()

    def _add(self, increment: Increment) -> None:
        self.increments.append(increment)
        for slot in increment.slots:
            self._slots[slot.index] = slot
            heappush(self.free, slot.index)


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
