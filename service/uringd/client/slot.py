"""A chunk that the application fills where it leaves from."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uringd.client.filling import Filling
    from uringd.client.lane import Lane
    from uringd.client.places import Place
    from uringd.client.supply import Feeding
    from uringd.client.upload import ClientUpload


class ClientSlot:
    """Memory for one chunk: fill `view`, and say in `length` how many of its bytes were filled."""

    __slots__ = ("length", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.length = 0


@contextlib.asynccontextmanager
async def lend(
    upload: ClientUpload, filling: Filling, feeding: Feeding
) -> AsyncIterator[ClientSlot]:
    """Lend memory, and send what is in it at the end. `ClientUpload.slot` says how it is used."""
    if filling.again or filling.retained.full:
        await filling.pump()
        if filling.retained.full:
            await filling.sync()
    lane, place = await _place(filling)
    memory = filling.retained.borrow(filling.chunk_bytes) if place is None else None
    view = (memory or place).view[: filling.chunk_bytes]  # type: ignore[union-attr]  # one of them
    slot = ClientSlot(view)
    try:
        yield slot
    except BaseException:
        if place is not None:
            place.put_back()
        raise
    if not 0 <= slot.length <= len(view):
        raise ValueError(f"a slot of {len(view)} bytes cannot have {slot.length} of them filled")
    whole = slot.length == filling.chunk_bytes and feeding.is_at_a_chunks_begin
    if not whole:
        await upload.write(view[: slot.length])
        if place is not None:
            place.put_back()
        return
    if memory is None:  # the place is used again before this is durable
        memory = filling.retained.borrow(slot.length)
        memory.view[: slot.length] = view
    piece = feeding.take_whole(view, memory)
    if place is not None:
        del view
        slot.view = memoryview(b"")  # memory that is mapped for writing cannot be sealed
        lane.hand_in(piece, place)
    filling.send_again(piece)
    await filling.pump()


async def _place(filling: Filling) -> tuple[Lane, Place | None]:
    """Wait for a place of the lane that is next, None where it shares no memory."""
    while True:
        lane = await filling.next_lane()
        await filling.mend(lane)
        try:
            return lane, await lane.lend()
        except ClientError as exc:
            filling.check()
            filling.lost(lane, exc)
