"""One task at a time for a name, any number for others."""

from __future__ import annotations

import trio
import trio.testing

from uringd.keyed_lock import KeyedLock


async def test_one_name_is_held_by_one_task_and_others_are_free() -> None:
    lock = KeyedLock()
    order: list[str] = []

    async def hold(name: str, who: str, release: trio.Event) -> None:
        async with lock.hold(name):
            order.append(who)
            await release.wait()

    first, second = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "a", "first", first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hold, "a", "second", second)
        nursery.start_soon(hold, "b", "other", second)
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["first", "other"]
        assert "a" in lock
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["first", "other", "second"]
        second.set()
    assert "a" not in lock and "b" not in lock


async def test_a_cancelled_wait_holds_nothing() -> None:
    lock = KeyedLock()
    async with lock.hold("a"):
        with trio.move_on_after(0):
            async with lock.hold("a"):
                raise AssertionError("it was held twice")
        assert "a" in lock
    assert "a" not in lock


async def test_several_names_are_held_together_or_not_at_all() -> None:
    lock = KeyedLock()
    got: list[str] = []

    async def take(names: set[str]) -> None:
        await lock.take(names)
        got.append("".join(sorted(names)))

    await lock.take({"a"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, {"a", "b"})
        await trio.testing.wait_all_tasks_blocked()
        assert "b" not in lock, "who waits holds nothing"
        await lock.take({"b"})
        lock.free({"a"})
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        lock.free({"b"})
    assert got == ["ab"]
    assert "a" in lock and "b" in lock
