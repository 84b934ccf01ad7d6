"""The pool follows demand: when it grows and shrinks, and when it cannot."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio.testing

from uringio._trio.growth import GROW_AFTER_S, SHRINK_AFTER_S
from uringio.exceptions import BrokenError, UringioError
from uringio.lowlevel import (
    BufferPool,
    Completion,
    Increment,
    RingLike,
    Slot,
    operations,
    run_ring,
)
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uringio import Ring

SLOT = 64 << 10
SLOTS, SLOTS_MAX = 4, 300
"""Increments of 128 slots (8 MiB), 128 and 40."""

KINDS = ["io_uring", "threads", *(f"simulated-{seed}" for seed in range(4))]


@pytest.fixture(params=KINDS)
def raw(request: pytest.FixtureRequest, new_ring: Callable[..., RingLike]) -> RingLike:
    return new_ring(request.param)


async def hold(ring: Ring, count: int) -> list[Slot]:
    """Take slots as tasks do that wait for each: in the end all are held at once."""
    held: list[Slot] = []

    async def acquire() -> None:
        held.append(await ring.slots.acquire())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(acquire)
    return held


async def test_it_grows_when_a_task_has_waited_and_not_before(
    raw: RingLike, mock_clock: trio.testing.MockClock
) -> None:
    async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
        held = await hold(ring, SLOTS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take_one, ring, held)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(GROW_AFTER_S * 0.9)
            await trio.testing.wait_all_tasks_blocked()
            assert (len(held), ring.features.slots) == (SLOTS, SLOTS)
            mock_clock.jump(GROW_AFTER_S * 0.2)
        assert (len(held), ring.features.slots) == (SLOTS + 1, SLOTS + 128)
        statistics = ring.statistics()
        assert (statistics.slots, statistics.pool_growths) == (SLOTS + 128, 1)
        if ring.features.backend != "threads":
            assert statistics.registered_slots == SLOTS + 128
        for slot in held:
            ring.slots.release(slot)


async def _take_one(ring: Ring, held: list[Slot]) -> None:
    held.append(await ring.slots.acquire())


async def test_a_wait_that_ends_soon_grows_nothing(
    raw: RingLike, mock_clock: trio.testing.MockClock
) -> None:
    """A disk that is the bottleneck: somebody always waits, and nobody for long."""
    async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
        held = await hold(ring, SLOTS)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(_take_one, ring, held)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(GROW_AFTER_S * 0.9)
                ring.slots.release(held.pop(0))
                await trio.testing.wait_all_tasks_blocked()
        assert ring.features.slots == SLOTS
        for slot in held:
            ring.slots.release(slot)


async def test_it_grows_to_its_bound_and_shrinks_to_where_it_began(
    raw: RingLike, autojump_clock: trio.testing.MockClock
) -> None:
    async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
        held = await hold(ring, SLOTS_MAX)
        assert len({slot.index for slot in held}) == ring.features.slots == SLOTS_MAX
        with trio.move_on_after(10) as waited:
            await ring.slots.acquire()
        assert waited.cancelled_caught, "no more than slots_max"
        for slot in held:
            ring.slots.release(slot)
        await trio.sleep(SHRINK_AFTER_S * 5)
        statistics = ring.statistics()
        assert (statistics.slots, statistics.free_slots) == (SLOTS, SLOTS)
        assert (statistics.pool_growths, statistics.pool_shrinks) == (3, 3)
        if ring.features.backend != "threads":
            assert statistics.registered_slots == SLOTS
        assert len(ring.slots.pool.increments) == 1
        again = await hold(ring, SLOTS_MAX)
        assert len(again) == SLOTS_MAX
        for slot in again:
            ring.slots.release(slot)


async def test_it_goes_back_one_increment_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with run_ring(SimulatedRing(), SLOTS, SLOT, SLOTS_MAX) as ring:
        for slot in await hold(ring, SLOTS_MAX):
            ring.slots.release(slot)
        sizes = [ring.features.slots]
        for _ in range(5):
            await trio.sleep(SHRINK_AFTER_S * 1.01)
            sizes.append(ring.features.slots)
        assert sizes == [300, 300, 260, 132, 4, 4]


async def test_without_an_upper_bound_it_stays_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with run_ring(SimulatedRing(), SLOTS, SLOT) as ring:
        held = await hold(ring, SLOTS)
        with trio.move_on_after(60) as waited:
            await ring.slots.acquire()
        assert waited.cancelled_caught
        assert ring.features.slots == ring.features.slots_max == SLOTS
        for slot in held:
            ring.slots.release(slot)


async def test_a_closed_ring_follows_no_demand(
    count_descriptors: Callable[[], int], autojump_clock: trio.testing.MockClock
) -> None:
    before = count_descriptors()
    with trio.CancelScope() as scope:
        async with run_ring(SimulatedRing(), SLOTS, SLOT, SLOTS_MAX) as ring:
            for slot in await hold(ring, SLOTS_MAX):
                ring.slots.release(slot)
            scope.cancel()
    assert len(ring.slots.pool) == 0
    await trio.sleep(SHRINK_AFTER_S * 10)
    assert count_descriptors() == before


class StubbornRing(SimulatedRing):
    """Takes no more registrations, or gives none back."""

    refused = ""

    def register_increment(self, increment: Increment) -> None:
        if self.refused == "register":
            raise BrokenError("no (test)")
        super().register_increment(increment)

    def unregister_increment(self, increment: Increment) -> None:
        if self.refused == "unregister":
            raise BrokenError("no (test)")
        super().unregister_increment(increment)


@pytest.mark.parametrize("refused", ["register", "unregister"])
async def test_a_ring_that_refuses_ends_the_growth_and_is_said_so(
    refused: str, autojump_clock: trio.testing.MockClock
) -> None:
    raw = StubbornRing()
    async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
        raw.refused = refused
        held = await hold(ring, SLOTS)
        with trio.move_on_after(1) as waited:
            held.append(await ring.slots.acquire())
        assert waited.cancelled_caught == (refused == "register")
        for slot in held:
            ring.slots.release(slot)
        await trio.sleep(SHRINK_AFTER_S * 5)
        size = SLOTS if refused == "register" else SLOTS + 128
        assert ring.features.slots == len(ring.slots.pool) == size
        assert f"the pool stays at {size} slots: no (test)" in ring.features.notes


async def test_no_memory_for_more_ends_the_growth_and_is_said_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    def refuse(pool: BufferPool) -> Increment:
        raise UringioError("no memory (test)")

    async with run_ring(SimulatedRing(), SLOTS, SLOT, SLOTS_MAX) as ring:
        monkeypatch.setattr(BufferPool, "map_increment", refuse)
        held = await hold(ring, SLOTS)
        with trio.move_on_after(1) as waited:
            await ring.slots.acquire()
        assert waited.cancelled_caught
        assert "the pool stays at 4 slots: no memory (test)" in ring.features.notes
        for slot in held:
            ring.slots.release(slot)


class LosingRing(SimulatedRing):
    """Breaks for good once asked to."""

    lost = False

    def reap(self) -> list[Completion]:
        if self.lost:
            with contextlib.suppress(BlockingIOError):  # or it would wake for ever
                os.eventfd_read(self.wakeup_fd)
            raise BrokenError("reap failed (test)")
        return super().reap()


async def test_a_broken_ring_unmaps_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its slots come back without a completion: the kernel may still be reading them."""
    from uringio._trio import reactor as module  # noqa: PLC0415

    raw = LosingRing()
    with pytest.warns(ResourceWarning, match="their memory is leaked"):
        async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
            held = await hold(ring, SLOTS + 1)
            raw.lost = True
            results: list[int] = []
            write = operations.write(0, held[-1].memory, 0, SLOT)
            ring.reactor.start(write, results.append)
            while not results:
                await trio.lowlevel.checkpoint()
            for slot in held:
                ring.slots.release(slot)
            await trio.sleep(SHRINK_AFTER_S * 5)
            assert ring.statistics().pool_shrinks == 0
    assert len(ring.slots.pool) == SLOTS + 128
    ring.slots.pool.close()
    module._leaked.clear()
