"""Preallocation: whole sizes, growing steps, and what the disk may answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

import uringio
from uringio._ring.execute import execute
from uringio._trio import preallocation as module
from uringio.exceptions import NoSpaceError, OperationError
from uringio.lowlevel import Opcode, Operation, Preallocation
from uringio.testing import Fault, SimulatedRing

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]

STEP = module.STEP_BYTES_MIN


def reserved(raw: SimulatedRing) -> list[tuple[int, int]]:
    """(offset, length) of every reservation that was asked for."""
    return [(op.offset, op.length) for op, _ in raw.history if op.opcode is Opcode.FALLOCATE]


def simulated(faults: Sequence[Fault] = ()) -> SimulatedRing:
    """Without the file system: a reservation always succeeds at once, whatever its size."""
    return SimulatedRing(1, faults=faults, perform=lambda _: 0)


async def test_a_known_size_is_reserved_whole_at_once(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated()
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", 10 * STEP)
        await reservation.reserve(1)
        await reservation.reserve(10 * STEP)
    assert reserved(raw) == [(0, 10 * STEP)]
    assert reservation.end == 10 * STEP


@pytest.mark.parametrize("says", ["nothing", "no blocks"])
async def test_a_file_system_that_does_not_say_what_it_has_is_asked_for_blocks(
    open_simulated: OpenRaw, descriptor: int, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    def fstatvfs(_fd: int) -> os.statvfs_result:
        if says == "nothing":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return os.statvfs_result([0] * 10)  # as a tmpfs without a limit

    raw = simulated()
    async with open_simulated(raw) as ring:
        monkeypatch.setattr(os, "fstatvfs", fstatvfs)
        await Preallocation(ring.reactor, descriptor, "path", STEP).reserve(1)
    assert reserved(raw) == [(0, STEP)]


async def test_an_unknown_size_grows_by_doubling_steps_up_to_the_largest(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated()
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", None)
        while reservation.end < 4 * module.STEP_BYTES_MAX:
            await reservation.reserve(reservation.end + 1)
            await reservation.reserve(reservation.end)
    lengths = [length for _, length in reserved(raw)]
    assert lengths[:5] == [STEP, 2 * STEP, 4 * STEP, 8 * STEP, 16 * STEP]
    assert set(lengths[5:]) == {module.STEP_BYTES_MAX}


@pytest.mark.parametrize("size", [None, 1 << 60])
async def test_what_the_disk_has_not_is_refused_and_not_asked_for(
    open_simulated: OpenRaw, descriptor: int, size: int | None
) -> None:
    """ext4 would take all there is from everybody before it says that it is too little."""
    raw = simulated()
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", size)
        with pytest.raises(NoSpaceError):
            await reservation.reserve(1 << 60)
    assert reserved(raw) == []
    assert reservation.reached == 0


async def test_a_guess_goes_no_further_than_it_may(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated()
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", None)
        assert reservation.wish(4096) == STEP
        await reservation.reserve(4096, 8192)
        await reservation.reserve(8192, 8192)
        await reservation.reserve(12288, 12288)
    assert reserved(raw) == [(0, 8192), (8192, 4096)]


async def test_a_need_beyond_the_step_is_reserved_in_one(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated()
    async with open_simulated(raw) as ring:
        await Preallocation(ring.reactor, descriptor, "path", None).reserve(3 * STEP)
    assert reserved(raw) == [(0, 3 * STEP)]


async def test_a_step_that_does_not_fit_is_halved_down_to_the_need(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated([Fault(Opcode.FALLOCATE, n, result=-errno.ENOSPC) for n in (1, 2, 3)])
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", None)
        await reservation.reserve(STEP // 8)
    assert reserved(raw) == [(0, STEP), (0, STEP // 2), (0, STEP // 4), (0, STEP // 8)]
    assert reservation.end == STEP // 8


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("size", [None, 2 * STEP])
async def test_a_need_that_does_not_fit_is_a_full_disk(
    open_simulated: OpenRaw, descriptor: int, number: int, size: int | None
) -> None:
    raw = simulated([Fault(Opcode.FALLOCATE, result=-number, every=True)])
    async with open_simulated(raw) as ring:
        with pytest.raises(NoSpaceError) as caught:
            await Preallocation(ring.reactor, descriptor, "the path", size).reserve(2 * STEP)
    error = caught.value
    assert (error.errno, error.operation, error.path) == (number, "fallocate", "the path")
    assert (error.offset, error.length) == (0, 2 * STEP)
    assert len(reserved(raw)) == 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
async def test_a_file_system_that_cannot_reserve_is_asked_once(
    open_simulated: OpenRaw, descriptor: int, number: int
) -> None:
    raw = simulated([Fault(Opcode.FALLOCATE, result=-number, every=True)])
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", None)
        await reservation.reserve(1)
        await reservation.reserve(10 * STEP)
    assert not reservation.supported
    assert reservation.end == 0
    assert len(reserved(raw)) == 1


async def test_an_interrupted_reservation_starts_over(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated([Fault(Opcode.FALLOCATE, n, result=-errno.EINTR) for n in range(1, 11)])
    async with open_simulated(raw) as ring:
        reservation = Preallocation(ring.reactor, descriptor, "path", None)
        await reservation.reserve(1)
    assert reserved(raw) == [(0, STEP)] * 11
    assert reservation.end == STEP


async def test_a_reservation_that_is_always_interrupted_gives_up(
    open_simulated: OpenRaw, descriptor: int
) -> None:
    raw = simulated([Fault(Opcode.FALLOCATE, result=-errno.EINTR, every=True)])
    async with open_simulated(raw) as ring:
        with pytest.raises(OperationError) as caught:
            await Preallocation(ring.reactor, descriptor, "path", None).reserve(1)
    assert caught.value.errno == errno.EINTR
    assert len(reserved(raw)) == module.INTERRUPTED_MAX


async def test_blocks_are_really_reserved(open_simulated: OpenRaw, descriptor: int) -> None:
    async with open_simulated(SimulatedRing()) as ring:
        await Preallocation(ring.reactor, descriptor, "path", 1 << 20).reserve(1)
    assert os.fstat(descriptor).st_size == 1 << 20
    assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20
    assert Operation(Opcode.NOP).data is None


async def test_a_reservation_that_failed_halfway_does_not_lengthen_the_file(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    """As ext4 does: ENOSPC, and the size has moved over what could be reserved."""
    asked: list[int] = []

    def perform(operation: Operation) -> int:
        if operation.opcode is Opcode.FALLOCATE:
            asked.append(operation.length)
            if len(asked) == 1:
                os.ftruncate(operation.fd, operation.length - 4096)
                return -errno.ENOSPC
        return execute(operation)

    size = STEP // 2
    async with (
        open_simulated(SimulatedRing(1, perform=perform)) as ring,
        ring.create(tmp_path / "file") as writer,
    ):
        await writer.write(bytes(size))
        receipt = await writer.commit()
    assert asked == [STEP, STEP // 2], "the stream ends where the step does"
    assert receipt.size == size
    assert (tmp_path / "file").stat().st_size == size
