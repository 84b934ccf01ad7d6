"""Ways to publish small files durably: what `make bench-small` holds against one another.

Each publishes `count` files of `size` bytes in a directory, `depth` at a time where it knows of
that, and returns when the last one is published: data, name and directory durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

import uringio
from bench.harness.daemon import Daemon
from bench.harness.measurement import CannotRunError
from uringd.client import PutResult, connect
from uringd.wire import REQUESTS_MAX
from uringio.lowlevel import Place, operations, publish_steps, run_steps, small_files

if TYPE_CHECKING:
    from pathlib import Path

    from uringio import Ring

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What to do: `count` files of `size` bytes below `directory`, `depth` at a time."""

    directory: Path
    size: int
    depth: int
    count: int

    def content(self) -> bytes:
        """Make the content of every file: nothing that a device could leave out."""
        return os.urandom(self.size)

    def names(self) -> Iterator[str]:
        """Yield the names of the files."""
        return (f"file-{number:06}" for number in range(self.count))


def plain_loop(work: Work, begin: Step) -> None:
    """Publish one after the other: write, fsync, rename, fsync of the directory."""
    content = work.content()
    directory = os.open(work.directory, os.O_RDONLY | os.O_DIRECTORY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    begin()
    for name in work.names():
        fd = os.open("temporary", flags, 0o666, dir_fd=directory)
        os.write(fd, content)
        os.fsync(fd)
        os.close(fd)
        os.rename("temporary", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    os.close(directory)


def chains(work: Work, begin: Step) -> None:
    """Publish each by a chain in the ring, `depth` in flight; directory fsyncs are shared."""
    trio.run(_chains, work, begin)


async def _chains(work: Work, begin: Step) -> None:
    content = work.content()
    directory = os.open(work.directory, os.O_RDONLY | os.O_DIRECTORY)
    async with uringio.open_ring(slots=2, slot_bytes=4096) as ring:
        shared = _SharedFsync(ring, directory)
        names = work.names()

        async def lane(number: int) -> None:
            for name in names:
                await _chain(ring, directory, f"temporary-{number}", name, content)
                await shared.wait()

        begin()
        async with trio.open_nursery() as nursery:
            for number in range(work.depth):
                nursery.start_soon(lane, number)
    os.close(directory)


async def _chain(ring: Ring, directory: int, temporary: str, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    fd = await ring.reactor.perform(operations.open_at(directory, temporary, flags, 0o666))
    _check(fd, "open")
    steps = publish_steps(
        fd,
        Place(directory, temporary, name),
        Place(directory, name, name),
        tail=None,
        cut_to=None,
        overwrite=False,
        durability="durable",
    )
    write = operations.write(fd, content, 0, len(content))
    _check(await ring.reactor.perform(write), "write")
    await run_steps(ring.reactor, steps)
    _check(await ring.reactor.perform(operations.close(fd)), "close")


class _SharedFsync:
    """One fsync of a directory for all who came before it began."""

    def __init__(self, ring: Ring, fd: int) -> None:
        self._ring, self._fd = ring, fd
        self._running = False
        self._next, self._done = trio.Event(), trio.Event()

    async def wait(self) -> None:
        """Return when an fsync that began after this call has ended."""
        mine = self._next
        while not mine.is_set():
            if self._running:
                await self._done.wait()
                continue
            self._running, self._done = True, trio.Event()
            self._next = trio.Event()
            _check(await self._ring.reactor.perform(operations.fsync(self._fd)), "fsync")
            self._running = False
            mine.set()
            self._done.set()


def grouped(*, sync: bool) -> Callable[[Work, Step], None]:
    """`depth` files at a time in C: one syncfs for all, or (`sync`) an fsync for each."""

    def run(work: Work, begin: Step) -> None:
        content = work.content()
        directory = os.open(work.directory, os.O_RDONLY | os.O_DIRECTORY)
        names = list(work.names())
        begin()
        for first in range(0, work.count, work.depth):
            part = names[first : first + work.depth]
            group = small_files.open_group(directory, "t-", first)
            files = [
                small_files.SmallFile(content, directory, name.encode(), False) for name in part
            ]
            group.write(files, sync=sync)
            _check(0 if sync else group.barrier(), "syncfs")
            group.rename(files)
            _check(group.sync_directory(directory), "fsync")
            group.close(files)
            for file in files:
                _check(file.result, file.failed_at)
        os.close(directory)

    return run


def uploads(work: Work, begin: Step) -> None:
    """Publish by a client and a server process, over TCP, `depth` requests in flight."""
    with Daemon(work.directory, ["tcp"]) as daemon:
        trio.run(_upload, work, daemon.urls["tcp"], begin)
        daemon.stop()


async def _upload(work: Work, url: str, begin: Step) -> None:
    content = work.content()
    failures: list[PutResult] = []

    def done(result: PutResult) -> None:
        if result.error is not None:
            failures.append(result)

    lanes = -(-work.depth // REQUESTS_MAX)
    async with connect(url) as client:
        begin()
        await client.put_many(
            ((name, content) for name in work.names()),
            done,
            lanes=lanes,
            in_flight=work.depth // lanes,
        )
    if failures:
        raise CannotRunError(str(failures[0].error))


def _check(result: int, what: str) -> None:
    if result < 0:
        raise CannotRunError(f"{what}: {os.strerror(-result)}")


WAYS: dict[str, Callable[[Work, Step], None]] = {
    "plain loop": plain_loop,
    "ring chains": chains,
    "fsync each": grouped(sync=True),
    "one syncfs": grouped(sync=False),
    "uringd": uploads,
}
