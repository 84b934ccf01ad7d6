"""What stands beside an io_uring and is used from C.

Registered memory, many writes under way, and how many system calls C has made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uringio import _binding
from uringio._ring.many import IN_FLIGHT_MAX, MANY_MAX, STARTED

if TYPE_CHECKING:
    from uringio._ring.increment import Increment
    from uringio._ring.many import Many

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
