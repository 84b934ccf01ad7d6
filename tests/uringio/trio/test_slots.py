"""Waiting for slots: first come, first served, and nothing is lost to a cancel."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from uringio.lowlevel import BufferPool, Slot, SlotQueue


@pytest.fixture
def slots() -> SlotQueue:
    return SlotQueue(BufferPool(2, 4096))


async def take_all(slots: SlotQueue) -> list[Slot]:
    return [await slots.acquire() for _ in range(len(slots.pool))]


async def test_a_free_slot_is_had_at_once(slots: SlotQueue) -> None:
    slot = await slots.acquire()
    assert slots.free == 1
    assert slots.waits == 0
    slots.release(slot)
    assert slots.free == 2


async def test_who_comes_first_is_served_first(slots: SlotQueue) -> None:
    taken = await take_all(slots)
    order: list[int] = []

    async def wait(number: int) -> None:
        slot = await slots.acquire()
        order.append(number)
        slots.release(slot)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (slots.waiting, slots.free) == (5, 0)
        slots.release(taken.pop())
    assert order == [0, 1, 2, 3, 4]
    slots.release(taken.pop())
    assert (slots.waiting, slots.free, slots.waits) == (0, 2, 5)


async def test_a_release_hands_over_to_who_waits_and_nobody_can_overtake(slots: SlotQueue) -> None:
    taken = await take_all(slots)
    got: list[Slot] = []

    async def wait() -> None:
        got.append(await slots.acquire())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        slots.release(taken[0])
        assert slots.acquire_nowait() is None
        assert slots.free == 0
    assert got == [taken[0]]
    assert got[0].taken


async def test_a_cancelled_waiter_gets_none_and_loses_none(slots: SlotQueue) -> None:
    taken = await take_all(slots)
    got: list[Slot] = []

    async def wait() -> None:
        got.append(await slots.acquire())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await slots.acquire()
        assert scope.cancelled_caught
        assert slots.waiting == 1
        for slot in taken:
            slots.release(slot)
    assert len(got) == 1
    assert slots.free == 1


async def test_a_waiter_cancelled_after_the_hand_over_has_the_slot(slots: SlotQueue) -> None:
    taken = await take_all(slots)
    scope = trio.CancelScope()
    kept: list[Slot] = []

    async def wait() -> None:
        with scope:
            kept.append(await slots.acquire())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        slots.release(taken[0])
        scope.cancel()
    assert kept == [taken[0]]


async def test_a_task_that_is_cancelled_already_takes_nothing(slots: SlotQueue) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await slots.acquire()
    assert scope.cancelled_caught
    assert slots.free == 2
