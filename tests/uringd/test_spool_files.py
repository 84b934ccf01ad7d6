"""Spool files and their locks: who opens one that is being removed, and who removes one."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from uringd.records import UploadRecord
from uringd.root import Removal, Root
from uringd.spool_files import create_spool, open_spool
from uringd.upload_errors import UploadError
from uringd.wire import Durability, ErrorCode
from uringio._ring.execute import execute
from uringio.exceptions import OperationError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UPLOAD_ID = "0123456789abcdef" * 2
ENTRY = f"{UPLOAD_ID}.part"
RECORD = UploadRecord(
    UPLOAD_ID, "file", None, overwrite=False, durability=Durability.PUBLISHED, resumable=True
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    opened = Root(tmp_path / "root")
    yield opened
    opened.close()


@pytest.fixture
def path(root: Root) -> Path:
    return root.path / ".uringd/spool" / ENTRY


def after_the_open(happens: Callable[[], object]) -> SimulatedRing:
    """A disk on which somebody is faster than the lock of what was opened."""

    def perform(operation: Operation) -> int:
        result = execute(operation)
        if operation.opcode is Opcode.OPENAT2:
            happens()
        return result

    return SimulatedRing(1, perform=perform)


async def test_what_was_removed_before_it_was_locked_is_not_there(root: Root, path: Path) -> None:
    """Whoever wrote to it would write to nothing."""
    path.touch()
    before = len(os.listdir("/proc/self/fd"))
    async with run_ring(after_the_open(path.unlink)) as ring:
        inside = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OperationError) as info:
            await open_spool(ring, root, RECORD)
        assert info.value.errno == errno.ENOENT
        assert len(os.listdir("/proc/self/fd")) == inside
    assert len(os.listdir("/proc/self/fd")) == before


async def test_what_somebody_else_has_locked_is_told_from_what_is_not_there(
    root: Root, path: Path
) -> None:
    path.touch()
    async with run_ring(SimulatedRing(1)) as ring:
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(OperationError) as info:
                await open_spool(ring, root, RECORD)
            assert info.value.errno == errno.EAGAIN
        path.unlink()
        with pytest.raises(OperationError) as info:
            await open_spool(ring, root, RECORD)
        assert info.value.errno == errno.ENOENT


async def test_a_new_file_that_somebody_is_faster_to_lock_is_not_ours(
    root: Root, path: Path
) -> None:
    held: list[int] = []

    def lock() -> None:
        held.append(os.open(path, os.O_RDONLY))
        fcntl.flock(held[0], fcntl.LOCK_EX)

    async with run_ring(after_the_open(lock)) as ring:
        with pytest.raises(UploadError) as info:
            await create_spool(ring, root, RECORD)
    assert info.value.code is ErrorCode.BUSY
    os.close(held[0])
    assert not path.exists()


async def test_an_id_whose_file_is_there_is_known_and_an_error_of_the_disk_is_one(
    root: Root, path: Path
) -> None:
    path.touch()
    async with run_ring(SimulatedRing(1)) as ring:
        with pytest.raises(UploadError) as refused:
            await create_spool(ring, root, RECORD)
    assert refused.value.code is ErrorCode.BUSY
    assert path.exists()
    path.unlink()
    faults = [Fault(Opcode.OPENAT2, result=-errno.EIO)]
    async with run_ring(SimulatedRing(1, faults=faults)) as ring:
        with pytest.raises(OperationError) as info:
            await create_spool(ring, root, RECORD)
    assert info.value.errno == errno.EIO


def test_what_took_the_place_of_a_file_while_its_lock_was_waited_for_stays(
    root: Root, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removed it, and somebody has begun another upload of that id."""
    path.touch()
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        path.unlink()
        path.write_bytes(b"another")
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert root.remove_entry(ENTRY) is Removal.GONE
    assert path.read_bytes() == b"another"


@pytest.mark.parametrize("what", ["locked", "a directory"])
def test_what_is_held_or_was_not_made_by_us_is_not_removed(
    root: Root, path: Path, what: str
) -> None:
    if what == "locked":
        path.touch()
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert root.remove_entry(ENTRY) is Removal.LOCKED
    else:
        path.mkdir()
        assert root.remove_entry(ENTRY) is Removal.LOCKED
    assert path.exists()


def test_removing_says_whether_there_was_something(root: Root, path: Path) -> None:
    assert root.remove_entry(ENTRY) is Removal.GONE
    path.touch()
    assert root.remove_entry(ENTRY) is Removal.DONE
    assert not path.exists()
