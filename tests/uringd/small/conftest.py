"""Groups of small uploads with faults at any step, and what is asked of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.small.group import publish_group
from uringd.small.memory import Room
from uringd.small.put import Put
from uringd.wire import Durability, crc32c
from uringio.lowlevel import small_files

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon


class FaultyGroup:
    """A real group but for one fault: the `nth` time of a step (from 0), errno `number`.

    For "write" and "rename" it is the nth file, for "open" the nth file is not written at all, for
    "barrier" and "directory" the nth call.
    """

    def __init__(self, real: small_files.SmallGroup, step: str, nth: int, number: int) -> None:
        self.real, self.step, self.nth, self.number = real, step, nth, number
        self.calls: list[str] = []

    def write(self, files: Sequence[small_files.SmallFile], *, sync: bool) -> None:
        self.calls.append("write, fsync" if sync else "write")
        self.real.write(files, sync=sync)
        if self.step in {"open", "write", "fsync"} and self.nth < len(files):
            files[self.nth].fail(self.step, self.number)

    def barrier(self) -> int:
        self.calls.append("barrier")
        return -self.number if self.step == "barrier" else self.real.barrier()

    def rename(self, files: Sequence[small_files.SmallFile]) -> None:
        self.calls.append("rename")
        if self.step == "rename" and self.nth < len(files) and not files[self.nth].result:
            files[self.nth].fail("rename", self.number)
        self.real.rename(files)

    def sync_directory(self, dir_fd: int) -> int:
        nth = self.calls.count("directory")
        self.calls.append("directory")
        if self.step == "directory" and nth == self.nth:
            return -self.number
        return self.real.sync_directory(dir_fd)

    def close(self, files: Sequence[small_files.SmallFile]) -> None:
        self.calls.append("close")
        self.real.close(files)


class NoAsker:
    transport = "tcp"

    def answered(self, put: Put) -> None:
        raise AssertionError("groups answer nobody")


@dataclass
class Spool:
    """Two directories to publish in, and a spool."""

    path: Path
    fds: dict[str, int] = field(default_factory=dict)

    def put(
        self,
        name: str,
        content: bytes = b"content",
        *,
        overwrite: bool = False,
        keep_equal: bool = False,
        durability: Durability = Durability.PUBLISHED,
    ) -> Put:
        directory, _, last = name.rpartition("/")
        put = Put(
            NoAsker(), 1, name, (*filter(None, [directory]), last), content, crc32c(content),
            overwrite, keep_equal, durability, Room(0), 0.0,
        )  # fmt: skip
        put.place(self.fds[directory])
        return put

    def publish(
        self,
        puts: list[Put],
        step: str = "",
        nth: int = 0,
        number: int = 0,
        *,
        trusts_barrier: bool = True,
    ) -> tuple[bool, list[str]]:
        """Publish a group; the result is whether bytes were lost, and which steps were done."""
        real = small_files.open_group(self.fds["spool"], "test-", 0)
        group = FaultyGroup(real, step, nth, number)
        lost = publish_group(group, puts, trusts_barrier=trusts_barrier)
        assert os.listdir(self.path / "spool") == []
        return lost, group.calls

    @property
    def published(self) -> dict[str, bytes]:
        found = {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file()
        }
        return dict(sorted(found.items()))


MakePut = Callable[..., Put]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    base = tmp_path / "base"
    made = Spool(base)
    flags = os.O_RDONLY | os.O_DIRECTORY
    for name in ("", "other", "spool"):
        (base / name).mkdir()
        made.fds[name] = os.open(base / name, flags)
    yield made
    for fd in made.fds.values():
        os.close(fd)


def hold_groups(daemon: Daemon) -> trio.Event:
    """Let no group begin until the event is set."""
    held = trio.Event()
    take = daemon.server.root.naming.take

    async def wait_first(names: AbstractSet[str]) -> None:
        await held.wait()
        await take(names)

    daemon.server.root.naming.take = wait_first  # type: ignore[method-assign]
    return held
