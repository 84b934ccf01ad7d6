"""Journals that go, or cannot be looked at, while an open or a replace settles others."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.uringio.trio.journals import leave_journal
from uringio._ring.execute import execute
from uringio._trio.replace_journal import PREFIX
from uringio.exceptions import PendingReplaceError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = b"old" * 20_000
NEW = b"n" * 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def left(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path.parent) if name != path.name)


async def opened(path: Path, ring: SimulatedRing | None = None) -> list[str]:
    """Open the file: what was found beside it."""
    async with (
        run_ring(ring or SimulatedRing(1), 4, 16 << 10) as running,
        await running.open(path, "r+") as file,
    ):
        return [found.outcome for found in file.recovered]


async def test_a_journal_that_somebody_else_settles_meanwhile_is_nobodys(path: Path) -> None:
    leave_journal(path, 0, NEW)
    other = leave_journal(path, 8192, NEW, number=3)

    def interfere(operation: Operation) -> int:
        if operation.opcode is Opcode.UNLINKAT:
            other.unlink(missing_ok=True)
        return execute(operation)

    assert await opened(path, SimulatedRing(1, perform=interfere)) == ["completed"]
    assert path.read_bytes() == NEW + OLD[4096:]


async def test_a_replace_waits_for_no_journal_but_settles_those_that_are_free(path: Path) -> None:
    """Somebody is at work with the other one, in a range of its own."""
    async with (
        run_ring(SimulatedRing(1), 4, 16 << 10) as ring,
        await ring.open(path, "r+") as file,
    ):
        leave_journal(path, 8192, NEW)
        busy = leave_journal(path, 16_384, NEW, number=1)
        with busy.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            await file.replace(0, b"new")
            assert left(path) == [busy.name]
    assert path.read_bytes() == b"new" + OLD[3:8192] + NEW + OLD[8192 + 4096 :]
    assert await opened(path) == ["completed"]


def refuse(patch: pytest.MonkeyPatch, call: str, which: Callable[[str], bool]) -> None:
    """Let one kind of open, or read, of a journal fail."""
    real = getattr(os, call)

    def fails(subject: str | bytes | int, *args: object, **options: object) -> object:
        if isinstance(subject, int):
            name = os.readlink(f"/proc/self/fd/{subject}")
        else:
            name = os.fsdecode(subject)
        if which(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(subject, *args, **options)

    patch.setattr(os, call, fails)


@pytest.mark.parametrize("call", ["open", "pread"])
async def test_a_journal_that_cannot_be_read_refuses_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What it stands for may have begun: the file cannot be shown as it is."""
    journal = leave_journal(path, 0, NEW)
    with monkeypatch.context() as patch:
        refuse(patch, call, lambda name: PREFIX in name)
        with pytest.raises(PendingReplaceError, match="could not be completed") as info:
            await opened(path)
    assert (info.value.errno, info.value.path) == (errno.EIO, str(journal))
    assert path.read_bytes() == OLD
    assert await opened(path) == ["completed"]


@pytest.mark.parametrize("torn", [True, False])
async def test_a_journal_that_cannot_be_removed_is_told_unless_it_is_torn(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, torn: bool
) -> None:
    journal = leave_journal(path, 0, NEW)
    if torn:
        journal.write_bytes(journal.read_bytes()[:-1000])
    with monkeypatch.context() as patch:
        refuse(patch, "open", lambda name: name == ".")
        if torn:
            assert await opened(path) == ["torn"]
        else:
            with pytest.raises(PendingReplaceError, match="could not be completed"):
                await opened(path)
    assert left(path) == [journal.name]
    assert path.read_bytes() == OLD, "nor can it be made durable before the range is written"
    assert await opened(path) == ["torn" if torn else "completed"]
    assert left(path) == []
