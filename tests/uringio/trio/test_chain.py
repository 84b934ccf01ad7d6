"""Chains of one file: in order, all in one submission, nothing behind an error."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

import uringio
from uringio._ring.execute import execute
from uringio._ring.operations import LENGTH_MAX
from uringio.lowlevel import Opcode, Operation, RingLike
from uringio.testing import Fault, SimulatedRing

OpenAny = Callable[..., AbstractAsyncContextManager[uringio.Ring]]
OpenRaw = Callable[[RingLike], AbstractAsyncContextManager[uringio.Ring]]

MAP_NORESERVE = 0x4000
"""mmap(2)'s, which the module has not: a machine may have less memory than is asked for."""
BLOCK = 4096


def aligned(*fills: bytes) -> list[memoryview]:
    memory = memoryview(mmap.mmap(-1, BLOCK * len(fills)))
    views = []
    for i, fill in enumerate(fills):
        memory[i * BLOCK : (i + 1) * BLOCK] = fill * BLOCK
        views.append(memory[i * BLOCK : (i + 1) * BLOCK])
    return views


async def test_a_chain_writes_and_syncs_in_order(open_any: OpenAny, tmp_path: Path) -> None:
    record, header = aligned(b"r", b"h")
    async with open_any() as ring, await ring.open(tmp_path / "log", "w+") as file:
        async with file.chain() as chain:
            chain.pwrite(record, BLOCK)
            chain.fsync(data_only=True)
            chain.pwrite(header, 0)
            chain.fsync()
        assert await file.pread(2 * BLOCK, 0) == b"h" * BLOCK + b"r" * BLOCK


async def test_a_chain_on_a_buffered_file_takes_any_alignment(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "log", "w+", direct="never") as file,
    ):
        async with file.chain() as chain:
            chain.pwrite(b"abc", 7)
            chain.fsync()
        assert await file.pread(3, 7) == b"abc"


async def test_nothing_behind_an_error_runs(open_simulated: OpenRaw, tmp_path: Path) -> None:
    raw = SimulatedRing(3, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    record, header = aligned(b"r", b"h")
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "log", "w+") as file:
        with pytest.raises(uringio.OperationError) as caught:
            async with file.chain() as chain:
                chain.pwrite(record, BLOCK)
                chain.pwrite(record, 2 * BLOCK)  # a single one could carry the fsync itself
                chain.fsync()
                chain.pwrite(header, 0)
                chain.fsync()
        assert (caught.value.operation, caught.value.errno) == ("fsync", errno.EIO)
        assert await file.pread(BLOCK, 0) == bytes(BLOCK), "the header was not written"
    asked = [op.opcode for op, result in raw.history if result != -errno.ECANCELED]
    assert asked.count(Opcode.FSYNC) == 1, "a failed fsync is not asked again"


async def test_a_short_write_in_mid_chain_is_finished_before_what_follows(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(4, faults=[Fault(Opcode.WRITE, 1, short=10)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "log", "w+", direct="never") as file,
    ):
        async with file.chain() as chain:
            chain.pwrite(b"a" * 100, 0)
            chain.fsync()
            chain.pwrite(b"b" * 100, 50)
        assert await file.pread(150, 0) == b"a" * 50 + b"b" * 100
    done = [op.opcode for op, result in raw.history if result >= 0]
    at = done.index(Opcode.FSYNC)
    assert done[:at].count(Opcode.WRITE) == 2, "both parts of the first, then the fsync"


async def test_an_exception_in_the_block_runs_nothing(open_any: OpenAny, tmp_path: Path) -> None:
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "log", "w+", direct="never") as file,
    ):
        with pytest.raises(RuntimeError):
            async with file.chain() as chain:
                chain.pwrite(b"abc", 0)
                raise RuntimeError
        assert await file.pread(3, 0) == b""


async def test_a_cancelled_block_runs_nothing(open_any: OpenAny, tmp_path: Path) -> None:
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "log", "w+", direct="never") as file,
    ):
        with trio.CancelScope() as scope:
            async with file.chain() as chain:
                chain.pwrite(b"abc", 0)
                scope.cancel()
        assert scope.cancelled_caught
        assert await file.pread(3, 0) == b""


async def test_a_chain_runs_once_and_takes_nothing_behind_its_end(
    open_any: OpenAny, tmp_path: Path
) -> None:
    first, second = aligned(b"1", b"2")
    async with open_any() as ring, await ring.open(tmp_path / "log", "w+") as file:
        async with file.chain() as chain:
            chain.pwrite(first, 0)
        with pytest.raises(RuntimeError, match="behind its end"):
            chain.pwrite(second, BLOCK)
        with pytest.raises(RuntimeError, match="behind its end"):
            chain.fsync()
        with pytest.raises(RuntimeError, match="runs once"):
            async with chain:
                pass
        assert await file.pread(2 * BLOCK, 0) == b"1" * BLOCK
    with pytest.raises(uringio.ClosedError):
        file.chain()


async def test_what_cannot_be_linked_is_refused_when_it_is_added(
    open_uring: OpenAny, tmp_path: Path
) -> None:
    [block] = aligned(b"x")
    async with open_uring() as ring, await ring.open(tmp_path / "log", "w+") as file:
        async with file.chain() as chain:
            with pytest.raises(ValueError, match="multiples of 4096"):
                chain.pwrite(block, 1)
            with pytest.raises(ValueError, match="multiples of 4096"):
                chain.pwrite(block[:5], 0)
            with pytest.raises(ValueError, match="an offset is 0 or more"):
                chain.pwrite(block, -BLOCK)
            for _ in range(64):
                chain.fsync(data_only=True)
            with pytest.raises(ValueError, match="64 operations at the most"):
                chain.fsync()
        async with file.chain() as chain:
            pass  # an empty chain is done at once
    with pytest.raises(uringio.ClosedError):
        async with file.chain() as chain:
            chain.fsync()


async def test_a_write_too_long_for_one_operation_is_several_members(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    """Of memory that nobody touches: it is never there."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    view = memoryview(mmap.mmap(-1, LENGTH_MAX + BLOCK, flags))
    written: list[tuple[int, int]] = []

    def note(operation: Operation) -> int:
        if operation.opcode is not Opcode.WRITE:
            return execute(operation)
        written.append((operation.offset, operation.length))
        return operation.length

    async with (
        open_simulated(SimulatedRing(1, perform=note)) as ring,
        await ring.open(tmp_path / "log", "w+") as file,
        file.chain() as chain,
    ):
        chain.pwrite(view, BLOCK)
        chain.fsync()
    assert written == [(BLOCK, LENGTH_MAX), (BLOCK + LENGTH_MAX, BLOCK)]


async def test_a_chain_that_is_cancelled_in_its_midst_is_done_to_its_end(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    """Half of it would be an order that nobody asked for."""
    scope = trio.CancelScope()

    def cancel(operation: Operation) -> int:
        if operation.opcode is Opcode.WRITE:
            scope.cancel()
        return execute(operation)

    async with (
        open_simulated(SimulatedRing(1, perform=cancel)) as ring,
        await ring.open(tmp_path / "log", "w+", direct="never") as file,
    ):
        with scope:
            async with file.chain() as chain:
                chain.pwrite(b"record", 6)
                chain.fsync()
                chain.pwrite(b"header", 0)
        assert await file.pread(100, 0) == b"headerrecord"
