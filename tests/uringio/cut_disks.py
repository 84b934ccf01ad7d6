"""File systems on a disk that logs its writes and flushes, and every state a power cut can leave.

States that the disk can have been in are built again: all that came before some flush, and of what
came between it and the next one nothing, a part by chance, or all. Each is mounted, which replays
the file system's own journal.
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

SERVER = Path(__file__).with_name("logged_disk.py")
RECORD = struct.Struct("<cQI")
"""As logged_disk.py writes it."""

TIMEOUT_S = 60
BLOCK = 4096
SHARES = (0.0, 0.5, 0.5, 1.0)
"""How much of what was not flushed is kept: nothing, halves of it, all."""

KINDS = [("ext4", 32), ("xfs", 320)]
"""File systems, and the least size in MiB that they can be made with."""

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


@contextlib.contextmanager
def logged_disk(kind: str, mebibytes: int, tmp_path: Path) -> Iterator[LoggedDisk]:
    """Make a file system on a logged disk; skips where that cannot be had."""
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


def mounted_states(disk: LoggedDisk, tmp_path: Path, began: int, ended: int) -> Iterator[int]:
    """Mount, one after the other, states of the disk between two positions in its log.

    Yields, while a state is mounted at the disk's point, its moment: what was acknowledged at that
    position or before must be there. It is `ended` for the last states.
    """
    events = list(read_log(disk.log))
    base = tmp_path / "base"
    base.touch()
    os.truncate(base, disk.image.stat().st_size)
    write_all(base, [it for at, it in events if at <= began and it is not None])
    since: list[Write] = []
    flushes = 0
    cut = [(at, it) for at, it in events if began < at <= ended]
    for at, it in [*cut, (ended + RECORD.size, None)]:
        if it is not None:
            since += in_blocks(it)
            continue
        flushes += 1
        for number, share in enumerate(SHARES):
            chance = random.Random(f"{flushes} {number}")
            kept = [write for write in since if chance.random() < share]
            with _mounted(disk, base, kept):
                yield at - RECORD.size
        write_all(base, since)
        since = []


@contextlib.contextmanager
def _mounted(disk: LoggedDisk, base: Path, writes: list[Write]) -> Iterator[None]:
    state = base.with_name("state")
    run("cp", "--sparse=always", base, state)
    write_all(state, writes)
    options = "loop,nouuid" if disk.kind == "xfs" else "loop"
    run("mount", "-o", options, state, disk.point)
    try:
        yield
    finally:
        run("umount", disk.point)
