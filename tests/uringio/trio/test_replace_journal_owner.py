"""A new journal of a replace: whose it is, and what becomes of it when it cannot be theirs."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.lacking import need_root
from uringio._ring.execute import execute
from uringio._trio.replace_journal import PREFIX
from uringio.exceptions import OperationError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

OLD = b"old" * 5000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def journals(path: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in os.scandir(path.parent) if entry.name.startswith(PREFIX)]


async def replace(path: Path, disk: SimulatedRing) -> None:
    async with run_ring(disk, 4, 16 << 10) as ring, await ring.open(path, "r+") as file:
        await file.replace(0, b"new")


def refuse_to_give(patch: pytest.MonkeyPatch) -> None:
    """As the kernel does to who is not root."""

    def refused(_fd: int, _uid: int, _gid: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    patch.setattr(os, "fchown", refused)


@pytest.mark.root
async def test_a_journal_that_cannot_be_the_owners_is_removed_and_nothing_is_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery would not believe it: whoever may create names could have made it."""
    need_root("giving a file away")
    os.chown(path, 1234, -1)
    refuse_to_give(monkeypatch)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OperationError, match="create") as info:
        await replace(path, SimulatedRing(1))
    assert (info.value.errno, PREFIX in str(info.value.path)) == (errno.EPERM, True)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(path.parent) == ["file"]
    assert path.read_bytes() == OLD


@pytest.mark.root
async def test_a_journal_of_another_group_gives_that_group_no_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that hands its group on, a file of another group may be replaced."""
    need_root("giving a file away")
    path.chmod(0o644)
    os.chown(path, -1, 2345)
    refuse_to_give(monkeypatch)
    modes: list[int] = []

    def look(operation: Operation) -> int:
        modes.extend(entry.stat().st_mode & 0o777 for entry in journals(path))
        return execute(operation)

    await replace(path, SimulatedRing(1, perform=look))
    assert modes[-1] == 0o600
    assert path.read_bytes() == b"new" + OLD[3:]
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("removed", [True, False])
async def test_a_journal_that_an_open_took_for_torn_is_left_to_it(
    path: Path, *, removed: bool
) -> None:
    """Between the create and the lock of a journal somebody's recovery may have come."""
    held: list[int] = []

    def interfere(operation: Operation) -> int:
        result = execute(operation)
        if operation.opcode is Opcode.OPENAT and PREFIX.encode() in operation.path and not held:
            [entry] = journals(path)
            held.append(os.open(entry.path, os.O_RDWR))
            fcntl.flock(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            if removed:
                os.unlink(entry.path)
                fcntl.flock(held[0], fcntl.LOCK_UN)
        return result

    await replace(path, SimulatedRing(1, perform=interfere))
    assert path.read_bytes() == b"new" + OLD[3:]
    assert [entry.stat().st_size for entry in journals(path)] == ([] if removed else [0])
    os.close(held[0])
