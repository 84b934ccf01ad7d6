"""RangeLock: overlapping ranges in the order of arrival, all others at once."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from uringio._trio.range_lock import RangeLock


class Holders:
    """Tasks that hold a range until they are told to let go."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.lock = RangeLock()
        self.nursery = nursery
        self.order: list[str] = []
        self.let_go: dict[str, trio.Event] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def hold(self, name: str, start: int, end: int) -> None:
        self.let_go[name] = trio.Event()
        self.scopes[name] = trio.CancelScope()

        async def run() -> None:
            with self.scopes[name]:
                async with self.lock.hold(start, end):
                    self.order.append(name)
                    await self.let_go[name].wait()

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()

    async def release(self, name: str) -> None:
        self.let_go[name].set()
        await trio.testing.wait_all_tasks_blocked()


async def test_ranges_that_only_touch_do_not_wait() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(nursery)
        for name, start in (("a", 0), ("b", 10), ("c", 20)):
            await holders.hold(name, start, start + 10)
        assert holders.order == ["a", "b", "c"]
        nursery.cancel_scope.cancel()
    assert holders.lock.claims == 0


async def test_who_overlaps_waits_in_the_order_of_arrival() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(nursery)
        for name in "abc":
            await holders.hold(name, 0, 10)
        assert holders.order == ["a"]
        await holders.release("a")
        assert holders.order == ["a", "b"]
        await holders.release("b")
        assert holders.order == ["a", "b", "c"]
        await holders.release("c")
    assert holders.lock.claims == 0


async def test_nobody_overtakes_one_that_waits() -> None:
    """c does not overlap a, which holds, but b, which waits for a."""
    async with trio.open_nursery() as nursery:
        holders = Holders(nursery)
        await holders.hold("a", 0, 10)
        await holders.hold("b", 5, 15)
        await holders.hold("c", 10, 20)
        await holders.hold("d", 15, 16)
        assert holders.order == ["a"], "d overlaps c, and c waits"
        await holders.release("a")
        assert holders.order == ["a", "b"]
        await holders.release("b")
        assert holders.order == ["a", "b", "c"]
        await holders.release("c")
        assert holders.order == ["a", "b", "c", "d"]
        await holders.release("d")


async def test_a_wait_that_is_cancelled_holds_nobody_up() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(nursery)
        await holders.hold("a", 0, 10)
        await holders.hold("b", 5, 15)
        await holders.hold("c", 10, 20)
        holders.scopes["b"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert holders.order == ["a", "c"]
        assert holders.lock.claims == 2
        nursery.cancel_scope.cancel()
    assert holders.lock.claims == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 3)), max_size=12))
def test_any_ranges_are_held_one_at_a_time_and_in_order(ranges: list[tuple[int, int, int]]) -> None:
    """Who is overlapped by an earlier one begins after that one has ended."""

    def overlap(one: int, other: int) -> bool:
        (a, m, _), (b, n, _) = ranges[one], ranges[other]
        return a < b + n and b < a + m

    held: set[int] = set()
    ended: set[int] = set()

    async def main() -> None:
        lock = RangeLock()

        async def use(
            number: int, start: int, length: int, steps: int, arrived: trio.Event
        ) -> None:
            arrived.set()
            async with lock.hold(start, start + length):
                assert not any(overlap(number, other) for other in held)
                earlier = {other for other in range(number) if overlap(number, other)}
                assert earlier <= ended
                held.add(number)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                held.remove(number)
                ended.add(number)

        async with trio.open_nursery() as nursery:
            for number, asked in enumerate(ranges):
                arrived = trio.Event()
                nursery.start_soon(use, number, *asked, arrived)
                await arrived.wait()
        assert lock.claims == 0

    trio.run(main)
    assert len(ended) == len(ranges)
