"""Recovery on open: whole journals are completed, and nothing else is ever believed."""
# A test may block on a small file.

from __future__ import annotations

import errno
import fcntl
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
import trio.testing

import uringio
from tests.lacking import need_root
from tests.uringio.trio.journals import identity_of, journal_of
from tests.uringio.trio.journals import leave_journal as left_by_replace
from uringio._ring.execute import execute
from uringio._trio.file_lock import Claim, locked
from uringio._trio.replace_journal import (
    HEADER_BYTES,
    JOURNALS_MAX,
    payload_at,
)
from uringio.exceptions import OperationError, PendingReplaceError, UnavailableError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringio.conftest import OpenAny

SLOT = 16 << 10
SLOTS = 4
OLD = random.Random(1).randbytes(6 * SLOT + 1234)
OFFSET = 5000
NEW = random.Random(2).randbytes(3 * SLOT)
WANTED = OLD[:OFFSET] + NEW + OLD[OFFSET + len(NEW) :]

Mode = Literal["r", "r+", "w+", "x+"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def leave_journal(path: Path, **options: Any) -> Path:
    return left_by_replace(path, OFFSET, NEW, **options)


async def outcomes(ring: uringio.Ring, path: Path, mode: Mode = "r+") -> list[str]:
    async with await ring.open(path, mode) as file:
        return [found.outcome for found in file.recovered]


@pytest.mark.parametrize("mode", ["r", "r+"])
async def test_an_open_completes_what_was_broken_off(
    open_any: OpenAny, path: Path, mode: Mode
) -> None:
    journal = leave_journal(path)
    async with open_any(SLOTS, SLOT) as ring:
        async with await ring.open(path, mode) as file:
            assert file.recovered == (
                uringio.Recovered(journal.name, "completed", OFFSET, len(NEW)),
            )
            assert await file.pread(len(OLD), 0) == WANTED
        assert await outcomes(ring, path) == []
    assert os.listdir(path.parent) == ["file"]


async def test_a_file_without_journals_is_opened_as_ever(open_any: OpenAny, path: Path) -> None:
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == []
        async with await ring.open("/dev/zero") as file:
            assert file.recovered == ()


async def test_several_journals_are_completed_in_any_order(open_any: OpenAny, path: Path) -> None:
    content = OLD
    for number in (7, 0, 3):
        offset, data = number * 10_000, bytes([number + 1]) * 5000
        left_by_replace(path, offset, data, number=number)
        content = content[:offset] + data + content[offset + len(data) :]
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == ["completed"] * 3
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("where", ["nothing", "header", "payload", "padding", "cut"])
async def test_a_torn_journal_is_removed_and_not_believed(
    open_any: OpenAny, path: Path, where: str
) -> None:
    journal = leave_journal(path)
    content = bytearray(journal.read_bytes())
    if where == "nothing":
        content.clear()
    elif where == "header":
        content[:HEADER_BYTES] = bytes(HEADER_BYTES)
    elif where == "payload":
        at = payload_at(OFFSET, OFFSET) + len(NEW) - 1
        content[at] ^= 1
    elif where == "padding":
        content[-1] = 1  # outside of the range: nobody's byte
    else:
        del content[payload_at(OFFSET, OFFSET) + len(NEW) - 1 :]
    journal.write_bytes(content)
    async with open_any(SLOTS, SLOT) as ring:
        is_whole = where == "padding"
        assert await outcomes(ring, path) == ["completed" if is_whole else "torn"]
    assert path.read_bytes() == (WANTED if is_whole else OLD)
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("seed", range(8))
async def test_garbage_is_not_believed(open_any: OpenAny, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    journal_of(path).write_bytes(rng.randbytes(rng.randrange(3 * HEADER_BYTES)))
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == ["torn"]
    assert path.read_bytes() == OLD


async def test_a_journal_of_the_file_that_was_there_before_is_left_alone(
    open_any: OpenAny, path: Path
) -> None:
    """The inode number was given to a new file: only the time of birth tells."""
    mine = identity_of(path)
    journal = leave_journal(path, identity=mine._replace(birth_ns=mine.birth_ns ^ 1))
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == ["foreign"]
        assert path.read_bytes() == OLD
        assert journal.exists()
        async with await ring.open(path, "r+") as file:
            await file.replace(OFFSET, NEW)
    assert path.read_bytes() == WANTED
    assert sorted(os.listdir(path.parent)) == [journal.name, "file"]


async def test_a_file_that_took_the_name_does_not_get_the_bytes(
    open_any: OpenAny, path: Path
) -> None:
    journal = leave_journal(path)
    other = path.with_name("other")
    other.write_bytes(OLD)
    other.rename(path)
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == []
    assert path.read_bytes() == OLD
    assert journal.exists()


async def test_a_renamed_file_gets_them(open_any: OpenAny, path: Path) -> None:
    leave_journal(path)
    other = path.rename(path.with_name("other"))
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, other) == ["completed"]
    assert other.read_bytes() == WANTED


@pytest.mark.parametrize("kind", ["directory", "symbolic link", "hard link", "pipe"])
async def test_what_is_no_plain_file_of_its_own_is_left_alone(
    open_any: OpenAny, path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    journal = leave_journal(path)
    elsewhere = path.with_name("elsewhere")
    if kind == "hard link":
        elsewhere.hardlink_to(journal)
    else:
        journal.rename(elsewhere)
        if kind == "directory":
            journal.mkdir()
        elif kind == "pipe":
            os.mkfifo(journal)
        else:
            journal.symlink_to(elsewhere)
    async with open_any(SLOTS, SLOT) as ring:
        with trio.fail_after(60):
            assert await outcomes(ring, path) == ["foreign"]
        async with await ring.open(path, "r+") as file:
            await file.replace(0, OLD[:1])
    assert path.read_bytes() == OLD
    assert journal.is_symlink() or journal.exists()


@pytest.mark.root
async def test_a_journal_of_somebody_else_is_left_alone(open_any: OpenAny, path: Path) -> None:
    """Who may create names in a directory could otherwise write any file in it."""
    need_root("giving a file away")
    journal = leave_journal(path)
    os.chown(journal, 1234, -1)
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == ["foreign"]
    assert path.read_bytes() == OLD


async def test_a_journal_of_another_version_refuses_the_open(
    open_any: OpenAny, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uringio._trio.replace_journal.VERSION", 2)
    journal = leave_journal(path)
    monkeypatch.undo()
    before = len(os.listdir("/proc/self/fd"))
    async with open_any(SLOTS, SLOT) as ring:
        during = len(os.listdir("/proc/self/fd"))
        with pytest.raises(UnavailableError, match="version 2"):
            await ring.open(path)
        assert len(os.listdir("/proc/self/fd")) == during
    assert len(os.listdir("/proc/self/fd")) == before
    assert journal.exists()


async def test_a_file_that_was_cut_is_not_made_longer(open_any: OpenAny, path: Path) -> None:
    leave_journal(path)
    size = OFFSET + SLOT + 77
    os.truncate(path, size)
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path) == ["completed"]
    assert path.read_bytes() == WANTED[:size]


async def test_a_file_that_is_emptied_by_the_open_stays_empty(
    open_any: OpenAny, path: Path
) -> None:
    leave_journal(path)
    async with open_any(SLOTS, SLOT) as ring:
        assert await outcomes(ring, path, "w+") == ["completed"]
    assert path.read_bytes() == b""
    assert os.listdir(path.parent) == ["file"]


async def test_a_replace_ends_what_another_process_left_after_the_open(
    open_any: OpenAny, path: Path
) -> None:
    """Or the next open would undo it."""
    async with open_any(SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+") as file:
            leave_journal(path)
            await file.replace(OFFSET + 10, b"newer")
        expected = WANTED[: OFFSET + 10] + b"newer" + WANTED[OFFSET + 15 :]
        assert path.read_bytes() == expected
        assert await outcomes(ring, path) == []
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == ["file"]


async def test_a_replace_leaves_a_journal_alone_that_is_just_being_made(
    open_any: OpenAny, path: Path
) -> None:
    """It is there and not locked yet: its owner would have to begin again."""
    async with open_any(SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+") as file:
            journal = journal_of(path)
            journal.touch()
            await file.replace(OFFSET, NEW)
            assert journal.exists()
        assert await outcomes(ring, path) == ["torn"]
    assert path.read_bytes() == WANTED
    assert os.listdir(path.parent) == ["file"]


async def test_a_replace_waits_until_a_number_is_free(
    path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is taken by what is not ours to remove: EBUSY, in a bounded time."""
    monkeypatch.setattr("uringio._trio.file_lock.LOCK_WAIT_S", 1.0)
    for number in range(JOURNALS_MAX):
        journal_of(path, number).mkdir()
    async with (
        run_ring(SimulatedRing(1), SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as file,
    ):
        assert len(file.recovered) == JOURNALS_MAX
        with pytest.raises(OperationError) as info:
            await file.replace(0, b"x")
    assert info.value.errno == errno.EBUSY
    assert path.read_bytes() == OLD


async def test_an_open_waits_for_a_replace_that_is_under_way(open_any: OpenAny, path: Path) -> None:
    """Its journal is locked; when the lock goes and the journal too, there is nothing to do."""
    journal = leave_journal(path)
    found: list[list[str]] = []
    async with open_any(SLOTS, SLOT) as ring, trio.open_nursery() as nursery:
        with journal.open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)

            async def reopen() -> None:
                found.append(await outcomes(ring, path))

            nursery.start_soon(reopen)
            for _ in range(200):
                await trio.lowlevel.checkpoint()
            assert found == []
            assert path.read_bytes() == OLD
            journal.unlink()
    assert found == [[]]
    assert path.read_bytes() == OLD


async def test_recovery_waits_for_writes_of_the_killed_process(
    path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold the lock of their bytes until the last has landed."""
    monkeypatch.setattr("uringio._trio.file_lock.LOCK_WAIT_S", 2.0)
    leave_journal(path)
    fd = os.open(path, os.O_RDWR)
    async with run_ring(SimulatedRing(1), SLOTS, SLOT) as ring:
        async with locked([Claim(fd, OFFSET + 100, 1)], "file"):
            with trio.move_on_after(1) as scope:
                await outcomes(ring, path)
            assert scope.cancelled_caught
            assert path.read_bytes() == OLD
            with pytest.raises(PendingReplaceError) as info:
                await outcomes(ring, path)
            assert info.value.errno == errno.EBUSY
        assert await outcomes(ring, path) == ["completed"]
    os.close(fd)
    assert path.read_bytes() == WANTED


@pytest.mark.parametrize(
    ("opcode", "nth"),
    [
        (Opcode.READ, 1),
        (Opcode.READ, 6),
        (Opcode.WRITE, 1),
        (Opcode.WRITE, 2),
        (Opcode.FSYNC, 1),
        (Opcode.FSYNC, 2),
        (Opcode.FSYNC, 3),
        (Opcode.FSYNC, 4),
        (Opcode.UNLINKAT, 1),
    ],
)
async def test_what_cannot_be_completed_refuses_the_open_and_can_be_tried_again(
    path: Path, opcode: Opcode, nth: int
) -> None:
    journal = leave_journal(path)
    raw = SimulatedRing(1, faults=[Fault(opcode, nth, result=-errno.EIO)])
    async with run_ring(raw, SLOTS, SLOT) as ring:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PendingReplaceError, match="broken off") as info:
            await ring.open(path, "r+")
        assert info.value.errno == errno.EIO
        assert len(os.listdir("/proc/self/fd")) == before
        assert ring.statistics().free_slots == SLOTS
        assert journal.exists() == ((opcode, nth) != (Opcode.FSYNC, 4))
    async with run_ring(SimulatedRing(1), SLOTS, SLOT) as ring:
        await outcomes(ring, path)
    assert path.read_bytes() == WANTED
    assert os.listdir(path.parent) == ["file"]


async def test_a_recovery_cancelled_at_any_step_is_done_again(path: Path) -> None:
    """Cancelled at each of its operations in turn: the next open completes it all the same."""
    for nth in range(100):
        path.write_bytes(OLD)
        leave_journal(path)
        scope = trio.CancelScope()
        left = nth

        def cancel(operation: Operation, scope: trio.CancelScope = scope) -> int:
            nonlocal left
            left -= 1
            if left == -1:
                scope.cancel()
            return execute(operation)

        descriptors = len(os.listdir("/proc/self/fd"))
        async with run_ring(SimulatedRing(nth, perform=cancel), SLOTS, SLOT) as ring:
            with scope:
                await outcomes(ring, path)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        async with run_ring(SimulatedRing(nth), SLOTS, SLOT) as ring:
            again = await outcomes(ring, path)
        assert path.read_bytes() == WANTED
        assert os.listdir(path.parent) == ["file"]
        if not scope.cancel_called:
            assert again == []
            break
    else:
        raise AssertionError("the recovery never came through")
    assert nth > 10


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 32)], indirect=True)
async def test_a_file_that_cannot_be_written_is_not_read_half_old_half_new(
    open_uring: OpenAny, file_system: Path
) -> None:
    path = file_system / "file"
    path.write_bytes(OLD)
    leave_journal(path)
    await trio.run_process(["mount", "-o", "remount,ro", str(file_system)])
    async with open_uring(SLOTS, SLOT) as ring:
        with pytest.raises(PendingReplaceError, match="read-only") as info:
            await ring.open(path)
        assert info.value.errno == errno.EROFS
        await trio.run_process(["mount", "-o", "remount,rw", str(file_system)])
        assert await outcomes(ring, path, "r") == ["completed"]
    assert path.read_bytes() == WANTED


def test_what_was_recovered_does_not_change() -> None:
    found = uringio.Recovered("name", "torn")
    assert replace(found, outcome="foreign") != found
