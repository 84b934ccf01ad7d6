"""A power cut on a real ext4 and a real XFS: the disk below them keeps what was flushed.

Every state that the disk can have been in (tests/disks/cut_disks.py) is mounted, and the file is
opened.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import pytest
import trio

import uringio
from tests.disks.cut_disks import KINDS, LoggedDisk, disk, mounted_states
from tests.disks.mounted import run

__all__ = ["disk"]

pytestmark = [pytest.mark.root, pytest.mark.parametrize("disk", KINDS, indirect=True)]

OLD = random.Random(1).randbytes(100_000)
OFFSET = 5000
NEW = random.Random(2).randbytes(50_000)
WANTED = OLD[:OFFSET] + NEW + OLD[OFFSET + len(NEW) :]


def recovered(disk: LoggedDisk) -> bytes:
    """Open the file of a state that is mounted: what it holds then."""

    async def reopen() -> bytes:
        async with (
            uringio.open_ring(2, 64 << 10, backend="threads") as ring,
            await ring.open(disk.point / "file", "r") as file,
        ):
            return await file.pread(2 * len(OLD), 0)

    content = trio.run(reopen)
    assert not [entry for entry in os.listdir(disk.point) if entry.startswith(".uringio")]
    return content


@dataclass
class States:
    """What the file holds in every state that is built, and once all was acknowledged."""

    seen: set[bytes]
    acknowledged: set[bytes]
    moments: set[int]


def cut_everywhere(disk: LoggedDisk, began: int, returned: int) -> States:
    """Build states of the disk between two moments, the second acknowledged, and open each."""
    states = States(set(), set(), set())
    for cut in mounted_states(disk, began, returned):
        states.moments.add(cut.moment)
        (states.acknowledged if cut.moment == returned else states.seen).add(recovered(disk))
    return states


def overwrite(disk: LoggedDisk, *, safely: bool) -> tuple[int, int]:
    """Overwrite the range, and tell the moments before and after in the log."""
    path = disk.point / "file"
    path.write_bytes(OLD)
    run("sync", "-f", path)

    async def main() -> tuple[int, int]:
        async with uringio.open_ring(4, 16 << 10) as ring, await ring.open(path, "r+") as file:
            began = disk.position()
            if safely:
                assert (await file.replace(OFFSET, NEW)).verified_direct
            else:
                await file.pwrite(NEW, OFFSET)
                await file.fsync()
            return began, disk.position()

    moments = trio.run(main)
    disk.leave()
    return moments


def test_every_state_of_the_disk_recovers_to_the_old_bytes_or_the_new(disk: LoggedDisk) -> None:
    states = cut_everywhere(disk, *overwrite(disk, safely=True))
    assert len(states.moments) > 4, "each fsync of a replace flushes the disk"
    assert states.seen == {OLD, WANTED}
    assert states.acknowledged == {WANTED}


def test_a_plain_overwrite_is_torn_in_some_state(disk: LoggedDisk) -> None:
    """So the check above can fail."""
    states = cut_everywhere(disk, *overwrite(disk, safely=False))
    assert not states.seen <= {OLD, WANTED}
    assert states.acknowledged == {WANTED}
