"""A lock for each of many names: one task at a time for the same one, any number for others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
        while name in self._held:
            await self._freed.park()
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
            self._freed.unpark_all()
