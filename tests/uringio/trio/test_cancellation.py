"""Cancel a writer at every await of its life: all of the file is there, or nothing is.

An instrument counts the steps of one task and cancels its scope at the n-th, for n = 0, 1, 2 ...
until the task gets through. It cancels once when the task has just parked (the operation is on its
way) and once when it is just about to go on (the result has come already).
"""
# A test may block on a small file.

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import trio

import uringio
from uringio.exceptions import OperationError
from uringio.lowlevel import BufferPool, Opcode
from uringio.testing import Fault

if TYPE_CHECKING:
    from tests.uringio.conftest import OpenAny
    from uringio import BulkWriter

SLOT = 16 << 10
SLOTS = 3
STEPS_MAX = 2_000
"""More steps than any scenario has: a walk that gets there does not end."""

When = Literal["parked", "resumed"]
Scenario = Callable[[uringio.Ring, Path, list["BulkWriter"]], "object"]

PIECES = [bytes([i + 1]) * length for i, length in enumerate((100, 2 * SLOT, 3 * SLOT + 5, 7000))]
LENT = b"lent" * 500
CONTENT = PIECES[0] + PIECES[1] + LENT + PIECES[2] + PIECES[3]


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` at the n-th step of the task that is watched."""

    def __init__(self, step: int, when: When) -> None:
        self.left = step
        self.when = when
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()
        self.writers: list[BulkWriter] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "resumed")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "parked")
        for writer in self.writers:
            assert writer.accepted >= writer.written >= writer.durable

    def _count(self, task: trio.lowlevel.Task, when: When) -> None:
        if task is self.task and when == self.when:
            if self.left == 0:
                self.scope.cancel()
            self.left -= 1


async def write_a_file(ring: uringio.Ring, path: Path, writers: list[BulkWriter]) -> bool:
    """Everything a writer can be asked for; whether the commit returned."""
    async with ring.create(path) as writer:
        writers.append(writer)
        await writer.write(PIECES[0])
        await writer.write(PIECES[1])
        async with writer.slot() as slot:
            await trio.lowlevel.checkpoint()
            slot.length = len(LENT)
            slot.view[: len(LENT)] = LENT
        await writer.flush()
        await writer.write(PIECES[2])
        await writer.sync()
        await writer.write(PIECES[3])
        await writer.commit()
        return True


async def write_after_cancelled_flushes(
    ring: uringio.Ring, path: Path, writers: list[BulkWriter]
) -> bool:
    """Flush and sync that are given up half-way must not harm what is written after them."""
    async with ring.create(path, len(CONTENT)) as writer:
        writers.append(writer)
        for start in range(0, len(CONTENT), 5000):
            await writer.write(CONTENT[start : start + 5000])
            with trio.CancelScope() as scope:
                scope.cancel()
                await (writer.flush if start % 10_000 else writer.sync)()
            with trio.move_on_after(0):
                await writer.flush()
        await writer.commit()
        return True


async def walk(
    ring: uringio.Ring, scenario: Scenario, directory: Path, when: When
) -> tuple[int, int, int]:
    """Cancel at every step: how many walks were cancelled, failed and came through."""
    cancelled = failed = through = 0
    path = directory / "file"
    free, descriptors = ring.statistics().free_slots, len(os.listdir("/proc/self/fd"))
    for step in range(STEPS_MAX):
        instrument = CancelAtStep(step, when)
        instrument.task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(instrument)
        committed = False
        error = None
        with instrument.scope:
            try:
                committed = bool(await scenario(ring, path, instrument.writers))  # type: ignore[misc]
            except OperationError as exc:
                error = exc
        trio.lowlevel.remove_instrument(instrument)
        there = sorted(entry.name for entry in directory.iterdir())
        if committed:
            assert there == ["file"], (step, there)
            assert path.read_bytes() == CONTENT, step
            path.unlink()
            through += 1
        else:
            assert instrument.scope.cancelled_caught or error is not None, step
            assert there == [], (step, there)
            failed += error is not None
            cancelled += instrument.scope.cancelled_caught
        statistics = ring.statistics()
        assert statistics.in_flight == 0, step
        assert statistics.free_slots == free, step
        assert statistics.waiting_for_slot == 0, step
        assert len(os.listdir("/proc/self/fd")) == descriptors, step
        if committed and not instrument.scope.cancel_called:
            return cancelled, failed, through
    raise AssertionError("the scenario never came through")


@pytest.mark.parametrize("when", ["parked", "resumed"])
async def test_a_writer_cancelled_at_any_await_leaves_nothing_or_all(
    open_any: OpenAny, tmp_path: Path, when: When
) -> None:
    async with open_any(SLOTS, SLOT) as ring:
        cancelled, failed, through = await walk(ring, write_a_file, tmp_path, when)
    assert cancelled >= 8
    assert failed == 0
    assert through >= 1


@pytest.mark.parametrize("when", ["parked", "resumed"])
async def test_flushes_that_were_cancelled_half_way_harm_nothing(
    open_any: OpenAny, tmp_path: Path, when: When
) -> None:
    async with open_any(SLOTS, SLOT) as ring:
        cancelled, failed, _ = await walk(ring, write_after_cancelled_flushes, tmp_path, when)
    assert cancelled > 5
    assert failed == 0


FAULTS: dict[str, Sequence[Fault]] = {
    "short writes": [Fault(Opcode.WRITE, short=4096, probability=0.3)],
    "interrupted reservations": [
        Fault(Opcode.FALLOCATE, result=-errno.EINTR, probability=0.5),
        Fault(Opcode.WRITE, short=8192, probability=0.2),
    ],
}
ERRORS: dict[str, Sequence[Fault]] = {
    "writes that fail": [
        Fault(Opcode.WRITE, 3, result=-errno.EIO),
        Fault(Opcode.WRITE, result=-errno.EIO, probability=0.15),
    ],
    "syncs that fail": [
        Fault(Opcode.FSYNC, 2, result=-errno.EIO),
        Fault(Opcode.FSYNC, result=-errno.EIO, probability=0.5),
    ],
    "opens that fail": [
        Fault(Opcode.OPENAT, 3, result=-errno.EMFILE),
        Fault(Opcode.OPENAT, result=-errno.EMFILE, probability=0.5),
    ],
    "a disk that fills": [
        Fault(Opcode.FALLOCATE, 1, result=-errno.ENOSPC),
        Fault(Opcode.FALLOCATE, result=-errno.ENOSPC, probability=0.5),
        Fault(Opcode.WRITE, result=-errno.ENOSPC, probability=0.15),
    ],
    "renames that fail": [
        Fault(Opcode.RENAMEAT, 1, result=-errno.EACCES),
        Fault(Opcode.RENAMEAT, result=-errno.EACCES, probability=0.5),
    ],
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("open_any", ["simulated-10", "simulated-11"], indirect=True)
async def test_nor_do_faults_that_can_be_mended(
    open_any: OpenAny, tmp_path: Path, kind: str
) -> None:
    async with open_any(SLOTS, SLOT, faults=FAULTS[kind]) as ring:
        cancelled, failed, through = await walk(ring, write_a_file, tmp_path, "parked")
    assert cancelled >= 8
    assert failed == 0
    assert through >= 1


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("open_any", ["simulated-12", "simulated-13"], indirect=True)
async def test_a_cancel_and_an_error_together_leave_nothing_or_all(
    open_any: OpenAny, tmp_path: Path, kind: str
) -> None:
    """The directory's own fsync is left out: the name is there before it can fail."""

    async def scenario(ring: uringio.Ring, path: Path, writers: list[BulkWriter]) -> bool:
        async with ring.create(path) as writer:
            writers.append(writer)
            for piece in (CONTENT[:40_000], CONTENT[40_000:]):
                await writer.write(piece)
                await writer.sync()
            await writer.commit(durability="durable")
            return True

    async with open_any(SLOTS, SLOT, faults=ERRORS[kind]) as ring:
        _, failed, _ = await walk(ring, scenario, tmp_path, "parked")
    assert failed > 0, "the faults did happen"


async def test_a_file_cancelled_at_any_await_gives_everything_back(
    open_any: OpenAny, tmp_path: Path
) -> None:
    """UringFile: copies through slots, a second descriptor, reads and an fsync."""
    pool = BufferPool(2, 3 * SLOT)
    memory = pool.slots[0].memory

    async def scenario(ring: uringio.Ring, path: Path, _: list[BulkWriter]) -> bool:
        try:
            async with await ring.open(path, "w+") as file:
                await file.pwrite(CONTENT[: 2 * SLOT], 0)
                await file.pwrite_many([(CONTENT[2 * SLOT :], 2 * SLOT), (b"", 0)])
                await file.pread_into(memory, 0)
                assert memory == CONTENT[: 3 * SLOT]
                await file.fsync()
                return True
        except BaseException:  # alone, or in a nursery's group
            path.unlink(missing_ok=True)
            raise

    async with open_any(SLOTS, SLOT) as ring:
        cancelled, failed, _ = await walk(ring, scenario, tmp_path, "parked")
    assert cancelled > 3
    assert failed == 0
