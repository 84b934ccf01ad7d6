"""The pool: bounds, slots taken and given, increments added and removed, close."""

from __future__ import annotations

from pathlib import Path

import pytest

from uringio._ring import pool as module
from uringio.lowlevel import BufferPool, Increment, Slot, default_slots


def test_fresh_memory_is_zero_and_writable() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    assert slot.view == bytes(4096)
    slot.view[:3] = b"abc"
    assert bytes(slot.memory[:4]) == b"abc\0"


@pytest.mark.parametrize("count", [-1, 0, 1, 16_385])
def test_a_number_of_slots_out_of_bounds_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="slots must be 2 to 16384"):
        BufferPool(count, 4096)


@pytest.mark.parametrize("slot_bytes", [0, 2048, 4097, 6144, (16 << 20) + 4096])
def test_a_slot_size_that_is_no_page_multiple_or_out_of_bounds_is_refused(slot_bytes: int) -> None:
    with pytest.raises(ValueError, match="slot_bytes must be a multiple of 4096"):
        BufferPool(2, slot_bytes)


def test_every_slot_is_given_out_once_and_then_none() -> None:
    pool = BufferPool(3, 4096)
    taken = [pool.take() for _ in range(3)]
    assert len({slot.index for slot in taken if slot is not None}) == 3
    assert pool.take() is None


def test_a_slot_comes_back_whole() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    slot.view, slot.length = slot.memory[100:], 7
    pool.give(slot)
    again = pool.take()
    assert again is slot
    assert (len(again.view), again.length) == (4096, 0)


def test_giving_a_slot_twice_is_caught() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    pool.give(slot)
    with pytest.raises(AssertionError, match="twice"):
        pool.give(slot)


def test_close_unmaps() -> None:
    pool = BufferPool(2, 4096)
    address = pool.increments[0].address
    assert is_mapped(address)
    pool.close()
    assert not is_mapped(address)


def test_close_leaves_a_view_that_somebody_kept_readable() -> None:
    pool = BufferPool(2, 4096)
    kept = pool.slots[0].memory[:5]
    kept[:] = b"still"
    pool.close()
    assert bytes(kept) == b"still"
    assert pool.take() is None


def test_a_slot_that_somebody_kept_is_empty_after_close() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    pool.close()
    assert len(slot.view) == len(slot.memory) == 0


def grow(pool: BufferPool) -> Increment:
    increment = pool.map_increment()
    assert increment is not None
    pool.add(increment)
    return increment


def take(pool: BufferPool, count: int) -> list[Slot]:
    taken = [slot for _ in range(count) if (slot := pool.take()) is not None]
    assert len(taken) == count
    return taken


@pytest.mark.parametrize("slots_max", [1, 3, 16_385])
def test_an_upper_bound_below_the_lower_one_or_the_kernels_is_refused(slots_max: int) -> None:
    with pytest.raises(ValueError, match=r"slots_max must be 4 \(slots\) to 16384"):
        BufferPool(4, 4096, slots_max)


def test_a_pool_without_an_upper_bound_does_not_grow() -> None:
    pool = BufferPool(2, 4096)
    assert pool.map_increment() is None
    assert pool.slots_max == 2


@pytest.mark.parametrize(
    ("slots", "slot_bytes", "slots_max", "sizes"),
    [
        (2, 1 << 20, 20, [8, 8, 2]),
        (2, 4096, 300, [256, 42]),
        (3, 16 << 20, 5, [1, 1]),
        (16, 1 << 20, 17, [1]),
    ],
)
def test_it_grows_by_8_mib_or_256_slots_up_to_its_bound(
    slots: int, slot_bytes: int, slots_max: int, sizes: list[int]
) -> None:
    pool = BufferPool(slots, slot_bytes, slots_max)
    for size in sizes:
        assert len(grow(pool).slots) == size
    assert pool.map_increment() is None
    assert len(pool) == slots_max
    assert sorted(slot.index for slot in pool.slots) == list(range(slots_max))
    assert pool.growths == len(sizes)


def test_a_mapped_increment_is_not_the_pools_before_it_is_added() -> None:
    pool = BufferPool(2, 1 << 20, 4)
    increment = pool.map_increment()
    assert increment is not None
    assert (len(pool), len(pool.free)) == (2, 2)
    pool.add(increment)
    assert (len(pool), len(pool.free)) == (4, 4)


def test_slots_of_old_and_new_increments_are_held_side_by_side() -> None:
    pool = BufferPool(2, 4096, 4)
    old = take(pool, 2)
    grow(pool)
    new = take(pool, 2)
    for slot in (*old, *new):
        slot.memory[:] = bytes([slot.index]) * 4096
    assert [bytes(slot.memory[:1]) for slot in (*old, *new)] == [b"\0", b"\1", b"\2", b"\3"]


def test_the_lowest_free_slot_is_given_out_first() -> None:
    pool = BufferPool(2, 4096, 6)
    grow(pool)
    taken = take(pool, 6)
    for slot in (taken[5], taken[1], taken[3]):
        pool.give(slot)
    assert [slot.index for slot in take(pool, 3)] == [1, 3, 5]


def test_an_increment_that_was_not_needed_goes_and_its_indices_come_again() -> None:
    pool = BufferPool(2, 1 << 20, 18)
    first, second = grow(pool), grow(pool)
    assert pool.idle_increment() is None, "it was needed when it came"
    assert pool.idle_increment() is second
    address = second.address
    pool.remove(second)
    assert not is_mapped(address)
    assert (len(pool), len(pool.free), pool.shrinks) == (10, 10, 1)
    assert pool.idle_increment() is first
    pool.remove(first)
    assert pool.idle_increment() is None, "the first one stays"
    assert sorted(pool.free) == [0, 1]
    assert [slot.index for slot in grow(pool).slots] == list(range(2, 10))


def test_an_increment_that_was_needed_for_a_moment_stays_until_the_next_look() -> None:
    pool = BufferPool(2, 1 << 20, 4)
    grow(pool)
    pool.idle_increment()
    for slot in take(pool, 3):
        pool.give(slot)
    assert pool.idle_increment() is None
    assert pool.idle_increment() is pool.increments[1]


def test_an_increment_with_a_slot_that_is_held_stays_and_another_goes() -> None:
    pool = BufferPool(2, 1 << 20, 18)
    first, second = grow(pool), grow(pool)
    taken = take(pool, 18)
    for slot in taken[:-1]:
        pool.give(slot)
    pool.idle_increment()
    assert pool.idle_increment() is first
    with pytest.raises(AssertionError, match="is held"):
        pool.remove(second)
    pool.remove(first)
    assert pool.idle_increment() is None
    taken[-1].memory[:3] = b"mem"
    pool.give(taken[-1])
    pool.idle_increment()
    assert pool.idle_increment() is second


def test_an_increment_that_is_registered_is_not_unmapped() -> None:
    """The kernel would go on writing its old pages, and call it success."""
    pool = BufferPool(2, 4096, 4)
    increment = grow(pool)
    increment.slots[0].buffer_index = increment.slots[0].index
    with pytest.raises(AssertionError, match="is registered"):
        pool.remove(increment)
    assert is_mapped(increment.address)


def test_close_unmaps_every_increment() -> None:
    pool = BufferPool(2, 1 << 20, 18)
    addresses = [pool.increments[0].address, grow(pool).address, grow(pool).address]
    pool.close()
    assert not any(map(is_mapped, addresses))
    assert pool.take() is None


def test_by_default_as_many_slots_as_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, slots in ((None, 16), (0, 2), (3 << 20, 2), (1 << 40, 16)):
        monkeypatch.setattr(module, "memlock_limit", lambda limit=limit: limit)
        assert default_slots(1 << 20) == slots


def is_mapped(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return True
    return False
