"""Lanes at work: each takes the next chunk when it can send it, and what it loses is taken again.

A lane that reconnects is waited for at the end only: it knows by RESUME which of what it had sent
has arrived. When there is nothing else for it to do than to come back, it is let off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from uringd.errors import ClientError

if TYPE_CHECKING:
    from uringd.client.chunk import Piece
    from uringd.client.filling import Filling
    from uringd.client.lane import Lane
    from uringd.client.supply import Supply

OTHERS_S = 2.0
"""How long lanes with nothing to do wait for one that reconnects, before they send what it had
sent: it would know which of it arrived."""


class Sending:
    """One call for what there is to be sent: `again`, and what `supply` has until it ends."""

    def __init__(self, filling: Filling, supply: Supply | None) -> None:
        self._filling = filling
        self._supply = supply

    async def run(self, lane: Lane) -> None:
        """Send by one lane what it finds to send. Raises ClientError."""
        filling = self._filling
        while True:
            if not lane.ready and not await self._mended(lane):
                return
            try:
                await lane.settle_doubt()
                piece = await self._take(lane)
                if piece is None:
                    return
                if not lane.ready:
                    filling.again.appendleft(piece)
                    continue
                await send_one(filling, lane, piece)
                await filling.sync_if_due(lane)
            except ClientError as exc:
                filling.check()
                filling.lost(lane, exc)

    @property
    def _has_ended(self) -> bool:
        return self._supply is None or self._supply.ended

    async def _mended(self, lane: Lane) -> bool:
        """Mend a lane; False when the others did all there was to do meanwhile.

        The first try is not given up for that: a lane is not of use to short calls otherwise.
        """
        filling = self._filling
        while not lane.ready:
            idle = self._has_ended and not filling.again and not lane.sent
            if idle and any(other.ready for other in filling.lanes):
                return False
            with anyio.CancelScope() as scope:
                lane.mending = scope if lane.reason is not None else None
                try:
                    await filling.try_to_mend(lane)
                finally:
                    lane.mending = None
        return True

    async def _take(self, lane: Lane) -> Piece | None:
        """Choose what a lane sends next. None: there is nothing left for it."""
        filling = self._filling
        while True:
            filling.check()
            if filling.again:
                return filling.again.popleft()
            if self._supply is not None and not self._supply.ended:
                piece = await self._supply.next(lane)
                if piece is not None:
                    return piece
                if filling.again:
                    continue
            broken = [other for other in filling.lanes if other.mending is not None]
            if self._has_ended and not any(other.sent for other in broken):
                for other in broken:
                    other.mending.cancel()  # type: ignore[union-attr]  # it is none of these
                return None
            with anyio.move_on_after(OTHERS_S) as scope:
                await filling.changed()
            if scope.cancelled_caught:
                filling.take_over(broken)


async def send_one(filling: Filling, lane: Lane, piece: Piece) -> None:
    """Send a piece, unless it is not wanted as it is. Raises ClientError.

    What has not begun to leave when this ends early is put back.
    """
    before = piece.serial
    try:
        await lane.send(piece, filling.source)
    except BaseException:
        if piece.serial == before:
            filling.again.appendleft(piece)
        raise
