"""Fsyncs that a write carries: only where it is all there is to make durable."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

import pytest

import uringio
from uringio._ring import libc
from uringio._ring.operations import RWF_DSYNC, RWF_SYNC
from uringio._trio import access as module
from uringio._trio.carried import BOTH, CARRIERS, IN_FLIGHT_MIN, carry_fsyncs
from uringio.lowlevel import Opcode, Operation, RingLike, operations
from uringio.testing import Fault, SimulatedDisk, SimulatedRing

OpenRaw = Callable[[RingLike], AbstractAsyncContextManager[uringio.Ring]]

BLOCK = 4096

KINDS = {
    "w": lambda: operations.write(3, b"x", 0, 1),
    "d": lambda: operations.write(3, b"x", 0, 1, flags=RWF_DSYNC),
    "s": lambda: operations.write(3, b"x", 0, 1, flags=BOTH),
    "f": lambda: operations.fsync(3, data_only=True),
    "F": lambda: operations.fsync(3),
}


def ignore(_: int) -> None:
    """Nobody waits for it."""


def keep_busy(ring: uringio.Ring, count: int = IN_FLIGHT_MIN) -> None:
    """Begin so many operations; none has ended before the next tick."""
    for _ in range(count):
        ring.reactor.start(Operation(Opcode.NOP), ignore)


@pytest.fixture
def block() -> memoryview:
    view = memoryview(mmap.mmap(-1, BLOCK))
    view[:] = b"r" * BLOCK
    return view


@pytest.fixture
def carrier(tmp_path: Path) -> None:
    """Skip where the tests' own file system is not known to carry an fsync."""
    directory = os.open(tmp_path, os.O_RDONLY)
    kind = libc.file_system_type(directory)
    os.close(directory)
    if kind not in CARRIERS:
        pytest.skip(f"no file system of {', '.join(CARRIERS.values())} here: set --basetemp")


@pytest.mark.parametrize(
    ("members", "carried"),
    [
        ("wf", "d"),
        ("wF", "s"),
        ("wfwF", "ds"),
        ("wffw", "dfw"),
        ("dwf", "dd"),
        ("w", "w"),
        ("f", "f"),
        ("wwf", "wwf"),
        ("wwfwf", "wwfd"),
        ("df", "df"),
        ("wdf", "wdf"),
        ("fwf", "fd"),
    ],
)
def test_a_write_carries_the_fsync_that_has_nothing_else_to_make_durable(
    members: str, carried: str
) -> None:
    expected = [KINDS[kind]() for kind in carried]
    assert carry_fsyncs([KINDS[kind]() for kind in members]) == expected


def test_the_flags_are_those_of_pwritev2() -> None:
    assert (RWF_DSYNC, RWF_SYNC) == (os.RWF_DSYNC, os.RWF_SYNC)


@pytest.mark.usefixtures("carrier")
async def test_a_record_and_its_fsync_are_one_operation(
    open_simulated: OpenRaw, tmp_path: Path, block: memoryview
) -> None:
    raw = SimulatedRing(1)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "log", "w+") as file:
        for at in range(3):
            keep_busy(ring)
            async with file.chain() as chain:
                chain.pwrite(block, at * BLOCK)
                chain.fsync(data_only=True)
        assert ring.statistics().durable_bytes == 3 * BLOCK
        assert await file.pread(3 * BLOCK, 0) == b"r" * 3 * BLOCK
    done = [(op.opcode, op.flags) for op, _ in raw.history]
    assert done.count((Opcode.WRITE, RWF_DSYNC)) == 3
    assert not any(opcode is Opcode.FSYNC for opcode, _ in done)


@pytest.mark.usefixtures("carrier")
async def test_nothing_runs_behind_a_write_that_failed_with_the_fsync_that_it_carried(
    open_simulated: OpenRaw, tmp_path: Path, block: memoryview
) -> None:
    raw = SimulatedRing(2, faults=[Fault(Opcode.WRITE, 1, result=-errno.EIO)])
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "log", "w+") as file:
        with pytest.raises(uringio.OperationError) as caught:
            keep_busy(ring)
            async with file.chain() as chain:
                chain.pwrite(block, BLOCK)
                chain.fsync()
                chain.pwrite(block, 0)
                chain.fsync()
        assert (caught.value.operation, caught.value.errno) == ("write", errno.EIO)
        assert await file.pread(BLOCK, 0) == b""


@pytest.mark.usefixtures("carrier")
@pytest.mark.parametrize("seed", range(6))
async def test_the_rest_of_a_short_write_carries_it_too(
    open_simulated: OpenRaw, tmp_path: Path, seed: int
) -> None:
    disk = SimulatedDisk(tmp_path / "disk", seed)
    raw = SimulatedRing(seed, faults=[Fault(Opcode.WRITE, 1, short=BLOCK)], disk=disk)
    view = memoryview(mmap.mmap(-1, 2 * BLOCK))
    view[:] = b"r" * 2 * BLOCK
    path = disk.directory / "log"
    async with open_simulated(raw) as ring, await ring.open(path, "w+") as file:
        disk.syncfs()  # the name
        keep_busy(ring)
        async with file.chain() as chain:
            chain.pwrite(view, 0)
            chain.fsync(data_only=True)
        cut = disk.power_cut(tmp_path / "cut")
    assert (cut.directory / "log").read_bytes() == b"r" * 2 * BLOCK


@pytest.mark.usefixtures("carrier")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offset", [BLOCK, BLOCK + 1], ids=["direct", "through the page cache"])
async def test_what_was_written_before_the_chain_is_durable_with_it(
    open_simulated: OpenRaw, tmp_path: Path, block: memoryview, offset: int, seed: int
) -> None:
    """The fsync of the chain covers it, so no write may stand for that fsync."""
    disk = SimulatedDisk(tmp_path / "disk", seed)
    path = disk.directory / "log"
    async with (
        open_simulated(SimulatedRing(seed, disk=disk)) as ring,
        await ring.open(path, "w+") as file,
    ):
        disk.syncfs()  # the name
        await file.pwrite(block, offset)
        keep_busy(ring)
        async with file.chain() as chain:
            chain.pwrite(block, 0)
            chain.fsync(data_only=True)
        cut = disk.power_cut(tmp_path / "cut")
    assert (cut.directory / "log").read_bytes()[offset:] == b"r" * BLOCK


@pytest.mark.parametrize("why", ["unknown", "buffered", "quiet"])
async def test_elsewhere_an_fsync_is_an_fsync(
    open_simulated: OpenRaw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: memoryview,
    why: str,
) -> None:
    """Where nobody is known to look at the flag, in a buffered file, and where it is no faster."""
    if why == "unknown":
        monkeypatch.setattr(module, "CARRIERS", {})
    raw = SimulatedRing(3)
    direct: Literal["auto", "never"] = "never" if why == "buffered" else "auto"
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "log", "w+", direct=direct) as file,
    ):
        keep_busy(ring, IN_FLIGHT_MIN - (why == "quiet"))
        async with file.chain() as chain:
            chain.pwrite(block, 0)
            chain.fsync()
    done = [(op.opcode, op.flags) for op, _ in raw.history]
    assert done.index((Opcode.WRITE, 0)) < done.index((Opcode.FSYNC, 0))
