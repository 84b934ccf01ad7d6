"""Memory of small uploads: bounded, and for long ones the same again."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import trio

from uringd.small import memory as module
from uringd.small.memory import (
    BYTES_MAX,
    LONG_BYTES,
    LONG_BYTES_MIN,
    PIECES,
    SHARE_BYTES_MAX,
    Memory,
    Room,
    Share,
)
from uringd.wire import PUT_BYTES_MAX
from uringio import UringioError

if TYPE_CHECKING:
    import pytest

PAGE_BYTES = 4096


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


async def test_a_long_one_gets_memory_that_begins_at_a_page_and_a_short_one_none() -> None:
    memory, share = Memory(), Share()
    assert (await memory.take(share, LONG_BYTES_MIN - 1)).memory is None
    room = await memory.take(share, LONG_BYTES_MIN)
    assert room.memory is not None and len(room.memory) == LONG_BYTES
    assert address(room.memory) % PAGE_BYTES == 0


async def test_two_long_ones_never_share_a_piece_and_a_piece_comes_back() -> None:
    memory, share = Memory(), Share()
    rooms = [await memory.take(share, LONG_BYTES_MIN) for _ in range(PIECES + 1)]
    places = {address(room.memory) for room in rooms if room.memory is not None}
    assert len(places) == PIECES + 1
    assert memory.mapped_bytes == 2 * PIECES * LONG_BYTES
    for room in rooms:
        memory.give(share, room)
    again = await memory.take(share, LONG_BYTES_MIN)
    assert again.memory is not None and address(again.memory) in places
    assert share.held_bytes == again.held_bytes


async def test_all_sessions_together_get_no_more_than_the_limit() -> None:
    memory = Memory()
    rooms: list[tuple[Share, Room]] = []
    for _ in range(3 * BYTES_MAX // LONG_BYTES):
        share = Share()
        with trio.move_on_after(0) as waited:
            rooms.append((share, await memory.take(share, PUT_BYTES_MAX)))
        if waited.cancelled_caught:
            assert share.held_bytes == 0
            break
    assert sum(room.held_bytes for _, room in rooms) == BYTES_MAX - memory.free_bytes <= BYTES_MAX
    assert memory.mapped_bytes <= BYTES_MAX
    assert len(rooms) > BYTES_MAX // LONG_BYTES - 2
    for share, room in rooms:
        memory.give(share, room)
    assert memory.free_bytes == BYTES_MAX


async def test_one_session_gets_its_share_only() -> None:
    memory, share = Memory(), Share()
    held = 0
    with trio.move_on_after(0) as waited:
        while True:
            held += (await memory.take(share, LONG_BYTES_MIN)).held_bytes
    assert waited.cancelled_caught
    assert held == share.held_bytes <= SHARE_BYTES_MAX
    assert await memory.take(Share(), LONG_BYTES_MIN)


async def test_memory_goes_when_nobody_has_a_piece_of_it() -> None:
    memory, share = Memory(), Share()
    rooms = [await memory.take(share, LONG_BYTES_MIN) for _ in range(PIECES + 1)]
    for room in rooms[1:]:
        memory.give(share, room)
    memory.trim()
    assert memory.mapped_bytes == PIECES * LONG_BYTES
    again = await memory.take(share, LONG_BYTES_MIN)
    assert again.slot is not rooms[0].slot
    for room in (rooms[0], again):
        memory.give(share, room)
    memory.trim()
    assert memory.mapped_bytes == 0


async def test_without_memory_a_long_one_comes_as_a_short_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_: int) -> None:
        raise UringioError("no memory")

    monkeypatch.setattr(module, "Increment", none)
    memory, share = Memory(), Share()
    room = await memory.take(share, LONG_BYTES_MIN)
    assert room.memory is None
    memory.give(share, room)
    assert memory.free_bytes == BYTES_MAX
