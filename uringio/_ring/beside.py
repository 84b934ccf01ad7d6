"""What stands beside an io_uring and is used from C.

Registered memory, many writes under way, and how many system calls C has made.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from uringio import _binding
from uringio._ring.many import IN_FLIGHT_MAX, MANY_MAX, STARTED
from uringio._ring.pool import MEMORIES_MAX, SLOTS_MAX
from uringio.exceptions import BrokenError

if TYPE_CHECKING:
    from uringio._ring.increment import Increment
    from uringio._ring.many import Many

lib: Any = _binding.lib
ffi: Any = _binding.ffi

PART = 1 << 63
"""Tokens with this bit are parts of many writes (liburing.csrc.c)."""


class Beside:
    """Fills and reads `struct uringio_beside`."""

    def __init__(self, entries: int) -> None:
        self.memory = ffi.new("struct uringio_beside *")
        self.not_submitted = False
        self._in_flight_max = min(IN_FLIGHT_MAX, entries)
        self._number = 0
        self._regions: dict[int, tuple[int, int, int]] = {}
        self._kept: Any = None

    def register(self, increment: Increment, count: int) -> None:
        """Note which memory is registered, so that what lies in it becomes a fixed operation."""
        start, first = increment.address, increment.first
        self.memory.slot_bytes = increment.slot_bytes
        self._regions[first] = (start, start + count * increment.slot_bytes, first)
        self._show_regions()

    def unregister(self, increment: Increment) -> None:
        """Forget memory: what lies in it is plain from the next submit on."""
        del self._regions[increment.first]
        self._show_regions()

    def _show_regions(self) -> None:
        self._kept = ffi.new("struct uringio_region[]", sorted(self._regions.values()))
        self.memory.regions, self.memory.region_count = self._kept, len(self._regions)

    def add(self, many: Many, token: int) -> Any:  # cffi's own
        """Begin many writes at the next submit; what is returned must live until they ended."""
        assert self.memory.running_count < MANY_MAX, "the caller keeps count"
        running = ffi.new("struct uringio_many *")
        arrays = [
            ffi.from_buffer(kind, array)
            for kind, array in (
                ("uint64_t[]", many.addresses),
                ("uint64_t[]", many.offsets),
                ("int32_t[]", many.lengths),
                ("int32_t[]", many.results),
            )
        ]
        running.addresses, running.offsets, running.lengths, running.results = arrays
        self._number = self._number + 1 & 0x7FFFFFFF
        running.token, running.number = token, self._number
        running.count, running.in_flight_max = len(many.views), self._in_flight_max
        running.fd, running.flags = many.fd, many.flags
        self.memory.running[self.memory.running_count] = running
        self.memory.running_count += 1
        self.not_submitted = True
        return running, arrays

    def stop(self, kept: Any, many: Many) -> list[int]:
        """Begin no more of them; the result are the tokens of those in flight."""
        running, _ = kept
        running.stop = 1
        return [
            PART | running.number << 32 | at
            for at in range(running.next)
            if many.results[at] == STARTED
        ]


class Memories:
    """Registered memory that is no part of the pool: one entry of the sparse table for each."""

    def __init__(self) -> None:
        self._free: list[int] | None = None

    def make_table(self, ring: Any, slots_max: int) -> bool:
        """Make room for so many slots, and for memory behind them; False: the kernel has no such.

        A table that entries are put into one by one is from Linux 5.19.
        """
        entries = min(SLOTS_MAX, slots_max + MEMORIES_MAX)
        if lib.io_uring_register_buffers_sparse(ring, entries):
            return False
        self._free = list(range(slots_max, entries))
        return True

    def register(self, ring: Any, address: int, length: int) -> int:
        """Fill an entry: its index, or -errno."""
        if self._free is None:
            return -errno.EOPNOTSUPP
        if not self._free:
            return -errno.ENOMEM
        result: int = lib.uringio_register_slots(ring, self._free[-1], address, length, 1)
        if result != 1:
            return result if result < 0 else -errno.ENOMEM
        return self._free.pop()

    def unregister(self, ring: Any, index: int) -> None:
        """Empty an entry."""
        assert self._free is not None, "it was registered"
        result = lib.uringio_register_slots(ring, index, 0, 0, 1)
        if result != 1:
            raise BrokenError(f"memory cannot be unregistered: {os.strerror(-result)}")
        self._free.append(index)
