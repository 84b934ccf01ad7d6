"""The library alone: each operation of a file's life goes wrong, in each way that fits it.

The caller gets that very error, or the file: whole, and there after a power cut. What is left is
nothing, and the ring writes the next file.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.nth.errors import RING, Told, Wrong
from tests.simulation.rests import descriptors
from tests.simulation.shrink import scratch
from uringio._ring import libc
from uringio.exceptions import OperationError
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import Fault, SimulatedDisk, SimulatedRing

if TYPE_CHECKING:
    import uringio

SLOT, SLOTS = 8192, 3
CONTENT = random.Random(1).randbytes(5 * SLOT + 100)
ALIGNED = len(CONTENT) // 4096 * 4096
STUCK_S = 60

ERRORS = {**RING, "OPENAT": RING["OPENAT2"]}


async def stream(ring: uringio.Ring, path: Path, size: int | None = None) -> None:
    """Write a file with everything that a writer has."""
    async with ring.create(path, size) as writer:
        await writer.write(CONTENT[: SLOT + 5])
        await writer.flush()
        await writer.write(CONTENT[SLOT + 5 : 3 * SLOT])
        await writer.sync()
        await writer.write(CONTENT[3 * SLOT :])
        await writer.commit()


async def stream_of_known_size(ring: uringio.Ring, path: Path) -> None:
    await stream(ring, path, len(CONTENT))


async def chain(ring: uringio.Ring, path: Path) -> None:
    """Write by a chain, as a log does; its directory is synced for its name."""
    async with await ring.open(path, "x+", direct="never") as file, file.chain() as linked:
        linked.pwrite(CONTENT[:ALIGNED], 0)
        linked.fsync(data_only=True)
        linked.pwrite(CONTENT[ALIGNED:], ALIGNED)
        linked.fsync()


Scenario = Callable[["uringio.Ring", Path], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {
    "stream": stream,
    "stream of known size": stream_of_known_size,
    "chain": chain,
}


def run(scenario: Scenario, wrong: Wrong | None = None, *fault: Fault) -> Counter[Opcode]:
    """Do it once, and once more when nothing is wrong; the result counts the first's operations."""
    directory, before = scratch(), descriptors()
    disk = SimulatedDisk(directory / "disk")
    ring = SimulatedRing(0, faults=fault, disk=disk)
    path, counts = disk.directory / "file", Counter[Opcode]()

    async def main() -> None:
        async with run_ring(ring, SLOTS, SLOT) as opened:
            error = None
            with trio.fail_after(STUCK_S):
                try:
                    await scenario(opened, path)
                except OperationError as exc:
                    error = exc
            counts.update(ring._counts)
            ring.heal()
            check_outcome(scenario, disk, wrong, error)
            statistics = opened.statistics()
            assert (statistics.in_flight, statistics.free_slots) == (0, SLOTS)
            await scenario(opened, disk.directory / "again")
            assert (disk.directory / "again").read_bytes() == CONTENT

    try:
        trio.run(main)
        assert not fault or ring.faults_hit, "it has not gone wrong"
        assert set(descriptors()) == set(before)
    finally:
        shutil.rmtree(directory)
    return counts


def check_outcome(
    scenario: Scenario, disk: SimulatedDisk, wrong: Wrong | None, error: OperationError | None
) -> None:
    """Hold what the caller was told against the disk, now and after a power cut."""
    there = sorted(os.listdir(disk.directory))
    if error is None:
        assert wrong is None or wrong.told is not Told.ALWAYS, "nobody was told"
        assert (disk.directory / "file").read_bytes() == CONTENT
    else:
        assert wrong is not None and wrong.told is not Told.NEVER, error
        assert error.errno == wrong.number
    if scenario is chain:
        return  # the name of a file that was opened is its owner's to sync
    assert there == ["file"] or (error is not None and there == [])
    after = disk.power_cut(disk.directory.parent / "after").directory / "file"
    assert error is not None or after.exists()
    for path in (disk.directory / "file", after):
        assert not path.exists() or path.read_bytes() == CONTENT, "whole, or not there"


@functools.cache
def counted(name: str) -> Counter[Opcode]:
    return run(SCENARIOS[name])


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with direct I/O, wherever the scratch directory is."""
    alignment = libc.DirectAlignment(memory=512, offset=512)
    monkeypatch.setattr(libc, "statx_direct_alignment", lambda _: alignment)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_operation_of_a_file_has_its_errors_listed(name: str) -> None:
    assert {opcode.name for opcode in counted(name)} <= set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_error_is_mended_or_raised_and_leaves_nothing(name: str, kind: str) -> None:
    opcode = Opcode[kind]
    for nth in range(1, counted(name)[opcode] + 1):
        for wrong in ERRORS[kind]:
            for every in (False, True)[: 1 + wrong.lasts]:
                fault = Fault(opcode, nth, result=-wrong.number, short=wrong.short, every=every)
                run(SCENARIOS[name], wrong, fault)
