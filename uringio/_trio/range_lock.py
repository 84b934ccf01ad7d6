"""RangeLock: byte ranges of one file, each for one task at a time, first come, first served.

Who comes later waits for every earlier one that it overlaps, also for those that are still waiting
themselves: so nobody is overtaken, and ranges that do not touch never wait for one another. Nobody
can wait in a circle, because everybody waits only for who came before.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class RangeLock:
    """Ranges that are held or waited for. As many as there are tasks that ask for one."""

    def __init__(self) -> None:
        self._claims: list[_Claim] = []

    @property
    def claims(self) -> int:
        """Ranges held or waited for."""
        return len(self._claims)

    @contextlib.asynccontextmanager
    async def hold(self, start: int, end: int) -> AsyncIterator[None]:
        """Hold the bytes from `start` up to `end`. A cancelled wait leaves nothing behind."""
        claim = _Claim(start, end)
        claim.before = {other for other in self._claims if claim.overlaps(other)}
        self._claims.append(claim)
        try:
            if claim.before:
                await claim.turn.wait()
            yield
        finally:
            self._claims.remove(claim)
            for other in self._claims:
                other.let_go(claim)


class _Claim:
    __slots__ = ("before", "end", "start", "turn")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.before: set[_Claim] = set()
        self.turn = trio.Event()

    def overlaps(self, other: _Claim) -> bool:
        return self.start < other.end and other.start < self.end

    def let_go(self, other: _Claim) -> None:
        if other in self.before:
            self.before.remove(other)
            if not self.before:
                self.turn.set()
