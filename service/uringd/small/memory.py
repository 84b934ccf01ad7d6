"""Memory of small uploads between their header and their answer, shared by all sessions.

Nothing of a request's payload is read before there is room for it, so that sessions and requests
are bounded by this and not by their number. Room comes back with every group that is published: who
waits here waits for the disk, or for a client that sends too slowly, and that one is evicted.
"""

from __future__ import annotations

import trio

BYTES_MAX = 32 << 20
"""For all sessions: two groups of the longest there are."""

SHARE_BYTES_MAX = 8 << 20
"""What one session may have of that: four greedy ones leave the fifth waiting for one group."""

EACH_BYTES = 2048
"""Counted for each small upload besides its payload: its objects, so that empty ones count too."""


class Share:
    """What one session holds, in bytes."""

    def __init__(self) -> None:
        self.held_bytes = 0


class Memory:
    """Room for requests, in bytes."""

    def __init__(self) -> None:
        self.free_bytes = BYTES_MAX
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._lot)

    async def take(self, share: Share, length: int) -> int:
        """Wait until there is room for a payload of `length` bytes; the result is to be given."""
        wanted = length + EACH_BYTES
        while self.free_bytes < wanted or share.held_bytes + wanted > SHARE_BYTES_MAX:
            await self._lot.park()
        self.free_bytes -= wanted
        share.held_bytes += wanted
        return wanted

    def give(self, share: Share, count: int) -> None:
        """Give room back."""
        share.held_bytes -= count
        self.free_bytes += count
        if self._lot:
            self._lot.unpark_all()
