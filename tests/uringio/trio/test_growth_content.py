"""Growing and shrinking under load, checked by content that names its own offset."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from uringio._trio.growth import GROW_AFTER_S, SHRINK_AFTER_S
from uringio.lowlevel import (
    RingLike,
    run_ring,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uringio import Ring

SLOT = 64 << 10
SLOTS, SLOTS_MAX = 4, 300
"""Increments of 128 slots (8 MiB), 128 and 40."""

KINDS = ["io_uring", "threads", *(f"simulated-{seed}" for seed in range(4))]


@pytest.fixture(params=KINDS)
def raw(request: pytest.FixtureRequest, new_ring: Callable[..., RingLike]) -> RingLike:
    return new_ring(request.param)


# Content: every 16 bytes name the file and their own offset.

STAMP = struct.Struct("<QQ")


def content(file: int, start: int, length: int) -> bytes:
    return b"".join(
        STAMP.pack(file, offset) for offset in range(start, start + length, STAMP.size)
    )[:length]


async def write_file(ring: Ring, path: Path, number: int, size: int, *, by_copy: bool) -> None:
    async with ring.create(path, size if number % 2 else None) as writer:
        while writer.accepted < size:
            start = writer.accepted
            if by_copy:
                await writer.write(content(number, start, min(SLOT + 4096, size - start)))
                continue
            async with writer.slot() as slot:
                length = min(len(slot.view), size - start)
                slot.view[:length] = content(number, start, length)
                await trio.sleep(GROW_AFTER_S)  # a slow sender holds it
                slot.length = length
        await writer.commit()


async def write_under_changing_demand(ring: Ring, directory: Path, waves: int) -> int:
    """Write files at once, many and few in turn, beside one that goes on all the time."""
    files: list[tuple[Path, int, int]] = []

    def next_file(size: int) -> tuple[Path, int, int]:
        files.append((directory / f"file-{len(files)}", len(files), size))
        return files[-1]

    async def write_on(done: trio.Event) -> None:
        while not done.is_set():
            path, number, size = next_file(5 * SLOT + 1000)
            await write_file(ring, path, number, size, by_copy=False)
            await trio.sleep(SHRINK_AFTER_S / 8)

    done = trio.Event()
    async with trio.open_nursery() as outer:
        outer.start_soon(write_on, done)
        for wave in range(waves):
            async with trio.open_nursery() as nursery:
                for i in range((6 * SLOTS, 2)[wave % 2]):
                    path, number, size = next_file((i % 3 + 1) * SLOT + i * 100)
                    write = write_file(ring, path, number, size, by_copy=i % 4 == 3)
                    nursery.start_soon(_run, write)
            await trio.sleep(SHRINK_AFTER_S * 2.1 if wave % 2 else 0)
        done.set()
    for path, number, size in files:
        found = path.read_bytes()
        wanted = content(number, 0, size)
        assert len(found) == size, path.name
        if found != wanted:
            wrong = next(i for i in range(size) if found[i] != wanted[i])
            pytest.fail(f"{path.name} is wrong from offset {wrong} on")
        path.unlink()
    return len(files)


async def _run(writing: Any) -> None:
    await writing


async def check_content(raw: RingLike, directory: Path) -> None:
    async with run_ring(raw, SLOTS, SLOT, SLOTS_MAX) as ring:
        await write_under_changing_demand(ring, directory, waves=4)
        await trio.sleep(SHRINK_AFTER_S * 5)
        statistics = ring.statistics()
        # How often depends on the disk, whose time is real where the clock's is not.
        assert statistics.pool_growths >= 1, "it grew under load"
        assert statistics.pool_shrinks == statistics.pool_growths
        assert (statistics.free_slots, statistics.slots) == (SLOTS, SLOTS)
    assert os.listdir(directory) == []


async def test_growing_and_shrinking_under_load_loses_and_corrupts_nothing(
    raw: RingLike, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    await check_content(raw, tmp_path)


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 1024), ("xfs", 1024)], indirect=True)
async def test_nor_on_file_systems_of_their_own(
    file_system: Path, uring: RingLike, autojump_clock: trio.testing.MockClock
) -> None:
    directory = file_system / "files"
    directory.mkdir()
    await check_content(uring, directory)
