"""File systems on a disk that logs its writes and flushes, and every state a power cut can leave.

States that the disk can have been in are built again: all that came before some flush, and of what
came between it and the next one nothing, all, or a part by chance. Each is mounted, which replays
the file system's own journal. What was acknowledged before that next flush rests on flushes before
it, and so it must be there whatever of the rest is kept.

A state is not a copy of a disk: what every state so far has in common is in one image, and what a
state has besides it, and what recovery and those who look at it write, is laid over it in memory
and forgotten again (the disk "scratch"). So a state costs little more than its mount.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path

import pytest

from tests.disks.mounted import (
    FuseDisk,
    LackingError,
    check_can_have,
    file_system,
    fuse_disk,
    make_image,
    mount,
    umount,
)
from tests.lacking import lacking

RECORD = struct.Struct("<cQI")
"""As fuse_disk.py writes it."""

BLOCK = 4096
"""What a disk keeps or loses as a whole."""

STATES = 4
"""States of one flush, unless another number is asked for."""

SHARES = (0.5, 0.5, 0.1, 0.9)
"""How much a state by chance keeps, one after the other: halves mostly, few, and nearly all."""

KINDS = ["ext4", "xfs"]
"""File systems of the tests: one hides some missing fsyncs behind its journal, one does not."""

Write = tuple[int, bytes]


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
def logged_disk(kind: str, directory: Path) -> Iterator[LoggedDisk]:
    """Make a file system on a logged disk below `directory`. Raises LackingError."""
    check_can_have(kind)
    image = make_image(directory / "image")
    log, point = directory / "log", directory / "mounted"
    log.touch()
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(fuse_disk(directory / "logged", "logged", image, log))
        stack.enter_context(file_system(disk, kind, point))
        yield LoggedDisk(kind, point, log, image, stack)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoggedDisk]:
    """A logged disk for a test: `parametrize("disk", KINDS, indirect=True)`."""
    try:
        with logged_disk(request.param, tmp_path) as made:
            yield made
    except LackingError as exc:
        lacking(str(exc))


@dataclass(frozen=True)
class Cut:
    """A state that is mounted: what was acknowledged at `moment` or before must be there.

    `flush` counts the flushes since the beginning, `state` the states of one of them.
    """

    moment: int
    flush: int
    state: int


def read_log(log: Path) -> Iterator[tuple[int, Write | None]]:
    """Every write, and None for every flush, with the position behind it in the log."""
    if not log.stat().st_size:
        return
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        at = 0
        while at < len(content):
            kind, offset, length = RECORD.unpack_from(content, at)
            at += RECORD.size
            if kind == b"W":
                data = content[at : at + length]
                at += length
                yield at, (offset, data)
            else:
                yield at, None


def in_blocks(write: Write) -> Iterator[Write]:
    """Cut a write into what a disk keeps or loses as a whole."""
    offset, data = write
    at = 0
    while at < len(data):
        count = min(BLOCK - (offset + at) % BLOCK, len(data) - at)
        yield offset + at, data[at : at + count]
        at += count


def kept_by(since: list[Write], states: int, chance: random.Random) -> Iterator[list[Write]]:
    """Choose what of the writes since a flush a state has: nothing, all, and parts by chance."""
    if states > 0:
        yield []
    if states > 1 and since:
        yield since
    if len(since) > 1:
        for number in range(2, states):
            share = SHARES[number % len(SHARES)]
            yield [write for write in since if chance.random() < share]


@contextlib.contextmanager
def _mounted(disk: LoggedDisk, scratch: FuseDisk, writes: list[Write]) -> Iterator[None]:
    """Mount the common image with some writes over it, and forget them after it."""
    with scratch.file.open("r+b", buffering=0) as over:
        for offset, data in writes:
            os.pwrite(over.fileno(), data, offset)
    mount(scratch.device, disk.point, disk.kind)
    try:
        yield
    finally:
        # The device's page cache goes with its last user, so that what comes next is read anew.
        umount(disk.point)
        scratch.control(b"reset")


def mounted_states(
    disk: LoggedDisk,
    began: int,
    ended: int,
    *,
    states: int = STATES,
    every: int = 1,
    seed: int = 0,
) -> Generator[Cut]:
    """Mount, one after the other, states of the disk between two positions in its log.

    So many `states` of `every` n-th flush, chosen by `seed`. Yields while a state is mounted at the
    disk's point. The moment is `ended` for the last ones.
    Close the iterator when it is not read to its end. Raises OSError for a state that cannot be
    mounted: no cut may leave such a one.
    """
    base = make_image(disk.image.with_name("base"))
    since: list[Write] = []
    flushes = 0
    with (
        fuse_disk(base.with_name("scratch"), "scratch", base) as scratch,
        base.open("r+b", buffering=0) as image,
    ):
        events = takewhile(lambda event: event[0] <= ended, read_log(disk.log))
        for at, write in chain(events, [(ended + RECORD.size, None)]):
            if at <= began:
                if write is not None:
                    os.pwrite(image.fileno(), write[1], write[0])
            elif write is not None:
                since += in_blocks(write)
            else:
                flushes += 1
                chance = random.Random(f"{seed}/{flushes}")
                looked_at = (flushes + seed) % every == 0
                for number, kept in enumerate(kept_by(since, looked_at * states, chance)):
                    with _mounted(disk, scratch, kept):
                        yield Cut(at - RECORD.size, flushes, number)
                for offset, data in since:
                    os.pwrite(image.fileno(), data, offset)
                since = []
