"""Which pieces are sent again: none of what a RESUME said is durable."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from uringd.client.chunk import Piece
from uringd.client.filling import Filling
from uringd.client.watcher import Watcher

if TYPE_CHECKING:
    from uringd.client.claim import Claim
    from uringd.client.link import Link

CHUNK_BYTES = 4096


def filling() -> Filling:
    claim = SimpleNamespace(id="ab" * 16, resumable=True, retry_s=1.0)
    made = Filling(cast("Claim", claim), 2, Watcher())
    made.fit(CHUNK_BYTES, 8)
    return made


def piece_of(made: Filling, number: int) -> Piece:
    piece = Piece(number * CHUNK_BYTES, CHUNK_BYTES)
    piece.crc32c = 0
    made.count(piece)
    return piece


async def test_what_another_lane_holds_is_forgotten_when_it_is_durable() -> None:
    """That lane may be lost later, and another would send it."""
    made = filling()
    first, second = made.lanes
    second.handle, second.link = 1, cast("Link", SimpleNamespace(alive=True))
    for lane, number in [(first, 1), (second, 2), (second, 3)]:
        lane.sent[number * CHUNK_BYTES] = piece_of(made, number)
    made.resumed_with(first, [(2 * CHUNK_BYTES, CHUNK_BYTES)], bytes(16))
    assert [piece.offset for piece in made.again] == [CHUNK_BYTES]
    assert list(second.sent) == [3 * CHUNK_BYTES]


async def test_a_piece_in_hand_is_not_sent_when_it_turns_out_to_be_durable() -> None:
    made = filling()
    whole, half = piece_of(made, 1), piece_of(made, 2)
    assert made.is_lacking(whole)
    made.resumed_with(made.lanes[0], [(CHUNK_BYTES, CHUNK_BYTES + 1024)], bytes(16))
    assert not made.is_lacking(whole)
    assert not made.is_lacking(half)
    [rest] = made.again
    assert (rest.offset, rest.length) == (2 * CHUNK_BYTES + 1024, CHUNK_BYTES - 1024)
