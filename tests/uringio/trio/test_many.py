"""pwrite_many: many writes, one task, a bounded number in flight."""

from __future__ import annotations

import errno
import mmap
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

import uringio
from uringio._trio.many import IN_FLIGHT_MAX
from uringio.lowlevel import Opcode, RingLike
from uringio.testing import Fault, SimulatedRing

OpenAny = Callable[..., AbstractAsyncContextManager[uringio.Ring]]
OpenRaw = Callable[[RingLike], AbstractAsyncContextManager[uringio.Ring]]

BLOCK = 4096
COUNT = 3 * IN_FLIGHT_MAX


def blocks(count: int) -> list[memoryview]:
    memory = memoryview(mmap.mmap(-1, BLOCK * count))
    memory[:] = random.Random(7).randbytes(len(memory))
    return [memory[i * BLOCK : (i + 1) * BLOCK] for i in range(count)]


async def test_more_than_are_in_flight_at_a_time_are_all_written(
    open_any: OpenAny, tmp_path: Path
) -> None:
    views = blocks(COUNT)
    pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
    random.Random(1).shuffle(pairs)
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert await file.pwrite_many(pairs) == COUNT * BLOCK
        assert ring.statistics().in_flight == 0
    assert (tmp_path / "file").read_bytes() == b"".join(views)


async def test_short_writes_are_finished(open_simulated: OpenRaw, tmp_path: Path) -> None:
    views = blocks(20)
    raw = SimulatedRing(5, faults=[Fault(Opcode.WRITE, short=700, probability=0.4)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
        assert await file.pwrite_many(pairs) == 20 * BLOCK
    assert (tmp_path / "file").read_bytes() == b"".join(views)


async def test_after_an_error_no_more_are_started_and_all_have_ended(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(6, faults=[Fault(Opcode.WRITE, 1, result=-errno.EIO)])
    pairs = [(b"x" * 100, i * 100) for i in range(COUNT)]
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(uringio.OperationError) as caught:
            await file.pwrite_many(pairs)
        assert (caught.value.operation, caught.value.errno) == ("write", errno.EIO)
        assert ring.statistics().in_flight == 0
    writes = [op for op, _ in raw.history if op.opcode is Opcode.WRITE]
    assert len(writes) < COUNT


async def test_a_pair_that_cannot_be_written_is_refused_before_any_is(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(TypeError):
            await file.pwrite_many([(b"x", 0), ("text", 1)])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="an offset is 0 or more"):
            await file.pwrite_many([(b"x", 0), (b"x", -1)])
        assert await file.pread(1, 0) == b""


async def test_a_cancelled_task_leaves_when_its_writes_have_ended(
    open_any: OpenAny, tmp_path: Path
) -> None:
    views = blocks(COUNT)
    pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.pwrite_many, pairs)
                await trio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert ring.statistics().in_flight == 0
        assert await file.pwrite_many(pairs) == COUNT * BLOCK, "the file is usable as before"


async def test_unaligned_pairs_are_copied_side_by_side(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(8)
    data = random.Random(2).randbytes(64 * BLOCK + 5)
    odd = bytearray(data)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        pairs = [(memoryview(odd)[i : i + 1000], i) for i in range(0, len(odd), 1000)]
        assert await file.pwrite_many(pairs) == len(data)
        assert await file.pread(len(data), 0) == data
