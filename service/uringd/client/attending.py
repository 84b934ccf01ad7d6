"""Looking after the lanes of an upload whose source is silent.

A lane learns that its connection is lost when it reads or sends, and one that waits for its next
bytes does neither. Up to a chunk of each lane then is in the buffer of a dead connection, and who
waits for the upload's positions waits for the source. So while a stream has nothing its lanes are
listened to: a lane that is lost gets a session again, and what it had sent in vain is sent at once.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import anyio

from uringd.client.sending import send_one
from uringd.client.together import together
from uringd.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from uringd.client.filling import Filling
    from uringd.client.lane import Lane


class Attending:
    """One wait for a source."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling
        self._done = False
        self._waits: set[anyio.CancelScope] = set()

    async def run(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await `wait`, and do what lanes that rest have to do. Raises ClientError.

        What is being sent when `wait` ends is sent whole: half a frame is a lost connection.
        """
        lanes = [partial(self._attend, lane) for lane in self._filling.lanes]
        await together([partial(self._wait, wait), *lanes])

    async def _wait(self, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        self._done = True
        for scope in self._waits:
            scope.cancel()

    async def _attend(self, lane: Lane) -> None:
        filling = self._filling
        while not self._done:
            try:
                with self._until_done():
                    await self._next(lane)
                while lane.resting and lane.ready and filling.again and not self._done:
                    await send_one(filling, lane, filling.again.popleft())
            except ClientError as exc:
                filling.check()
                filling.lost(lane, exc)

    async def _next(self, lane: Lane) -> None:
        """Wait for the next thing that concerns a lane."""
        filling = self._filling
        if not lane.resting:  # it is sending still
            await filling.changed()
        elif not lane.ready:
            await filling.try_to_mend(lane)
        elif not filling.again:
            await lane.hear()
            filling.check()

    @contextlib.contextmanager
    def _until_done(self) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)
