"""Cutting uploads into chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uringd.client.chunk import Piece, cut, outside
from uringd.client.retained import Retained

ranges = st.lists(st.integers(0, 200), max_size=12, unique=True).map(sorted)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 30))
def test_everybody_cuts_at_the_same_places(offset: int, length: int, chunk_bytes: int) -> None:
    pieces = list(cut(offset, length, chunk_bytes))
    assert [at for start, count in pieces for at in range(start, start + count)] == list(
        range(offset, offset + length)
    )
    for start, count in pieces:
        assert 0 < count <= chunk_bytes
        assert start == offset or start % chunk_bytes == 0


@given(st.integers(0, 200), st.integers(0, 100), ranges)
def test_what_is_outside_of_ranges_is_all_that_they_lack(
    offset: int, length: int, bounds: list[int]
) -> None:
    known = [
        (first, second - first) for first, second in zip(bounds[::2], bounds[1::2], strict=False)
    ]
    inside = {at for start, count in known for at in range(start, start + count)}
    found = [
        at for start, count in outside(offset, length, known) for at in range(start, start + count)
    ]
    assert found == [at for at in range(offset, offset + length) if at not in inside]


def test_memory_is_lent_again_when_the_last_piece_of_it_is_released() -> None:
    retained = Retained(100)
    memory = retained.borrow(50)
    piece = Piece(0, 50, memory, 0)
    retained.add(piece)
    assert retained.half_full and not retained.full
    parts = [piece.part(0, 20), piece.part(20, 30)]
    for part in parts:
        retained.add(part)
    retained.release(piece)
    retained.release(parts[0])
    assert retained.borrow(50) is not memory
    with retained.pinned(memory):
        retained.release(parts[1])
        assert retained.borrow(50) is not memory, "it is being sent"
    assert retained.bytes == 0
    assert retained.borrow(50) is memory
