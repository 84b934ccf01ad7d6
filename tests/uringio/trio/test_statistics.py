"""statistics(): what is counted where, differences, JSON."""

from __future__ import annotations

import dataclasses
import errno
import json
import mmap
import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from uringio._trio import reactor as module
from uringio.exceptions import BrokenError, OperationError
from uringio.lowlevel import BufferPool, Opcode, SlotQueue, operations, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringio.conftest import OpenAny

SLOT = 16 << 10


async def test_a_snapshot_stays_as_it_was(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any(4) as ring:
        idle = ring.statistics()
        assert (idle.in_flight, idle.slots, idle.free_slots) == (0, 4, 4)
        assert (idle.completions, idle.accepted_bytes, dict(idle.latencies)) == (0, 0, {})
        assert (idle.direct_files, idle.uncached_files, idle.cached_files) == (0, 0, 0)
        async with ring.create(tmp_path / "file") as writer, writer.slot():
            now = ring.statistics()
            assert now.free_slots == 3
            assert getattr(now, f"{writer.cache}_files") == 1
            assert now.direct_files + now.uncached_files + now.cached_files == 1
        assert idle.free_slots == 4
        with pytest.raises(dataclasses.FrozenInstanceError):
            idle.slots = 5  # type: ignore[misc]


async def test_a_committed_file_was_accepted_written_and_made_durable(
    open_any: OpenAny, tmp_path: Path
) -> None:
    """By slots that are written behind and by a tail that goes with the chain."""
    size = 3 * SLOT + 4096
    async with open_any(4) as ring:
        async with ring.create(tmp_path / "file", size) as writer:
            await writer.write(b"x" * size)
            await writer.flush()
            flushed = ring.statistics()
            await writer.commit()
        done = ring.statistics()
    assert (flushed.accepted_bytes, flushed.written_bytes, flushed.durable_bytes) == (size, size, 0)
    assert done.written_bytes == done.accepted_bytes == done.durable_bytes
    assert done.durable_bytes >= size, "the tail was flushed and is written again"


async def test_an_fsync_makes_durable_what_was_written_before_it(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "x+", direct="never") as file:
        await file.pwrite(b"a" * 100, 0)
        await file.pwrite_many([(b"b" * 50, 100), (b"c" * 50, 150)])
        assert ring.statistics().durable_bytes == 0
        await file.fsync()
        assert ring.statistics().durable_bytes == 200
        await file.pwrite(b"d", 200)
        await file.fsync()
        await file.fsync()
        statistics = ring.statistics()
        assert (statistics.durable_bytes, statistics.written_bytes) == (201, 201)
        async with file.chain() as chain:
            chain.pwrite(b"e" * 9, 201)
            chain.fsync()
            chain.pwrite(b"f", 210)
        assert ring.statistics().durable_bytes == 210
        await file.pwrite(b"g", 211)
    async with open_any() as ring, await ring.open(tmp_path / "file", "r+") as file:
        await file.fsync()
        assert ring.statistics().durable_bytes == 0


async def test_many_writes_are_counted_one_by_one_and_timed_as_a_whole(
    open_any: OpenAny, tmp_path: Path
) -> None:
    count = 500  # more than are in flight at a time, and one piece
    async with open_any() as ring, await ring.open(tmp_path / "file", "x+", direct="never") as file:
        before = ring.statistics()
        written = await file.pwrite_many([(b"x" * 10, 10 * n) for n in range(count)])
        between = ring.statistics() - before
    assert written == between.accepted_bytes == between.written_bytes == 10 * count
    assert (between.completions, between.short_writes, between.in_flight) == (count, 0, 0)
    kinds = {kind: found.count for kind, found in between.latencies.items()}
    assert kinds == {"open": 0, "write_many": 1}


async def test_many_writes_are_accepted_at_once_and_one_operation_in_flight(
    tmp_path: Path,
) -> None:
    async with (
        run_ring(SimulatedRing(), 2, SLOT) as ring,
        await ring.open(tmp_path / "file", "x+", direct="never") as file,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(file.pwrite_many, [(b"abc", 3 * n) for n in range(9)])
        while not (begun := ring.statistics()).in_flight:
            await trio.lowlevel.checkpoint()
        assert (begun.accepted_bytes, begun.written_bytes, begun.in_flight) == (27, 0, 1)


async def test_many_writes_that_fail_count_what_was_begun_and_what_was_written(
    tmp_path: Path,
) -> None:
    """The third takes 4 of 10 bytes and is continued, the fifth fails, those behind go no more."""
    faults = [Fault(Opcode.WRITE, 3, short=4), Fault(Opcode.WRITE, 5, result=-errno.ENOSPC)]
    async with (
        run_ring(SimulatedRing(2, faults=faults), 2, SLOT) as ring,
        await ring.open(tmp_path / "file", "x+", direct="never") as file,
    ):
        before = ring.statistics()
        pairs = [(b"x" * 10, 10 * n) for n in range(1500)]  # each piece is taken
        with pytest.raises(OperationError) as caught:
            await file.pwrite_many(pairs)
        between = ring.statistics() - before
    failed = caught.value.failures
    assert failed is not None
    begun = len(pairs) - sum(number == errno.ECANCELED for number in failed.values())
    assert len(pairs) > begun > 1
    assert between.completions == begun + 1, "and the one that goes on"
    assert between.short_writes == 1
    assert between.written_bytes == 10 * (len(pairs) - len(failed))
    assert between.accepted_bytes == 10 * len(pairs) + 6


async def test_a_ring_that_breaks_takes_nothing_back(tmp_path: Path) -> None:
    """Totals only grow: what was in flight was accepted, and was neither written nor completed."""

    class Breaking(SimulatedRing):
        def submit(self) -> int:
            if self._runs:
                raise BrokenError("test")
            return super().submit()

    raw = Breaking()
    with pytest.warns(ResourceWarning, match="did not give"):
        async with run_ring(raw, 2, SLOT) as ring:
            file = await ring.open(tmp_path / "file", "x+", direct="never")
            await file.pwrite(b"abc", 0)
            earlier = ring.statistics()

            async def write_beside() -> None:
                await trio.lowlevel.checkpoint()  # as many writes do to begin: in the same tick
                await file.pwrite(b"abcd", 3)

            with pytest.RaisesGroup(BrokenError, OperationError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write_beside)
                    nursery.start_soon(file.pwrite_many, [(b"e", 7), (b"f", 8)])
            between = ring.statistics() - earlier
            await file.aclose()
    assert (between.accepted_bytes, between.written_bytes) == (6, 0)
    assert (between.completions, between.in_flight) == (0, 0)
    module._leaked.clear()
    raw.close()


async def test_what_is_durable_by_itself_is_counted_when_it_is_written(
    open_any: OpenAny, tmp_path: Path
) -> None:
    """And no fsync counts it again, nor counts less because of it."""
    async with open_any() as ring, await ring.open(tmp_path / "file", "x+", direct="never") as file:
        await file.pwrite(b"a" * 10, 0)
        await file.pwrite(b"b" * 20, 10, durable=True)
        await file.pwrite_many([(b"c" * 30, 30), (b"d" * 30, 60)], durable=True)
        assert ring.statistics().durable_bytes == 80
        await file.fsync()
        assert ring.statistics().durable_bytes == 90
        async with file.chain() as chain:
            chain.pwrite(b"e" * 7, 90, durable=True)
            chain.pwrite(b"f" * 2, 97)
            chain.fsync()
        statistics = ring.statistics()
    assert statistics.durable_bytes == statistics.written_bytes == 99


async def test_an_fsync_that_fails_makes_nothing_durable(tmp_path: Path) -> None:
    raw = SimulatedRing(3, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    async with run_ring(raw, 2, SLOT) as ring:
        async with await ring.open(tmp_path / "file", "x+", direct="never") as file:
            await file.pwrite(b"lost", 0)
            with pytest.raises(OperationError):
                await file.fsync()
        assert ring.statistics().durable_bytes == 0
        assert ring.statistics().written_bytes == 4


async def test_a_descriptor_that_is_used_again_begins_at_nothing(
    open_real: OpenAny, tmp_path: Path
) -> None:
    """A number is given to the next file: its fsync covers none of the bytes of the one before."""
    async with open_real() as ring:
        async with await ring.open(tmp_path / "one", "x+", direct="never") as file:
            number = file.fileno()
            await file.pwrite(b"never synced", 0)
        async with await ring.open(tmp_path / "two", "x+", direct="never") as file:
            assert file.fileno() == number
            await file.pwrite(b"synced", 0)
            await file.fsync()
        assert ring.statistics().durable_bytes == len(b"synced")


async def test_what_a_write_left_unwritten_stays_accepted(tmp_path: Path) -> None:
    faults = [
        Fault(Opcode.WRITE, 1, short=4),
        Fault(Opcode.WRITE, 3, result=-errno.ENOSPC),
    ]
    async with run_ring(SimulatedRing(1, faults=faults), 2, SLOT) as ring:
        async with await ring.open(tmp_path / "file", "x+", direct="never") as file:
            await file.pwrite(b"0123456789", 0)
            short = ring.statistics()
            with pytest.raises(OperationError):
                await file.pwrite(b"abc", 10)
        failed = ring.statistics() - short
    assert (short.short_writes, short.written_bytes, short.accepted_bytes) == (1, 10, 16)
    assert (failed.short_writes, failed.written_bytes, failed.accepted_bytes) == (0, 0, 3)


async def test_a_write_in_flight_is_accepted_and_not_written(tmp_path: Path) -> None:
    async with (
        run_ring(SimulatedRing(), 2, SLOT) as ring,
        await ring.open(tmp_path / "file", "x+", direct="never") as file,
    ):
        ring.reactor.start(operations.write(file.fileno(), b"abc", 0, 3), print)
        begun = ring.statistics()
        assert (begun.accepted_bytes, begun.written_bytes, begun.in_flight) == (3, 0, 1)
        await ring.reactor.wait_idle()
        assert ring.statistics().written_bytes == 3


async def test_every_completion_has_a_latency_under_its_kind(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with open_any() as ring:
        async with await ring.open(tmp_path / "file", "x+", direct="never") as file:
            for offset in range(5):
                await file.pwrite(b"x", offset)
            await file.pread(5, 0)
            await file.fsync()
        statistics = ring.statistics()
        counts = {kind: found.count for kind, found in statistics.latencies.items()}
    assert counts == {"open": 1, "write": 5, "read": 1, "fsync": 1, "close": 1}
    assert statistics.completions == sum(counts.values())
    assert statistics.latencies["write"].percentile(100) > 0


async def test_a_batch_is_what_one_tick_hands_over(open_real: OpenAny, tmp_path: Path) -> None:
    async with (
        open_real() as ring,
        await ring.open(tmp_path / "file", "x+", direct="never") as file,
    ):
        before = ring.statistics()
        tasks = 20
        async with trio.open_nursery() as nursery:
            for offset in range(tasks):
                nursery.start_soon(file.pwrite, b"x", offset)
        between = ring.statistics() - before
    assert between.batches.percentile(100) == 31, "16 to 31 at a time"
    assert between.batches.count < tasks
    if ring.features.backend == "io_uring":
        assert between.batches.count <= between.enters
    else:
        assert (between.enters, between.retries) == (0, 0)


async def test_a_refused_submit_is_a_retry(tmp_path: Path) -> None:
    async with run_ring(SimulatedRing(seed=0), 2, SLOT) as ring:
        async with await ring.open(tmp_path / "file", "x+") as file:
            for _ in range(100):
                await file.fsync()
        statistics = ring.statistics()
    assert 0 < statistics.retries < statistics.enters
    assert statistics.enters - statistics.retries == statistics.completions


async def test_waits_for_a_slot_are_counted_and_timed(
    mock_clock: trio.testing.MockClock,
) -> None:
    slots = SlotQueue(BufferPool(2, 4096))
    taken = [await slots.acquire() for _ in range(2)]

    async def wait(seconds: float) -> None:
        with trio.move_on_after(seconds):
            slots.release(await slots.acquire())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 100)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3)
        await trio.testing.wait_all_tasks_blocked()
        assert (slots.waits, slots.wait_s) == (2, 3.0), "the one that gave up"
        mock_clock.jump(4)
        slots.release(taken.pop())
    assert (slots.waits, slots.wait_s) == (2, 10.0)


async def test_a_difference_says_what_was_done_between_and_how_things_are(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with (
        open_any(4) as ring,
        await ring.open(tmp_path / "file", "x+", direct="never") as file,
    ):
        await file.pwrite(b"before", 0)
        earlier = ring.statistics()
        await file.pwrite(b"between", 0)
        slot = await ring.slots.acquire()
        between = ring.statistics() - earlier
        ring.slots.release(slot)
    assert (between.written_bytes, between.completions) == (7, 1)
    assert {kind: found.count for kind, found in between.latencies.items()} == {
        "open": 0,
        "write": 1,
    }
    assert (between.slots, between.free_slots) == (4, 3)
    assert 0 < between.time_s < earlier.time_s


async def test_a_snapshot_goes_into_json(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any(4) as ring:
        async with ring.create(tmp_path / "file") as writer:
            await writer.write(b"x")
            await writer.commit()
        statistics = ring.statistics()
    shown = json.loads(json.dumps(statistics.to_dict()))
    assert list(shown) == [field.name for field in dataclasses.fields(statistics)]
    assert shown["written_bytes"] == statistics.written_bytes > 0
    assert shown["latencies"]["fsync"]["count"] == statistics.latencies["fsync"].count == 2


async def test_aligned_writes_count_their_bytes_too(open_real: OpenAny, tmp_path: Path) -> None:
    memory = mmap.mmap(-1, 8192)
    async with open_real() as ring, await ring.open(tmp_path / "file", "x+") as file:
        await file.pwrite(memory, 0)
        await file.fsync()
        assert ring.statistics().durable_bytes == os.stat(tmp_path / "file").st_size == 8192
