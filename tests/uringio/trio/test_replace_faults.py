"""Faults and cancellation at every operation of a replace: old bytes or new ones, and the truth.

The operations of an undisturbed replace are counted first. Then each in turn fails, does only a
half, or finds the task cancelled.
"""
# A test may block on a small file.

from __future__ import annotations

import errno
import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from uringio._ring.execute import execute
from uringio.exceptions import (
    NoSpaceError,
    OperationError,
    PendingReplaceError,
    UringioError,
    operation_error,
)
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    import uringio
    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

SLOT = 16 << 10
SLOTS = 4
OLD = random.Random(1).randbytes(6 * SLOT + 1234)
OPERATIONS_MAX = 60
"""More than any scenario has: a walk that gets there does not end."""

RANGES = {
    "inside a block": (5000, 10),
    "one piece with both ends": (5000, 9000),
    "several pieces": (5000, 3 * SLOT),
    "the end of the file": (len(OLD) - 3 * SLOT, 3 * SLOT),
}
WRITES = {Opcode.WRITE, Opcode.WRITE_FIXED}
READS = {Opcode.READ, Opcode.READ_FIXED}


@pytest.fixture(params=RANGES)
def change(request: pytest.FixtureRequest) -> tuple[int, bytes]:
    offset, length = RANGES[request.param]
    return offset, random.Random(2).randbytes(length)


@pytest.fixture(params=["auto", "never"])
def direct(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def spliced(offset: int, data: bytes) -> bytes:
    return OLD[:offset] + data + OLD[offset + len(data) :]


class FaultAt:
    """Performs operations, and does `wrong` for the n-th since it was switched on."""

    def __init__(self, nth: int, wrong: Callable[[Operation], int]) -> None:
        self.left = nth
        self.wrong = wrong
        self.on = False
        self.hit: Operation | None = None

    def __call__(self, operation: Operation) -> int:
        if not self.on or operation.opcode is Opcode.CLOSE:
            return execute(operation)
        self.left -= 1
        if self.left == -1:
            self.hit = replace(operation, data=None)
            return self.wrong(operation)
        return execute(operation)


def refused(_: Operation) -> int:
    """Nothing is done."""
    return -errno.EIO


def done_and_denied(operation: Operation) -> int:
    """All is done, and the answer is an error all the same: a lost answer. No open is like that."""
    if operation.opcode is not Opcode.OPENAT:
        execute(operation)
    return -errno.EIO


def half_done(operation: Operation) -> int:
    """A write gets half as far as it was meant to, and then fails."""
    if operation.opcode in WRITES:
        half = operation.length // 2
        execute(replace(operation, length=half - half % 512 or half))
    return -errno.EIO


async def reopen(path: Path) -> tuple[bytes, tuple[uringio.Recovered, ...]]:
    """Recover with a disk that works."""
    async with (
        run_ring(SimulatedRing(9), SLOTS, SLOT) as ring,
        await ring.open(path, "r") as file,
    ):
        return await file.pread(2 * len(OLD), 0), file.recovered


@pytest.mark.parametrize("wrong", [refused, done_and_denied, half_done])
async def test_an_error_at_any_operation_leaves_the_old_bytes_or_brings_the_new(
    path: Path, direct: Direct, change: tuple[int, bytes], wrong: Callable[[Operation], int]
) -> None:
    offset, _ = change
    old, new = OLD, spliced(*change)
    clean = pending = 0
    for nth in range(OPERATIONS_MAX):
        disk = FaultAt(nth, wrong)
        error: UringioError | None = None
        async with (
            run_ring(SimulatedRing(nth, perform=disk), SLOTS, SLOT) as ring,
            await ring.open(path, "r+", direct=direct) as file,
        ):
            descriptors = len(os.listdir("/proc/self/fd"))
            disk.on = True
            try:
                await file.replace(*change)
            except OperationError as exc:
                error = exc
            disk.on = False
            second = len(os.listdir("/proc/self/fd")) - descriptors
            assert second in {0, 1}, "at the most the one for the page cache stays"
            assert ring.statistics().free_slots == SLOTS
            if isinstance(error, PendingReplaceError):
                with pytest.raises(PendingReplaceError, match="EIO"):
                    await file.replace(offset, b"x")
            elif error is not None:
                assert path.read_bytes() == old, (nth, disk.hit)
                assert os.listdir(path.parent) == ["file"], (nth, disk.hit)
                await file.replace(*change)
                assert path.read_bytes() == new, "a clean failure can be tried again"
        before = path.read_bytes()
        after, recovered = await reopen(path)
        assert os.listdir(path.parent) == ["file"]
        if isinstance(error, PendingReplaceError):
            pending += 1
            assert (error.errno, error.path is not None) == (errno.EIO, True)
            if "next open of the file writes them" in str(error):
                assert after == new, (nth, disk.hit)
            else:
                assert "the range holds the old bytes" in str(error)
                assert before == old, (nth, disk.hit)
                assert after == (new if recovered else old), (nth, disk.hit)
        else:
            clean += error is not None
            assert (before, after, recovered) == (new, new, ()), (nth, disk.hit)
        path.write_bytes(old)
        if disk.hit is None:
            assert error is None
            break
    else:
        raise AssertionError("the replace never came through")
    assert clean >= 4, "fallocate, create, payload, header, fsync of the journal"
    assert pending >= 5, "fsync of the directory, write, fsync, read, unlink, fsync"


async def test_an_error_says_what_failed_and_where(path: Path) -> None:
    """The write into the target: the journal is safe by then."""
    count = 0

    def fail(operation: Operation) -> int:
        nonlocal count
        is_target = operation.opcode in WRITES and operation.offset == 8192
        count += is_target
        return -errno.ENOSPC if is_target else execute(operation)

    async with (
        run_ring(SimulatedRing(1, perform=fail), SLOTS, SLOT) as ring,
        await ring.open(path, "r+", direct="never") as file,
    ):
        with pytest.raises(PendingReplaceError) as info:
            await file.replace(8192, b"x" * 8192)
    error = info.value
    assert count == 1, "in the journal these bytes stand elsewhere"
    assert (error.errno, error.operation, error.path) == (errno.ENOSPC, "write", str(path))
    assert (error.offset, error.length) == (8192, 8192)
    assert "free space on this file system" in str(error), "the usual hint"
    assert "the new bytes are safe in a journal" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (PendingReplaceError, str(error))


async def test_a_full_disk_is_known_before_anything_is_written(path: Path) -> None:
    for nth in (1, 2):  # the target's blocks, the journal's
        faults = [Fault(Opcode.FALLOCATE, nth, result=-errno.ENOSPC)]
        async with (
            run_ring(SimulatedRing(1, faults=faults), SLOTS, SLOT) as ring,
            await ring.open(path, "r+") as file,
        ):
            with pytest.raises(NoSpaceError):
                await file.replace(0, b"x" * 5000)
        assert path.read_bytes() == OLD
        assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(Opcode.FALLOCATE, result=-errno.EOPNOTSUPP, every=True)],
        [Fault(Opcode.WRITE, short=4096, every=True)],
        [Fault(Opcode.READ, short=4096, every=True)],
        [Fault(Opcode.FALLOCATE, result=-errno.EINTR)],
    ],
    ids=["no fallocate", "short writes", "short reads", "interrupted"],
)
async def test_what_can_be_mended_is(
    path: Path, direct: Direct, change: tuple[int, bytes], faults: list[Fault]
) -> None:
    async with (
        run_ring(SimulatedRing(4, faults=faults), SLOTS, SLOT) as ring,
        await ring.open(path, "r+", direct=direct) as file,
    ):
        assert (await file.replace(*change)).verified
    assert path.read_bytes() == spliced(*change)
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(
    "missing", [Opcode.FALLOCATE, Opcode.UNLINKAT, Opcode.FSYNC, Opcode.OPENAT]
)
async def test_an_operation_that_the_ring_lacks_is_done_all_the_same(
    path: Path, change: tuple[int, bytes], missing: Opcode
) -> None:
    async with (
        run_ring(SimulatedRing(4, missing_opcodes=[missing]), SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as file,
    ):
        assert (await file.replace(*change)).verified
    assert path.read_bytes() == spliced(*change)
    assert os.listdir(path.parent) == ["file"]


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` at the n-th step of the task that is watched."""

    def __init__(self, step: int, when: Literal["parked", "resumed"]) -> None:
        self.left = step
        self.when = when
        self.task = trio.lowlevel.current_task()
        self.scope = trio.CancelScope()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "resumed")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "parked")

    def _count(self, task: trio.lowlevel.Task, when: str) -> None:
        if task is self.task and when == self.when:
            if self.left == 0:
                self.scope.cancel()
            self.left -= 1


@pytest.mark.parametrize("when", ["parked", "resumed"])
async def test_a_replace_cancelled_at_any_await_has_not_happened_or_has_in_full(
    open_any: OpenAny,
    path: Path,
    change: tuple[int, bytes],
    when: Literal["parked", "resumed"],
) -> None:
    new = spliced(*change)
    cancelled = through = 0
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        await file.replace(0, OLD[:1])  # the descriptor through the page cache is there now
        descriptors = len(os.listdir("/proc/self/fd"))
        for step in range(1000):
            instrument = CancelAtStep(step, when)
            trio.lowlevel.add_instrument(instrument)
            finished = False
            with instrument.scope:
                await file.replace(*change)
                finished = True
            trio.lowlevel.remove_instrument(instrument)
            assert os.listdir(path.parent) == ["file"], step
            assert path.read_bytes() == (new if finished else OLD), step
            assert len(os.listdir("/proc/self/fd")) == descriptors, step
            statistics = ring.statistics()
            assert (statistics.in_flight, statistics.free_slots) == (0, SLOTS), step
            assert file._replacing._ranges.claims == 0
            if not finished:
                assert instrument.scope.cancelled_caught
                cancelled += 1
                continue
            through += 1
            path.write_bytes(OLD)
            if not instrument.scope.cancel_called:
                break
        else:
            raise AssertionError("the replace never came through")
    assert cancelled >= 2
    assert through >= 3, "cancelled after the point of no return: done in full"


def test_the_error_of_a_later_caller_is_one_of_its_own() -> None:
    first = PendingReplaceError(errno.EIO, "fsync", "file", 7, 8, "hint")
    again = first.again()
    assert again is not first
    assert (type(again), str(again)) == (PendingReplaceError, str(first))
    assert not isinstance(operation_error(errno.EIO, "fsync", "file"), PendingReplaceError)
