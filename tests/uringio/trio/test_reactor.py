"""The reactor: waits, cancels, batches, breaks and closes."""
# A test may block on a small file; an `async with` that raises is more than one statement.

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import uringio
from uringio._trio import reactor as module
from uringio._trio.reactor import TURN_MAX
from uringio.exceptions import BrokenError, ClosedError, ForkedError, OperationError
from uringio.lowlevel import (
    Completion,
    Opcode,
    Operation,
    Reactor,
    RingLike,
    UringRing,
    operations,
    run_ring,
)
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringio.conftest import OpenAny

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with nothing in it: a read waits in the kernel."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


class BreakableRing(SimulatedRing):
    """Refuses for good from the moment that `broken` names a call; submits nothing if `refuses`."""

    broken = ""
    refuses = False

    def submit(self) -> int:
        if self.broken == "submit":
            raise BrokenError("submit failed (test)")
        return self.prepared if self.refuses else super().submit()

    def reap(self) -> list[Completion]:
        if self.broken == "reap":
            raise BrokenError("reap failed (test)")
        return super().reap()

    def submit_of_a_closed_ring(self) -> int:
        return super().submit()

    def withdraw(self, tokens: Sequence[int]) -> bool:
        if self.broken == "cancel":
            raise BrokenError("withdraw failed (test)")
        return super().withdraw(tokens)

    def cancel(self, token: int) -> None:
        if self.broken == "cancel":
            raise BrokenError("cancel failed (test)")
        super().cancel(token)


class StuckRing(SimulatedRing):
    """Completes nothing until `stuck` is cleared."""

    stuck = True

    def reap(self) -> list[Completion]:
        if self.stuck:
            os.eventfd_read(self.wakeup_fd)
            return []
        return super().reap()

    def release(self) -> None:
        self.stuck = False
        os.eventfd_write(self.wakeup_fd, 1)


async def test_results_and_errors_are_returned(open_any: OpenAny, descriptor: int) -> None:
    async with open_any() as ring:
        perform = ring.reactor.perform
        assert await perform(operations.write(descriptor, b"hello", 0, 5)) == 5
        assert await perform(operations.fsync(999_999)) == -errno.EBADF


async def test_chains_return_all_results_in_order(open_any: OpenAny, descriptor: int) -> None:
    async with open_any() as ring:
        results = await ring.reactor.perform_chain(
            [
                operations.write(descriptor, b"x", 0, 1),
                operations.fsync(999_999),
                operations.fsync(descriptor),
            ]
        )
    assert results == [1, -errno.EBADF, -errno.ECANCELED]


async def test_a_callback_gets_the_result(open_any: OpenAny, descriptor: int) -> None:
    results: list[int] = []
    async with open_any() as ring:
        ring.reactor.start(operations.write(descriptor, b"hello", 0, 5), results.append)
        assert ring.reactor.in_flight == 1
        await ring.reactor.wait_idle()
    assert results == [5]


async def test_a_task_that_is_cancelled_already_starts_nothing(
    open_any: OpenAny, descriptor: int
) -> None:
    async with open_any() as ring:
        for start in (
            lambda: ring.reactor.perform(operations.write(descriptor, b"x", 0, 1)),
            lambda: ring.reactor.perform_chain([operations.write(descriptor, b"x", 0, 1)]),
        ):
            for _ in range(TURN_MAX + 1):  # also where its turn is full
                await cancelled_at_once(start)
    assert os.fstat(descriptor).st_size == 0


async def cancelled_at_once(call: Callable[[], Awaitable[object]]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


async def test_what_is_cancelled_in_the_tick_in_which_it_began_is_not_done(
    open_any: OpenAny, descriptor: int
) -> None:
    """Whichever of the two tasks runs first: nothing was submitted, so nothing is asked for."""
    chain = [operations.write(descriptor, b"x", at, 1) for at in range(3)]
    async with open_any() as ring:
        before = ring.statistics()
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ring.reactor.perform, chain[0])
                    nursery.start_soon(ring.reactor.perform_chain, chain)
                    nursery.start_soon(cancel_soon, scope)
            assert scope.cancelled_caught
            assert ring.reactor.in_flight == 0
        assert (ring.statistics() - before).accepted_bytes == 0
    assert os.fstat(descriptor).st_size == 0


async def test_who_waits_gets_the_turn_of_an_operation_that_was_taken_back(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    """Nothing completes that could wake it."""
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 1)
    raw = BreakableRing()
    results: list[int] = []
    async with run_ring(raw, 2, 4096) as ring, trio.open_nursery() as nursery:
        raw.refuses = True
        token = ring.reactor.start(operations.fsync(descriptor), results.append)
        nursery.start_soon(ring.reactor.perform, operations.write(descriptor, b"x", 0, 1))
        nursery.start_soon(ring.reactor.wait_idle)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        raw.refuses = False
        assert ring.reactor.withdraw((token,))
    assert results == []
    assert os.pread(descriptor, 10, 0) == b"x"


async def test_a_read_that_waits_in_the_kernel_is_cancelled_there(
    open_uring: OpenAny, pipe: tuple[int, int]
) -> None:
    async with open_uring() as ring, trio.open_nursery() as nursery:
        nursery.start_soon(
            ring.reactor.perform, operations.read(pipe[0], bytearray(8), 0xFFFFFFFFFFFFFFFF, 8)
        )
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ring.reactor.in_flight == 1
        nursery.cancel_scope.cancel()
    assert ring.reactor.in_flight == 0


async def test_a_cancelled_task_waits_until_the_kernel_gives_its_memory_back(
    descriptor: int,
) -> None:
    raw = StuckRing()
    memory = bytearray(b"before")
    left = trio.Event()

    async def write(ring: uringio.Ring) -> None:
        try:
            await ring.reactor.perform(operations.write(descriptor, memory, 0, 6))
        finally:
            left.set()

    async with run_ring(raw, 2, 4096) as ring, trio.open_nursery() as nursery:
        nursery.start_soon(write, ring)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not left.is_set(), "the memory is still the kernel's"
            with pytest.raises(BufferError):
                memory.extend(b"more")
            raw.release()
            await left.wait()


async def test_a_result_that_came_before_the_cancel_is_not_lost(
    open_any: OpenAny, tmp_path: Path, count_descriptors: Callable[[], int]
) -> None:
    """An open that succeeded returns its descriptor, cancelled or not: somebody must close it."""
    before = count_descriptors()
    async with open_any() as ring:
        for _ in range(40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_soon, scope)
                    opening = operations.open_at(-100, str(tmp_path), os.O_RDONLY)
                    fd = await ring.reactor.perform(opening)
                    if fd >= 0:
                        os.close(fd)
    assert count_descriptors() == before


async def cancel_soon(scope: trio.CancelScope) -> None:
    scope.cancel()


async def test_an_exception_elsewhere_in_the_nursery_does_not_hang(
    open_any: OpenAny, descriptor: int
) -> None:
    async def write(ring: uringio.Ring, offset: int) -> None:
        await ring.reactor.perform(operations.write(descriptor, b"x", offset, 1))

    async def fail() -> None:
        raise RuntimeError("elsewhere")

    async with open_any() as ring:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="elsewhere")):
            async with trio.open_nursery() as nursery:
                for offset in range(50):
                    nursery.start_soon(write, ring, offset)
                nursery.start_soon(fail)


async def test_a_chain_that_is_cancelled_completes_as_a_whole(
    open_any: OpenAny, descriptor: int
) -> None:
    async def publish(ring: uringio.Ring) -> None:
        chain = [operations.write(descriptor, b"x", 0, 1), operations.fsync(descriptor)]
        await ring.reactor.perform_chain(chain)

    async with open_any() as ring:
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish, ring)
                    nursery.start_soon(publish, ring)
                    nursery.start_soon(cancel_soon, scope)
            assert ring.reactor.in_flight == 0


async def test_a_submit_hands_over_what_many_tasks_prepared_but_not_all_of_a_long_tick(
    open_uring: OpenAny, descriptor: int
) -> None:
    class CountingRing(UringRing):
        submits = 0
        prepared_max = 0

        def submit(self) -> int:
            self.submits += 1
            self.prepared_max = max(self.prepared_max, self.prepared)
            return super().submit()

    raw = CountingRing()
    async with run_ring(raw, 2, 4096) as ring:
        async with trio.open_nursery() as nursery:
            for offset in range(100):
                nursery.start_soon(
                    ring.reactor.perform, operations.write(descriptor, b"x", offset, 1)
                )
        assert raw.prepared_max == TURN_MAX
        assert raw.submits == 100 // TURN_MAX + 1
    assert os.fstat(descriptor).st_size == 100


async def test_a_submit_the_kernel_refuses_is_tried_again(descriptor: int) -> None:
    """SimulatedRing refuses one in ten: with many of them every kind of moment is met."""
    raw = SimulatedRing(3)
    async with run_ring(raw, 2, 4096) as ring:
        for offset in range(300):
            result = await ring.reactor.perform(operations.write(descriptor, b"x", offset, 1))
            assert result == 1


@pytest.mark.parametrize("call", ["submit", "reap"])
async def test_a_ring_that_breaks_ends_every_wait_with_an_error(descriptor: int, call: str) -> None:
    raw = BreakableRing()
    results: list[int] = []

    async def write(ring: uringio.Ring, offset: int) -> None:
        operation = operations.write(descriptor, b"x", offset, 1)
        results.append(await ring.reactor.perform(operation))

    with pytest.warns(ResourceWarning, match="did not give all operations back"):
        async with run_ring(raw, 2, 4096) as ring:
            raw.broken = call
            async with trio.open_nursery() as nursery:
                for offset in range(10):
                    nursery.start_soon(write, ring, offset)
            assert results == [-errno.EIO] * 10
            with pytest.raises(BrokenError, match=call):
                await ring.reactor.perform(operations.fsync(descriptor))
            with pytest.raises(BrokenError, match=call):
                await ring.reactor.perform_chain([operations.fsync(descriptor)])
            with pytest.raises(BrokenError, match=call):
                ring.reactor.start(operations.fsync(descriptor), results.append)
    module._leaked.clear()
    raw.close()


async def test_a_ring_that_breaks_ends_also_those_who_wait_their_turn(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    raw = BreakableRing()
    ended: list[object] = []

    async def write(ring: uringio.Ring) -> None:
        try:
            ended.append(await ring.reactor.perform(operations.write(descriptor, b"x", 0, 1)))
        except BrokenError as exc:
            ended.append(type(exc))

    with pytest.warns(ResourceWarning), trio.fail_after(30):
        async with run_ring(raw, 2, 4096) as ring:
            raw.broken = "submit"
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(write, ring)
    assert sorted(map(str, ended)) == sorted(map(str, [-errno.EIO] * 2 + [BrokenError] * 8))
    module._leaked.clear()
    raw.close()


async def test_a_ring_that_breaks_while_idle_closes_as_usual(descriptor: int) -> None:
    raw = BreakableRing()
    async with run_ring(raw, 2, 4096) as ring:
        await ring.reactor.perform(operations.fsync(descriptor))
        raw.broken = "reap"
    with pytest.raises(ClosedError):
        raw.submit_of_a_closed_ring()


async def test_of_a_ring_that_broke_nothing_is_taken_back(descriptor: int) -> None:
    raw = BreakableRing()
    with pytest.warns(ResourceWarning, match="leaked"):
        async with run_ring(raw, 2, 4096) as ring:
            raw.broken = "reap"
            assert await ring.reactor.perform(operations.fsync(descriptor)) == -errno.EIO
            assert not ring.reactor.withdraw((1,))
            ring.reactor.cancel(1)
    module._leaked.clear()
    raw.close()


async def test_a_cancel_that_the_ring_cannot_take_does_not_bring_trio_down(
    descriptor: int,
) -> None:
    raw = BreakableRing()
    async with run_ring(raw, 2, 4096) as ring:
        raw.broken = "cancel"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_soon, scope)
                await ring.reactor.perform(operations.write(descriptor, b"x", 0, 1))
        raw.broken = ""


async def test_more_operations_than_may_be_in_flight_wait_their_turn(
    monkeypatch: pytest.MonkeyPatch, open_any: OpenAny, descriptor: int
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 8)
    most = 0

    async def write(ring: uringio.Ring, offset: int) -> None:
        nonlocal most
        write = operations.write(descriptor, b"x", offset, 1)
        if offset % 3:
            assert await ring.reactor.perform(write) == 1
        else:
            assert await ring.reactor.perform_chain([write] * 3) == [1, 1, 1]
        most = max(most, ring.reactor.in_flight)

    async with open_any() as ring:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for offset in range(200):
                    nursery.start_soon(write, ring, offset)
    assert os.fstat(descriptor).st_size == 200
    assert most <= 8


async def test_a_chain_longer_than_may_be_in_flight_runs_alone(
    monkeypatch: pytest.MonkeyPatch, open_any: OpenAny, descriptor: int
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    async with open_any() as ring:
        writes = [operations.write(descriptor, b"x", offset, 1) for offset in range(5)]
        assert await ring.reactor.perform_chain(writes) == [1] * 5


async def test_a_waiter_for_a_turn_can_be_cancelled(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 1)
    raw = StuckRing()
    async with run_ring(raw, 2, 4096) as ring, trio.open_nursery() as nursery:
        nursery.start_soon(ring.reactor.perform, operations.fsync(descriptor))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_soon, scope)
            await ring.reactor.perform(operations.write(descriptor, b"x", 0, 1))
        assert scope.cancelled_caught
        raw.release()
    assert os.fstat(descriptor).st_size == 0


async def test_what_a_ring_lacks_is_done_in_a_thread(tmp_path: Path, descriptor: int) -> None:
    raw = SimulatedRing(1, missing_opcodes={Opcode.FTRUNCATE})
    async with run_ring(raw, 2, 4096) as ring:
        assert await ring.reactor.perform(operations.ftruncate(descriptor, 9)) == 0
        assert os.fstat(descriptor).st_size == 9
        chain = [
            operations.write(descriptor, b"x", 20, 1),
            operations.ftruncate(descriptor, 3),
            operations.fsync(descriptor),
        ]
        assert await ring.reactor.perform_chain(chain) == [1, 0, 0]
        assert os.fstat(descriptor).st_size == 3
        broken = [operations.fsync(999_999), operations.ftruncate(descriptor, 1)]
        results = await ring.reactor.perform_chain(broken)
        assert results == [-errno.EBADF, -errno.ECANCELED]
        assert os.fstat(descriptor).st_size == 3
    assert Opcode.FTRUNCATE not in {operation.opcode for operation, _ in raw.history}


async def test_cleaning_up_works_on_a_broken_ring_and_on_one_that_closes(
    tmp_path: Path,
) -> None:
    raw = BreakableRing()
    fds = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    async with run_ring(raw, 2, 4096) as ring:
        assert await ring.reactor.perform_always(operations.close(fds[0])) == 0
        ring.reactor._failure = BrokenError("test")
        assert await ring.reactor.perform_always(operations.close(fds[1])) == 0
        ring.reactor._failure = None
    assert await ring.reactor.perform_always(operations.close(fds[2])) == 0
    assert await ring.reactor.perform_always(operations.close(999_999)) == -errno.EBADF
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await ring.reactor.perform_always(operations.close(999_999)) == -errno.EBADF


async def test_closing_waits_for_what_is_in_flight(open_any: OpenAny, descriptor: int) -> None:
    results: list[int] = []
    with trio.CancelScope() as scope:
        async with open_any() as ring:
            for offset in range(20):
                operation = operations.write(descriptor, b"x", offset, 1)
                ring.reactor.start(operation, results.append)
            scope.cancel()
    assert results == [1] * 20
    with pytest.raises(ClosedError):
        ring.reactor.start(operations.fsync(descriptor), results.append)


async def test_what_the_kernel_keeps_is_leaked_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, descriptor: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Freed memory would be other data by the time the disk reads it."""
    raw = StuckRing()
    with pytest.warns(ResourceWarning, match="did not give 1 operations back"):
        async with run_ring(raw, 2, 4096) as ring:
            ring.reactor.start(operations.fsync(descriptor), print)
    pool = ring.slots.pool
    assert module._leaked[-2:] == [raw, pool]
    assert len(pool.slots) == 2, "not closed"
    module._leaked.clear()
    raw.close()
    pool.close()


async def test_two_rings_live_side_by_side(open_any: OpenAny, descriptor: int) -> None:
    async with open_any() as first, open_any() as second:
        await first.reactor.perform(operations.write(descriptor, b"1", 0, 1))
        await second.reactor.perform(operations.write(descriptor, b"2", 1, 1))
    assert os.pread(descriptor, 10, 0) == b"12"


async def test_many_rings_one_after_another_leave_nothing_behind(
    open_real: OpenAny, count_descriptors: Callable[[], int]
) -> None:
    async with open_real():
        pass
    gc.collect()
    before = count_descriptors()
    for _ in range(10):
        async with open_real() as ring:
            await ring.reactor.perform(Operation(Opcode.NOP))
    assert count_descriptors() == before


async def test_a_chunk_whose_ring_breaks_names_the_chunk(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = BreakableRing()
    with pytest.warns(ResourceWarning):
        async with open_simulated(raw) as ring:
            with pytest.raises(OperationError) as caught:
                async with ring.create(tmp_path / "new", direct="never") as writer:
                    await writer.write(bytes(100_000))
                    raw.broken = "reap"
                    await writer.flush()
    assert (caught.value.errno, caught.value.operation) == (errno.EIO, "write")
    assert list(tmp_path.iterdir()) == []
    module._leaked.clear()
    raw.close()


def test_a_reactor_needs_a_trio_run() -> None:
    raw: RingLike = SimulatedRing()
    with pytest.raises(RuntimeError):
        Reactor(raw)
    raw.close()


def test_the_limits_are_what_the_docstrings_say() -> None:
    assert module.IN_FLIGHT_MAX == 4096
    assert Fault(Opcode.FSYNC, result=-errno.EIO).nth == 1


class Ticks(trio.abc.Instrument):
    """Counts the passes of trio's scheduler."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_who_waits_is_resumed_in_the_tick_that_brought_the_completion(
    open_uring: OpenAny,
) -> None:
    ticks = Ticks()
    async with open_uring() as ring:
        trio.lowlevel.add_instrument(ticks)
        for _ in range(100):
            assert await ring.reactor.perform(Operation(Opcode.NOP)) == 0
        trio.lowlevel.remove_instrument(ticks)
    assert ticks.count < 150


def test_a_callback_that_raises_ends_the_run_and_does_not_hang_it(uring: RingLike) -> None:
    def fail(_result: int) -> None:
        raise RuntimeError("a callback must not raise (test)")

    async def main() -> None:
        reactor = Reactor(uring)
        reactor.open()
        reactor.start(Operation(Opcode.NOP), fail)
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)


@pytest.mark.parametrize("call", ["submit", "reap"])
def test_a_fault_of_ours_in_a_ring_ends_the_run(call: str) -> None:
    """And not only the reaper, without which whoever waits would wait for ever."""

    class Faulty(SimulatedRing):
        left = 0

        def fault(self, where: str) -> None:
            if where == call and self.left:
                self.left = 0
                raise ZeroDivisionError("a fault of ours (test)")

        def submit(self) -> int:
            self.fault("submit")
            return super().submit()

        @property
        def ready(self) -> bool:
            self.fault("reap")
            return super().ready

    async def main() -> None:
        raw = Faulty(0)
        async with run_ring(raw) as ring:
            raw.left = 1
            assert await ring.reactor.perform(Operation(Opcode.NOP)) == -errno.EIO
            with pytest.raises(BrokenError, match="a fault of ours"):
                await ring.reactor.perform(Operation(Opcode.NOP))

    with pytest.warns(ResourceWarning), pytest.raises(trio.TrioInternalError) as info:
        trio.run(main)
    assert "a fault of ours (test)" in repr(info.value.__cause__)
    module._leaked.clear()


async def test_in_a_forked_child_nothing_is_cleaned_up(descriptor: int) -> None:
    """What there is, is the parent's, which goes on."""
    raw = SimulatedRing(0)
    async with run_ring(raw) as ring:
        raw._unusable = ForkedError
        result = await ring.reactor.perform_always(operations.ftruncate(descriptor, 100))
        raw._unusable = None
    assert result == -errno.EIO
    assert os.fstat(descriptor).st_size == 0


async def test_what_was_still_to_be_reaped_at_the_end_is_not_looked_for() -> None:
    raw = SimulatedRing(0)
    async with run_ring(raw) as ring:
        pass
    ring.reactor._reap()
    assert not ring.reactor.is_broken, "a closed ring would have raised"
    with pytest.raises(ClosedError, match="this ring is closed"):
        await ring.reactor.perform(Operation(Opcode.NOP))
