"""Pieces: a range is cut without a gap, aligned in memory as in the file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from uringio._ring.operations import BLOCK_BYTES
from uringio._trio.opening import OpenFile
from uringio._trio.pieces import PIECES_MAX, Piece, cut, parts, side_by_side, some_slots
from uringio.exceptions import OperationError, operation_error
from uringio.lowlevel import BufferPool, Slot, SlotQueue

DIRECT = OpenFile(3, "file", direct=True, block_bytes=BLOCK_BYTES, memory_bytes=BLOCK_BYTES)
BUFFERED = OpenFile(3, "file", direct=False, block_bytes=1, memory_bytes=1)

offsets = st.one_of(st.integers(0, 20_000), st.integers(0, 1 << 62))
lengths = st.integers(1, 100_000)
slot_sizes = st.sampled_from([BLOCK_BYTES, 4 * BLOCK_BYTES, 9 * BLOCK_BYTES])


@given(offsets, lengths, slot_sizes)
def test_pieces_join_up_and_fit_their_slots(offset: int, length: int, slot_bytes: int) -> None:
    at = offset
    for number, piece in enumerate(cut(offset, length, slot_bytes)):
        assert piece.offset == at
        assert piece.length > 0
        assert piece.base <= piece.offset
        assert piece.base % BLOCK_BYTES == 0 == piece.padded % BLOCK_BYTES
        assert piece.end <= piece.base + piece.padded <= piece.base + slot_bytes
        assert number == 0 or piece.offset == piece.base
        at = piece.end
    assert at == offset + length


@given(offsets, lengths)
def test_whole_blocks_are_direct_and_the_rest_is_not(offset: int, length: int) -> None:
    at = offset
    found = list(parts(Piece(offset, length), DIRECT, lambda: 4))
    for fd, part in found:
        assert part.offset == at
        assert part.length > 0
        if fd == 3:
            assert part.offset % BLOCK_BYTES == 0 == part.length % BLOCK_BYTES
        else:
            assert part.length < 2 * BLOCK_BYTES
        at = part.end
    assert at == offset + length
    whole = (offset + length) // BLOCK_BYTES - -(-offset // BLOCK_BYTES)
    assert sum(part.length for fd, part in found if fd == 3) == max(whole, 0) * BLOCK_BYTES


@given(offsets, lengths)
def test_a_buffered_file_is_written_in_one_part(offset: int, length: int) -> None:
    piece = Piece(offset, length)
    assert list(parts(piece, BUFFERED, lambda: 4)) == [(3, piece)]


def test_a_slot_is_filled_in_place_and_shows_nothing_of_before() -> None:
    pool = BufferPool(2, 4 * BLOCK_BYTES)
    slot = pool.slots[0]
    slot.memory[:] = b"?" * len(slot.memory)
    piece = Piece(BLOCK_BYTES * 7 + 100, BLOCK_BYTES)
    piece.fill(slot, memoryview(b"x" * BLOCK_BYTES))
    block = 2 * BLOCK_BYTES
    assert bytes(slot.memory[:block]) == (bytes(100) + b"x" * BLOCK_BYTES).ljust(block, b"\0")
    assert bytes(slot.memory[block:]) == b"?" * block
    assert bytes(piece.memory(slot)) == b"x" * BLOCK_BYTES
    del slot
    pool.close()


async def test_only_the_first_slot_is_waited_for() -> None:
    pool = BufferPool(2 * PIECES_MAX + 4, BLOCK_BYTES)
    slots = SlotQueue(pool)
    async with some_slots(slots, 100) as held:
        assert len(held) == PIECES_MAX
        async with some_slots(slots, 3) as more:
            assert len(more) == 3
    taken = [await slots.acquire() for _ in range(slots.free - 1)]
    async with some_slots(slots, 100) as held:
        assert len(held) == 1
        with trio.move_on_after(0) as scope:
            async with some_slots(slots, 1):
                pass
        assert scope.cancelled_caught
    for slot in taken:
        slots.release(slot)
    assert slots.free == len(pool.slots)
    pool.close()


async def test_the_first_error_is_raised_when_all_have_ended(tmp_path: Path) -> None:
    pool = BufferPool(2, BLOCK_BYTES)
    begun: list[int] = []
    ended: list[int] = []

    async def work(_: Slot, piece: Piece) -> None:
        begun.append(piece.offset)
        await trio.lowlevel.checkpoint()
        ended.append(piece.offset)
        if piece.offset == BLOCK_BYTES:
            raise operation_error(errno.EIO, "write", "file", piece.offset)

    with pytest.raises(OperationError) as info:
        await side_by_side(pool.slots, cut(0, 10 * BLOCK_BYTES, BLOCK_BYTES), work)
    assert info.value.offset == BLOCK_BYTES
    assert begun == sorted(begun)
    assert sorted(ended) == sorted(begun)
    assert len(begun) < 5
    pool.close()
