"""A lock for each of many names: one task at a time for the same one, any number for others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from collections.abc import Set as AbstractSet


class KeyedLock:
    """Holds as many names as tasks are inside; a name nobody holds costs nothing."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._freed = trio.lowlevel.ParkingLot()

    def __contains__(self, name: str) -> bool:
        return name in self._held

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait until nobody holds `name`, and hold it. Cancellable while it waits."""
        names = {name}
        await self.take(names)
        try:
            yield
        finally:
            self.free(names)

    async def take(self, names: AbstractSet[str]) -> None:
        """Wait until nobody holds any of `names`, and hold them all, until `free`.

        Nothing is held meanwhile, so that two who want the same never wait for each other.
        """
        while not self._held.isdisjoint(names):
            await self._freed.park()
        self._held |= names

    def free(self, names: AbstractSet[str]) -> None:
        """Let go of what was taken."""
        self._held -= names
        self._freed.unpark_all()
