"""A power cut at any moment of a replace, on a disk that keeps no more than it has promised.

A SIGKILL keeps the page cache, and a real file system hides a missing fsync behind another that
happens to write its journal. Here the least that POSIX grants is granted: what was written since
the last fsync of a file is there or not, sector by sector and in any order; a name made or removed
since the last fsync of its directory is there or not. The operations of a replace are recorded, an
image is made for every moment and many outcomes of chance, and each is opened again.
"""
# A test may block on a small file.

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uringio._ring.execute import execute
from uringio.exceptions import OperationError, PendingReplaceError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from uringio._trio.opening import Direct

SECTOR = 512
SLOT = 8 << 10
SLOTS = 4
OLD = random.Random(1).randbytes(3 * SLOT + 777)
CHANCES = 6
"""Images of every moment: the first has lost all that was not promised, the last has kept it."""

WRITES = {Opcode.WRITE, Opcode.WRITE_FIXED}


@dataclass
class Event:
    """Something that happened: to an inode, or to a name in the directory."""

    kind: str
    inode: int = 0
    name: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """Performs operations and writes down what they did; the `fails`-th of them does nothing.

    An fsync that failed has promised nothing, and nor does one of the same file after it, though it
    says 0 (the simulated ring sees to that without asking here).
    """

    path: Path
    fails: int = -1
    on: bool = False
    events: list[Event] = field(default_factory=list)
    count: int = 0

    def __call__(self, operation: Operation) -> int:
        if not self.on or operation.opcode is Opcode.CLOSE:
            return execute(operation)
        self.count += 1
        if self.count - 1 == self.fails:
            return -errno.EIO
        result = execute(operation)
        if result >= 0:
            self._note(operation, result)
        return result

    def _note(self, operation: Operation, result: int) -> None:
        name = os.fsdecode(operation.path)
        if operation.opcode in WRITES:
            assert operation.data is not None
            data = bytes(memoryview(operation.data)[:result])
            inode = os.fstat(operation.fd).st_ino
            self.events.append(Event("write", inode, offset=operation.offset, data=data))
        elif operation.opcode is Opcode.FALLOCATE:
            inode = os.fstat(operation.fd).st_ino
            end = operation.offset + operation.length
            self.events.append(Event("grow", inode, offset=end))
        elif operation.opcode is Opcode.FSYNC:
            self.events.append(Event("sync", os.fstat(operation.fd).st_ino))
        elif operation.opcode is Opcode.OPENAT and operation.flags & os.O_CREAT:
            self.events.append(Event("create", os.fstat(result).st_ino, name))
        elif operation.opcode is Opcode.UNLINKAT:
            self.events.append(Event("unlink", name=name))


class Chance:
    """What becomes of what no fsync has covered: a `share` of it was kept, whichever."""

    def __init__(self, seed: str, share: float) -> None:
        self.share = share
        self._random = random.Random(seed)

    def keeps(self) -> bool:
        return self._random.random() < self.share

    def __repr__(self) -> str:
        return f"Chance({self.share})"


def content_after(events: list[Event], inode: int, start: bytes, chance: Chance) -> bytes:
    """What a file holds: all up to its last fsync, and of the rest what chance kept."""
    content = bytearray(start)
    mine = [event for event in events if event.inode == inode]
    synced = max((i for i, event in enumerate(mine) if event.kind == "sync"), default=-1)
    for index, event in enumerate(mine):
        if event.kind == "grow" and (index < synced or chance.keeps()):
            content.extend(bytes(max(0, event.offset - len(content))))
        for at in range(0, len(event.data), SECTOR):
            if index < synced or chance.keeps():
                sector = event.data[at : at + SECTOR]
                end = event.offset + at + len(sector)
                content.extend(bytes(max(0, end - len(content))))
                content[event.offset + at : end] = sector
    return bytes(content)


def names_after(events: list[Event], directory: int, chance: Chance) -> dict[str, int]:
    """Which names the directory has, and of which inodes."""
    synced = max(
        (i for i, e in enumerate(events) if e.kind == "sync" and e.inode == directory), default=-1
    )
    names: dict[str, int] = {}
    for index, event in enumerate(events):
        if event.kind in {"create", "unlink"} and (index < synced or chance.keeps()):
            if event.kind == "create":
                names[event.name] = event.inode
            else:
                names.pop(event.name, None)
    return names


def cut_power(path: Path, events: list[Event], chance: Chance) -> None:
    """Make the directory what it is after a power cut. The file itself stays the same inode."""
    for entry in path.parent.iterdir():
        if entry.name != path.name:
            entry.unlink()
    path.write_bytes(content_after(events, path.stat().st_ino, OLD, chance))
    for name, inode in names_after(events, path.parent.stat().st_ino, chance).items():
        (path.parent / name).write_bytes(content_after(events, inode, b"", chance))


def chances(moment: int) -> list[Chance]:
    shares = [0.0] + [0.5] * (CHANCES - 2) + [1.0]
    return [Chance(f"{moment} {number}", share) for number, share in enumerate(shares)]


async def reopen(path: Path) -> bytes:
    async with run_ring(SimulatedRing(5), SLOTS, SLOT) as ring, await ring.open(path, "r+"):
        return path.read_bytes()


async def record(
    path: Path, direct: Direct, change: tuple[int, bytes], fails: int = -1
) -> tuple[Recorder, OperationError | None]:
    """Replace, on a disk that is watched: what happened, and the error if there was one."""
    path.write_bytes(OLD)
    disk, error = Recorder(path, fails), None
    async with (
        run_ring(SimulatedRing(max(fails, 0), perform=disk), SLOTS, SLOT) as ring,
        await ring.open(path, "r+", direct=direct) as file,
    ):
        disk.on = True
        try:
            await file.replace(*change)
        except OperationError as exc:
            error = exc
        disk.on = False
    return disk, error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


@pytest.fixture(params=[(100, 10), (5000, 6000), (5000, 2 * SLOT)], ids=["bytes", "one", "many"])
def change(request: pytest.FixtureRequest) -> tuple[int, bytes]:
    offset, length = request.param
    return offset, random.Random(2).randbytes(length)


def wanted(change: tuple[int, bytes]) -> bytes:
    offset, data = change
    return OLD[:offset] + data + OLD[offset + len(data) :]


@pytest.mark.parametrize("direct", ["auto", "never"])
async def test_a_power_cut_at_any_moment_leaves_the_old_bytes_or_the_new(
    path: Path, direct: Direct, change: tuple[int, bytes]
) -> None:
    new = wanted(change)
    disk, error = await record(path, direct, change)
    assert error is None
    assert len(disk.events) >= 9
    seen = set()
    torn = 0
    for moment in range(len(disk.events) + 1):
        for chance in chances(moment):
            cut_power(path, disk.events[:moment], chance)
            torn += path.read_bytes() not in {OLD, new}
            after = await reopen(path)
            assert after in {OLD, new}, (moment, chance)
            assert os.listdir(path.parent) == ["file"]
            seen.add(after)
            if moment == len(disk.events):
                assert after == new, "a replace that has returned is durable"
    assert seen == {OLD, new}
    assert torn or len(change[1]) < SECTOR, (
        "some cuts did tear the range, and only the journal made it whole"
    )


async def test_a_power_cut_while_a_killed_replace_is_recovered_leaves_the_old_bytes_or_the_new(
    path: Path, change: tuple[int, bytes]
) -> None:
    """A kill keeps the page cache, so a journal may be whole there that no disk has."""
    new = wanted(change)
    disk, error = await record(path, "never", change)
    assert error is None
    recovered = 0
    for killed in range(len(disk.events) + 1):
        cut_power(path, disk.events[:killed], Chance("a kill", 1.0))
        before = as_they_are_now(path, disk.events[:killed])
        second = Recorder(path, on=True)
        async with (
            run_ring(SimulatedRing(killed, perform=second), SLOTS, SLOT) as ring,
            await ring.open(path, "r+", direct="never") as file,
        ):
            recovered += file.recovered != ()
        for moment in range(len(second.events) + 1):
            for chance in chances(moment)[:3]:  # what keeps all is the kill itself
                cut_power(path, before + second.events[:moment], chance)
                assert await reopen(path) in {OLD, new}, (killed, moment, chance)
    assert recovered >= 3


def as_they_are_now(path: Path, events: list[Event]) -> list[Event]:
    """What happened to files that were made again since, by the inodes that they have now."""
    created = {event.inode: event.name for event in events if event.kind == "create"}
    now = {entry.name: entry.stat().st_ino for entry in path.parent.iterdir()}
    inodes = {inode: now.get(name, -1) for inode, name in created.items()}
    return [replace(event, inode=inodes.get(event.inode, event.inode)) for event in events]


@pytest.mark.parametrize("direct", ["auto", "never"])
async def test_a_power_cut_after_an_error_agrees_with_what_was_said(
    path: Path, direct: Direct, change: tuple[int, bytes]
) -> None:
    """An error that says nothing has happened stays true; the other kind is old or new."""
    new = wanted(change)
    clean = pending = 0
    for fails in range(100):
        disk, error = await record(path, direct, change, fails)
        if disk.count <= fails:
            break
        for chance in chances(fails):
            cut_power(path, disk.events, chance)
            after = await reopen(path)
            if error is None:
                assert after == new, (fails, chance)
            elif isinstance(error, PendingReplaceError):
                assert after in {OLD, new}, (fails, chance)
                if "safe in a journal" in str(error):
                    assert after == new, (fails, chance)
            else:
                assert after == OLD, (fails, chance)
            assert os.listdir(path.parent) == ["file"]
        clean += error is not None and not isinstance(error, PendingReplaceError)
        pending += isinstance(error, PendingReplaceError)
    assert clean >= 4
    assert pending >= 4


async def test_what_is_replaced_anew_is_not_undone(path: Path) -> None:
    """The journal of the first stays away once the first has returned."""
    path.write_bytes(OLD)
    disk = Recorder(path)
    first, second = (5000, b"1" * 5000), (7000, b"2" * 100)
    async with (
        run_ring(SimulatedRing(1, perform=disk), SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as file,
    ):
        disk.on = True
        await file.replace(*first)
        half = len(disk.events)
        await file.replace(*second)
        disk.on = False
    one = wanted(first)
    both = one[:7000] + second[1] + one[7100:]
    for moment in range(half, len(disk.events) + 1):
        for chance in chances(moment):
            cut_power(path, disk.events[:moment], chance)
            after = await reopen(path)
            assert after in ({both} if moment == len(disk.events) else {one, both})


@pytest.mark.parametrize(
    "ignored",
    ["the journal's fsync", "the directory's first", "the file's", "the directory's last"],
)
async def test_no_fsync_is_one_too_many(path: Path, ignored: str) -> None:
    """Without any one of them there is a power cut that loses or mixes: this check can fail."""
    change = (5000, random.Random(2).randbytes(6000))
    new = wanted(change)
    disk, _ = await record(path, "never", change)
    (journal,) = [event.inode for event in disk.events if event.kind == "create"]
    directory, file = path.parent.stat().st_ino, path.stat().st_ino
    syncs = [i for i, event in enumerate(disk.events) if event.kind == "sync"]
    assert [disk.events[i].inode for i in syncs] == [journal, directory, file, directory]
    names = ["the journal's fsync", "the directory's first", "the file's", "the directory's last"]
    without = list(disk.events)
    del without[syncs[names.index(ignored)]]
    if ignored == "the directory's last":
        # The range is written anew and made durable: a journal that comes back undoes it.
        offset, data = change
        without += [Event("write", file, offset=offset, data=bytes(len(data))), Event("sync", file)]
        new = wanted((offset, bytes(len(data))))
    bad = 0
    for moment in range(len(without) + 1):
        for chance in chances(moment):
            cut_power(path, without[:moment], chance)
            after = await reopen(path)
            is_done = moment == len(without)
            bad += after != new if is_done else after not in {OLD, new, wanted(change)}
    assert bad > 0
