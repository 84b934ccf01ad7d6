"""A power cut on a real ext4 and a real XFS: the disk below them keeps what was flushed.

The file system stands on a disk that logs its writes and flushes. States that the disk can have
been in are built again: all that came before some flush, and of what came between it and the next
one nothing, a part by chance, or all. Each is mounted, which replays the file system's own journal,
and the file is opened.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

import uringio

SERVER = Path(__file__).parents[1] / "logged_disk.py"
RECORD = struct.Struct("<cQI")
"""As logged_disk.py writes it."""

TIMEOUT_S = 60
BLOCK = 4096
OLD = random.Random(1).randbytes(100_000)
OFFSET = 5000
NEW = random.Random(2).randbytes(50_000)
WANTED = OLD[:OFFSET] + NEW + OLD[OFFSET + len(NEW) :]
SHARES = (0.0, 0.5, 0.5, 1.0)
"""How much of what was not flushed is kept: nothing, halves of it, all."""

Write = tuple[int, bytes]


def run(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class LoggedDisk:
    """A file system on a logged disk: mounted at `point`, until `leave`."""

    kind: str
    point: Path
    log: Path
    image: Path
    stack: contextlib.ExitStack

    def position(self) -> int:
        """Length of the log in bytes: a moment to come back to."""
        return self.log.stat().st_size

    def leave(self) -> None:
        """Unmount all of it. The log and the image stay."""
        self.stack.close()


@pytest.fixture(params=[("ext4", 32), ("xfs", 320)], ids=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoggedDisk]:
    kind, mebibytes = request.param
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    image, log, fuse, point = (tmp_path / name for name in ("image", "log", "fuse", "mounted"))
    fuse.mkdir()
    point.mkdir()
    log.touch()
    image.touch()
    os.truncate(image, mebibytes << 20)
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, SERVER, fuse, log, image], stdout=subprocess.PIPE, text=True
        )
        stack.callback(server.wait, TIMEOUT_S)
        assert server.stdout is not None
        stack.callback(server.stdout.close)
        if server.stdout.readline() != "mounted\n":
            pytest.skip("no FUSE mounts here")
        stack.callback(run, "umount", fuse)
        loop = run("losetup", "--find", "--show", fuse / "disk")
        stack.callback(run, "losetup", "--detach", loop)
        run(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", loop)
        run("mount", loop, point)
        stack.callback(run, "umount", point)
        disk = LoggedDisk(kind, point, log, image, stack)
        yield disk
        disk.leave()


def read_log(log: Path) -> Iterator[tuple[int, Write | None]]:
    """Every write, and None for every flush, with the position behind it in the log."""
    content = log.read_bytes()
    at = 0
    while at < len(content):
        kind, offset, length = RECORD.unpack_from(content, at)
        at += RECORD.size
        data = content[at : at + length]
        at += length if kind == b"W" else 0
        yield at, ((offset, data) if kind == b"W" else None)


def write_all(image: Path, writes: list[Write]) -> None:
    with image.open("r+b") as file:
        for offset, data in writes:
            os.pwrite(file.fileno(), data, offset)


def in_blocks(write: Write) -> list[Write]:
    """Cut a write into what a disk keeps or loses as a whole."""
    offset, data = write
    return [(offset + at, data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]


def recovered(disk: LoggedDisk, base: Path, writes: list[Write]) -> bytes:
    """Mount a state of the disk and open the file: what it holds then."""
    state = base.with_name("state")
    run("cp", "--sparse=always", base, state)
    write_all(state, writes)
    options = "loop,nouuid" if disk.kind == "xfs" else "loop"
    run("mount", "-o", options, state, disk.point)
    try:

        async def reopen() -> bytes:
            async with (
                uringio.open_ring(2, 64 << 10, backend="threads") as ring,
                await ring.open(disk.point / "file", "r") as file,
            ):
                return await file.pread(2 * len(OLD), 0)

        content = trio.run(reopen)
        assert not [entry for entry in os.listdir(disk.point) if entry.startswith(".uringio")]
        return content
    finally:
        run("umount", disk.point)


@dataclass
class States:
    """What the file holds in every state that is built, and once all was acknowledged."""

    seen: set[bytes]
    acknowledged: set[bytes]
    flushes: int


def cut_everywhere(disk: LoggedDisk, tmp_path: Path, began: int, returned: int) -> States:
    """Build states of the disk between two moments, the second acknowledged, and open each."""
    events = list(read_log(disk.log))
    base = tmp_path / "base"
    base.touch()
    os.truncate(base, disk.image.stat().st_size)
    write_all(base, [it for at, it in events if at <= began and it is not None])
    states = States(set(), set(), 0)
    done: list[Write] = []
    since: list[Write] = []
    for at, it in events:
        if not began < at <= returned:
            continue
        if it is not None:
            since += in_blocks(it)
            continue
        states.flushes += 1
        for number, share in enumerate(SHARES):
            chance = random.Random(f"{states.flushes} {number}")
            kept = [write for write in since if chance.random() < share]
            states.seen.add(recovered(disk, base, done + kept))
        done += since
        since = []
    for share in SHARES:
        chance = random.Random(share)
        kept = [write for write in since if chance.random() < share]
        states.acknowledged.add(recovered(disk, base, done + kept))
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


@pytest.mark.root
def test_every_state_of_the_disk_recovers_to_the_old_bytes_or_the_new(
    disk: LoggedDisk, tmp_path: Path
) -> None:
    states = cut_everywhere(disk, tmp_path, *overwrite(disk, safely=True))
    assert states.flushes >= 4, "each fsync of a replace flushes the disk"
    assert states.seen == {OLD, WANTED}
    assert states.acknowledged == {WANTED}


@pytest.mark.root
def test_a_plain_overwrite_is_torn_in_some_state(disk: LoggedDisk, tmp_path: Path) -> None:
    """So the check above can fail."""
    states = cut_everywhere(disk, tmp_path, *overwrite(disk, safely=False))
    assert not states.seen <= {OLD, WANTED}
    assert states.acknowledged == {WANTED}
