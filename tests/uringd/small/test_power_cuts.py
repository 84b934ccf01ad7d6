"""Power cuts under groups of small uploads, on a real ext4 and a real XFS.

The disk below them keeps what was flushed and any part of what was not. In every state of it a file
that has its name is whole, and every group that was acknowledged is there.
"""

from __future__ import annotations

import mmap
import os
import random

import pytest

from tests.disks.cut_disks import KINDS, LoggedDisk, disk, mounted_states
from tests.disks.mounted import run
from tests.uringd.small.killed import Nobody
from uringd.root import Root
from uringd.small.group import BARRIER_FILES_MIN, publish_group
from uringd.small.memory import Room
from uringd.small.put import Put
from uringd.wire import Durability, crc32c
from uringio.lowlevel import small_files

GROUPS = 3
FILES = BARRIER_FILES_MIN + 2

__all__ = ["disk"]

pytestmark = [pytest.mark.root, pytest.mark.parametrize("disk", KINDS, indirect=True)]


class NoBarrier:
    """A group that leaves its barrier out: what the check is there to find."""

    def __init__(self, real: small_files.SmallGroup) -> None:
        self.write, self.rename = real.write, real.rename
        self.sync_directory, self.close = real.sync_directory, real.close

    def barrier(self) -> int:
        return 0


class NoDirectory:
    """A group that leaves the directory's fsync out."""

    def __init__(self, real: small_files.SmallGroup) -> None:
        self.write, self.rename = real.write, real.rename
        self.barrier, self.close = real.barrier, real.close

    def sync_directory(self, _dir_fd: int) -> int:
        return 0


def content_of(name: str, version: int) -> memoryview:
    """Make a content, as the server's memory has it; the last of a group is long."""
    chance = random.Random(f"{name} {version}")
    length = chance.choice([1, 700, 4096, 9000, 30_000])
    if name.endswith(f"-f{FILES - 1}"):
        length += small_files.DIRECT_BYTES_MIN
    memory = memoryview(mmap.mmap(-1, length))
    memory[:] = chance.randbytes(length)
    return memory


def publish(root: Root, number: int, kind: type | None) -> list[Put]:
    """Publish a group; from the second on its first file replaces one of the group before."""
    names = [f"g{number}-f{n}" for n in range(FILES)]
    if number:
        names[0] = f"g{number - 1}-f0"
    puts = []
    for name in names:
        content = content_of(name, number)
        put = Put(
            *(Nobody(), 1, name, (name,), content, crc32c(content)),
            *(True, False, Durability.PUBLISHED, Room(0), 0.0),
        )
        put.place(root.fd)
        puts.append(put)
    group = small_files.open_group(root.spool_fd, "cut-", number * 100)
    publish_group(kind(group) if kind else group, puts, trusts_barrier=True)
    assert not any(put.failure for put in puts)
    return puts


def cut(disk: LoggedDisk, kind: type | None) -> tuple[list[str], list[str]]:
    """Publish groups, and look at every state: names of torn files, and of lost ones."""
    root = Root(disk.point / "root")
    run("sync", "-f", disk.point)
    began = disk.position()
    versions: dict[str, set[bytes]] = {}
    acknowledged: list[tuple[int, list[Put]]] = []
    for number in range(GROUPS):
        puts = publish(root, number, kind)
        acknowledged.append((disk.position(), puts))
        for put in puts:
            versions.setdefault(put.name, set()).add(bytes(put.content))
    root.close()
    torn, lost = [], []
    ended = acknowledged[-1][0]
    disk.leave()
    states = 0
    for state in mounted_states(disk, began, ended):
        states += 1
        path = disk.point / "root"
        found = {name: (path / name).read_bytes() for name in os.listdir(path) if name[0] == "g"}
        torn += [name for name, content in found.items() if content not in versions[name]]
        for position, puts in acknowledged:
            if position <= state.moment:
                lost += [put.name for put in puts if put.name not in found]
    assert states > 4 * GROUPS
    return torn, lost


def test_nothing_acknowledged_is_lost_and_nothing_torn_is_seen(disk: LoggedDisk) -> None:
    torn, lost = cut(disk, None)
    assert (torn, lost) == ([], [])


@pytest.mark.parametrize("kind", [NoBarrier, NoDirectory], ids=lambda kind: kind.__name__)
def test_without_either_sync_the_check_finds_something(disk: LoggedDisk, kind: type) -> None:
    torn, lost = cut(disk, kind)
    assert torn or lost
