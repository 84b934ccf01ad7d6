"""Memory of small uploads between their header and their answer, shared by all sessions.

Nothing of a request's payload is read before there is room for it, so that sessions and requests
are bounded by this and not by their number. Room comes back with every group that is published: who
waits here waits for the disk, or for a client that sends too slowly, and that one is evicted.

A long content is received into memory that stays: new memory of its size costs a fault for each
page, which is more than the copy. It begins at a page, as writes past the page cache want it, and
counts for a whole piece, however short the content is.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import trio

from uringd.wire import SMALL_BYTES_MAX
from uringio import UringioError
from uringio.lowlevel import Increment, Slot

log = structlog.get_logger("uringd.small")

BYTES_MAX = 32 << 20
"""For all sessions: two groups of fifteen of the longest there are."""

SHARE_BYTES_MAX = 8 << 20
"""What one session may have of that: four greedy ones leave the fifth waiting for one group."""

EACH_BYTES = 2048
"""Counted for each small upload besides its payload: its objects, so that empty ones count too."""

LONG_BYTES_MIN = 256 << 10
"""Payloads from this on get memory that stays. Shorter ones would waste most of it, and the
allocator has memory of their size that is warm."""

LONG_BYTES = SMALL_BYTES_MAX
"""One piece of memory that stays: half of a huge page."""

PIECES = 4
"""Mapped at a time, 4 MiB: a millisecond, in which the kernel clears it."""


class Share:
    """What one session holds, in bytes."""

    def __init__(self) -> None:
        self.held_bytes = 0


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What one small upload counts for, in bytes, and its piece of memory if it is a long one."""

    held_bytes: int
    slot: Slot | None = None

    @property
    def memory(self) -> memoryview | None:
        """Where a long content goes."""
        return None if self.slot is None else self.slot.memory


class Memory:
    """Room for requests, in bytes."""

    def __init__(self) -> None:
        self.free_bytes = BYTES_MAX
        self._lot = trio.lowlevel.ParkingLot()
        self._increments: list[Increment] = []
        self._free: list[Slot] = []

    @property
    def in_use(self) -> bool:
        """Whether a small upload is between its header and its answer."""
        return self.free_bytes < BYTES_MAX

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._lot)

    @property
    def mapped_bytes(self) -> int:
        """Memory that stays, in use or not: BYTES_MAX at the most."""
        return sum(increment.size for increment in self._increments)

    async def take(self, share: Share, length: int) -> Room:
        """Wait until there is room for a payload of `length` bytes; the result is to be given."""
        is_long = length >= LONG_BYTES_MIN
        wanted = (max(length, LONG_BYTES) if is_long else length) + EACH_BYTES
        while self.free_bytes < wanted or share.held_bytes + wanted > SHARE_BYTES_MAX:
            await self._lot.park()
        slot = self._take_slot() if is_long else None
        self.free_bytes -= wanted
        share.held_bytes += wanted
        return Room(wanted, slot)

    def give(self, share: Share, room: Room) -> None:
        """Give room back: nothing reads or writes its memory any more."""
        if room.slot is not None:
            room.slot.taken = False
            self._free.append(room.slot)
        share.held_bytes -= room.held_bytes
        self.free_bytes += room.held_bytes
        if self._lot:
            self._lot.unpark_all()

    def trim(self) -> None:
        """Let memory go of which nobody has a piece."""
        for increment in [one for one in self._increments if one.is_free()]:
            self._increments.remove(increment)
            self._free = [slot for slot in self._free if slot not in increment.slots]
            increment.close()

    def _take_slot(self) -> Slot | None:
        """Take a piece; None where there is no memory for it: then it comes as short ones do."""
        if not self._free:
            first = len(self._increments) * PIECES
            try:
                increment = Increment(first, PIECES, LONG_BYTES)
            except UringioError as exc:
                log.warning("long small uploads are slower", reason=str(exc))
                return None
            self._increments.append(increment)
            self._free += increment.slots
        slot = self._free.pop()
        slot.taken = True
        return slot
