"""What becomes of a piece that a lane has in hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.uringd.client.test_filling import CHUNK_BYTES, filling
from uringd.client.chunk import Memory, Piece
from uringd.client.sending import send_one
from uringd.errors import ConnectionLostError
from uringd.wire import SendCredit, crc32c

if TYPE_CHECKING:
    from uringd.client.filling import Filling
    from uringd.client.lane import Lane
    from uringd.client.link import Link


def lane_of(made: Filling, credit: int) -> Lane:
    """A lane whose connection breaks as soon as it is waited for."""

    async def next_event() -> None:
        raise ConnectionLostError("it broke")

    lane = made.lanes[0]
    link = SimpleNamespace(
        alive=True, places=None, credit=SendCredit(credit), next_event=next_event
    )
    lane.handle, lane.link = 1, cast("Link", link)
    return lane


def piece_of(made: Filling) -> Piece:
    piece = Piece(CHUNK_BYTES, CHUNK_BYTES, Memory(CHUNK_BYTES), CHUNK_BYTES)
    piece.crc32c = crc32c(bytes(CHUNK_BYTES))
    made.count(piece)
    return piece


async def test_what_has_not_begun_to_leave_is_put_back() -> None:
    made = filling()
    piece = piece_of(made)
    with pytest.raises(ConnectionLostError):
        await send_one(made, lane_of(made, 0), piece)
    assert list(made.again) == [piece]


async def test_what_needs_no_sending_is_dropped() -> None:
    made = filling()
    piece = piece_of(made)
    lane = lane_of(made, 1)
    made.resumed_with(made.lanes[1], [(0, 2 * CHUNK_BYTES)], bytes(16))
    await send_one(made, lane, piece)
    assert not made.again
    assert not lane.sent
