"""UringFile.replace: any range gets new bytes, in order, without a trace beside the file."""
# A test may block on a small file.

from __future__ import annotations

import dataclasses
import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lacking import need_root
from uringio._ring import libc
from uringio._ring.execute import execute
from uringio._trio import replace_journal
from uringio.exceptions import (
    AccessError,
    ClosedError,
    OperationError,
    PendingReplaceError,
    UnavailableError,
)
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

SLOT = 16 << 10
SLOTS = 4
SIZE = 9 * SLOT + 1234
OLD = random.Random(1).randbytes(SIZE)

RANGES = [
    (0, 1),
    (0, 4096),
    (1, 4095),
    (100, 50),
    (4095, 2),
    (5000, 12_000),
    (0, SLOT),
    (4096, SLOT + 1),
    (100, 5 * SLOT),
    (SIZE - 1, 1),
    (SIZE - 5000, 5000),
    (0, SIZE),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def has_direct(path: Path) -> bool:
    with path.open("rb") as file:
        return any(libc.statx_direct_alignment(file.fileno()) or ())


def spliced(old: bytes, *changes: tuple[int, bytes]) -> bytes:
    content = bytearray(old)
    for offset, data in changes:
        content[offset : offset + len(data)] = data
    return bytes(content)


@pytest.mark.parametrize("direct", ["auto", "never"])
async def test_a_range_of_any_alignment_is_replaced(
    open_any: OpenAny, path: Path, direct: Direct
) -> None:
    content = OLD
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+", direct=direct) as file:
        for offset, length in RANGES:
            new = random.Random(offset + length).randbytes(length)
            done = await file.replace(offset, new)
            content = spliced(content, (offset, new))
            assert path.read_bytes() == content, (offset, length)
            assert await file.pread(SIZE, 0) == content
            assert os.listdir(path.parent) == ["file"]
            assert (done.offset, done.length, done.crc32c) == (offset, length, crc32c(new))
            assert done.direct == file.direct
            assert done.verified
            assert done.verified_direct == has_direct(path), "also of a buffered file"
    assert path.stat().st_size == SIZE


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 20_000), st.booleans()), max_size=4),
    st.integers(1, 40_000),
    st.sampled_from(["auto", "never"]),
    st.integers(0, 99),
)
def test_any_replaces_leave_what_a_bytearray_would_hold(
    tmp_path: Path,
    changes: list[tuple[int, int, bool]],
    size: int,
    direct: Direct,
    seed: int,
) -> None:
    path = tmp_path / "file"
    content = random.Random(seed).randbytes(size)
    path.write_bytes(content)

    async def main() -> bytes:
        model = content
        async with (
            run_ring(SimulatedRing(seed), 2, 4096 << seed % 3) as ring,
            await ring.open(path, "r+", direct=direct) as file,
        ):
            for number, (start, length, verify) in enumerate(changes):
                offset = start % size
                data = random.Random(number).randbytes(min(length, size - offset))
                done = await file.replace(offset, data, verify=verify)
                assert done.verified == (verify and len(data) > 0), "nothing was read back"
                model = spliced(model, (offset, data))
        return model

    assert trio.run(main) == path.read_bytes()
    assert os.listdir(tmp_path) == ["file"]


async def test_bytes_of_a_sparse_tebibyte_are_replaced(open_real: OpenAny, tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = 1 << 40
    with path.open("wb") as file:
        file.truncate(size)
    new = random.Random(2).randbytes(3 * SLOT)
    offsets = [0, (1 << 39) + 777, size - len(new)]
    async with open_real(SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+") as opened:
            for offset in offsets:
                assert (await opened.replace(offset, new)).verified
        async with await ring.open(path) as opened:
            for offset in offsets:
                assert await opened.pread(len(new), offset) == new
                before = await opened.pread(10, max(offset - 10, 0))
                assert before == (new[:10] if offset == 0 else bytes(10))
            assert await opened.pread(10, offsets[1] + len(new)) == bytes(10)
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 < 1 << 20
    assert os.listdir(tmp_path) == ["file"]


async def test_the_result_does_not_change(open_any: OpenAny, path: Path) -> None:
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        done = await file.replace(0, b"new", verify=False)
        assert not done.verified
        assert not done.verified_direct
        with pytest.raises(dataclasses.FrozenInstanceError):
            done.length = 1  # type: ignore[misc]


async def test_nothing_is_replaced_by_nothing(open_any: OpenAny, path: Path) -> None:
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        done = await file.replace(SIZE, b"")
        assert (done.length, done.crc32c) == (0, 0)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (1 << 50, 1)])
async def test_a_file_never_gets_longer(
    open_any: OpenAny, path: Path, offset: int, length: int
) -> None:
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        with pytest.raises(ValueError, match=f"has {SIZE} bytes"):
            await file.replace(offset, b"x" * length)
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file"]


async def test_one_replace_has_a_size_it_may_not_exceed(
    open_uring: OpenAny, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uringio._trio.replacing.REPLACE_BYTES_MAX", 1000)
    async with open_uring(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        with pytest.raises(ValueError, match="1000 bytes at the most"):
            await file.replace(0, b"x" * 1001)
        await file.replace(0, b"x" * 1000)


async def test_what_is_no_offset_is_refused(open_uring: OpenAny, path: Path) -> None:
    async with open_uring(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        with pytest.raises(ValueError, match="0 or more"):
            await file.replace(-1, b"x")
    with pytest.raises(ClosedError):
        await file.replace(0, b"x")


async def test_a_file_open_for_reading_is_refused_with_the_mend(
    open_any: OpenAny, path: Path
) -> None:
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r") as file:
        with pytest.raises(OperationError, match=r'mode "r\+"') as info:
            await file.replace(7, b"x")
    assert (info.value.errno, info.value.operation, info.value.offset) == (
        errno.EBADF,
        "replace",
        7,
    )
    assert os.listdir(path.parent) == ["file"]


@pytest.fixture
def direct_path(path: Path) -> Path:
    """The file, where direct I/O is to be had."""
    if not has_direct(path):
        pytest.skip("no direct I/O on the file system of the temporary files")
    return path


async def test_a_file_that_must_be_direct_takes_whole_blocks_only(
    open_uring: OpenAny, direct_path: Path
) -> None:
    path = direct_path
    async with (
        open_uring(SLOTS, SLOT) as ring,
        await ring.open(path, "r+", direct="require") as file,
    ):
        with pytest.raises(ValueError, match="multiples of 4096"):
            await file.replace(1, b"x")
        done = await file.replace(4096, b"x" * 8192)
        assert done.direct
    assert path.read_bytes() == spliced(OLD, (4096, b"x" * 8192))


@pytest.mark.parametrize("how", ["unlinked", "linked"])
async def test_a_file_whose_journal_might_not_be_found_is_refused(
    open_any: OpenAny, path: Path, how: str
) -> None:
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        if how == "unlinked":
            path.unlink()
        else:
            path.with_name("other").hardlink_to(path)
        with pytest.raises(UnavailableError):
            await file.replace(0, b"x")
        assert await file.pread(SIZE, 0) == OLD


async def test_only_the_owner_may(
    open_any: OpenAny, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        with pytest.raises(AccessError, match="only the owner"):
            await file.replace(0, b"x")
    assert path.read_bytes() == OLD


@pytest.mark.root
async def test_a_journal_of_roots_belongs_to_the_owner_of_the_file(path: Path) -> None:
    need_root("giving a file away")
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    seen: list[os.stat_result] = []

    def look(operation: Operation) -> int:
        seen.extend(entry.stat() for entry in path.parent.iterdir() if entry.name != "file")
        return execute(operation)

    async with (
        run_ring(SimulatedRing(1, perform=look), SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as file,
    ):
        await file.replace(0, b"x")
    last = seen[-1]
    assert (last.st_uid, last.st_gid, last.st_mode & 0o777) == (1234, 2345, 0o640)


async def test_data_is_not_read_after_the_return(open_any: OpenAny, path: Path) -> None:
    data = bytearray(b"a" * (3 * SLOT))
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        await file.replace(10, data)
        data[:] = b"b" * len(data)
        await file.replace(10 + len(data), b"c")
    assert path.read_bytes() == spliced(OLD, (10, b"a" * len(data)), (10 + len(data), b"c"))


async def test_overlapping_replaces_are_ordered_as_they_came(open_any: OpenAny, path: Path) -> None:
    changes = [(i * 1000, bytes([i + 1]) * (2 * SLOT + i)) for i in range(12)]
    arrivals: list[int] = []
    done: list[int] = []
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:

        async def replace(number: int) -> None:
            arrivals.append(number)
            await file.replace(*changes[number])
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(len(changes)):
                arrived = len(arrivals)
                nursery.start_soon(replace, number)
                while len(arrivals) == arrived:
                    await trio.lowlevel.checkpoint()
    assert done == arrivals == list(range(len(changes)))
    assert path.read_bytes() == spliced(OLD, *changes)
    assert os.listdir(path.parent) == ["file"]


async def test_replaces_apart_go_side_by_side(path: Path) -> None:
    """The first is held up in its first step; the others overtake it."""
    held, go_on = trio.Event(), trio.Event()
    async with (
        run_ring(SimulatedRing(3), SLOTS, SLOT) as ring,
        await ring.open(path, "r+", direct="never") as file,
        trio.open_nursery() as nursery,
    ):

        async def hold_up() -> None:
            async with file._replacing._ranges.hold(0, 100):
                held.set()
                await go_on.wait()

        nursery.start_soon(hold_up)
        await held.wait()
        nursery.start_soon(file.replace, 99, b"late")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(60):
            await file.replace(103, b"early")
        assert path.read_bytes() == spliced(OLD, (103, b"early"))
        go_on.set()
    assert path.read_bytes() == spliced(OLD, (103, b"early"), (99, b"late"))


async def test_more_replaces_than_journals_wait_their_turn(open_any: OpenAny, path: Path) -> None:
    changes = [(i * 5000, bytes([i + 1]) * 3000) for i in range(3 * replace_journal.JOURNALS_MAX)]
    async with (
        open_any(SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as file,
        trio.open_nursery() as nursery,
    ):
        for change in changes:
            nursery.start_soon(file.replace, *change)
    assert path.read_bytes() == spliced(OLD, *changes)
    assert os.listdir(path.parent) == ["file"]


async def test_two_open_files_replace_the_same_bytes_one_after_another(
    open_any: OpenAny, path: Path
) -> None:
    """Through locks of the file, since they share nothing else; the outcome is one or the other."""
    one, other = b"1" * (3 * SLOT), b"2" * (3 * SLOT)
    async with (
        open_any(SLOTS, SLOT) as ring,
        await ring.open(path, "r+") as first,
        await ring.open(path, "r+", direct="never") as second,
    ):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.replace, 1000, one)
                nursery.start_soon(second.replace, 1000, other)
            assert path.read_bytes() in {spliced(OLD, (1000, data)) for data in (one, other)}
    assert os.listdir(path.parent) == ["file"]


class Corrupting:
    """A disk that writes something else into a file than it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on = True

    def __call__(self, operation: Operation) -> int:
        is_write = operation.opcode in {Opcode.WRITE, Opcode.WRITE_FIXED}
        if self.on and is_write and os.path.samestat(os.fstat(operation.fd), self.path.stat()):
            assert operation.data is not None
            length = len(memoryview(operation.data)[: operation.length])
            with self.path.open("r+b") as file:
                os.pwrite(file.fileno(), b"?" * length, operation.offset)
                os.fsync(file.fileno())
            return length
        return execute(operation)


@pytest.mark.parametrize("direct", ["auto", "never"])
@pytest.mark.parametrize("length", [10, 3 * SLOT])
async def test_what_reads_back_differently_is_an_error_and_is_mended_by_the_next_open(
    path: Path, direct: Direct, length: int
) -> None:
    disk = Corrupting(path)
    new = random.Random(5).randbytes(length)
    async with run_ring(SimulatedRing(1, perform=disk), SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+", direct=direct) as file:
            with pytest.raises(PendingReplaceError, match="read back") as info:
                await file.replace(5000, new)
            assert (info.value.errno, info.value.operation) == (errno.EIO, "verify")
            assert info.value.path == str(path)
            assert "next open" in str(info.value)
            disk.on = False
            with pytest.raises(PendingReplaceError, match="read back") as again:
                await file.replace(0, b"other")
            assert again.value is not info.value
        assert len(os.listdir(path.parent)) == 2
        async with await ring.open(path, "r+", direct=direct) as file:
            (found,) = file.recovered
            assert (found.outcome, found.offset, found.length) == ("completed", 5000, length)
    assert path.read_bytes() == spliced(OLD, (5000, new))
    assert os.listdir(path.parent) == ["file"]


async def test_data_that_changes_under_way_is_found_out(path: Path) -> None:
    """The journal keeps what was there first, and the next open writes that."""
    data = bytearray(b"a" * (3 * SLOT))

    def change(operation: Operation) -> int:
        if operation.opcode is Opcode.FSYNC:
            data[-1:] = b"b"
        return execute(operation)

    async with run_ring(SimulatedRing(1, perform=change), SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+") as file:
            with pytest.raises(PendingReplaceError, match="data was changed"):
                await file.replace(0, data)
        async with await ring.open(path, "r") as file:
            assert file.recovered
    assert path.read_bytes() == spliced(OLD, (0, b"a" * len(data)))


async def test_the_journal_is_gone_before_the_name_can_be_reused(
    open_any: OpenAny, path: Path
) -> None:
    """One after another, many times over: numbers, locks and descriptors are given back."""
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        await file.replace(0, b"0")
        before = len(os.listdir("/proc/self/fd"))
        for i in range(2 * replace_journal.JOURNALS_MAX):
            await file.replace(i, b"x")
        assert len(os.listdir("/proc/self/fd")) == before


async def test_the_slots_are_all_had_before_the_point_of_no_return(
    open_any: OpenAny, path: Path
) -> None:
    """While none is free a replace waits, can be cancelled, and has done nothing."""
    async with open_any(SLOTS, SLOT) as ring, await ring.open(path, "r+") as file:
        taken = [await ring.slots.acquire() for _ in range(SLOTS)]
        with trio.move_on_after(0) as scope:
            await file.replace(0, b"new")
        assert scope.cancelled_caught
        assert os.listdir(path.parent) == ["file"]
        ring.slots.release(taken.pop())
        with trio.fail_after(60):
            await file.replace(0, b"n" * (3 * SLOT))
        for slot in taken:
            ring.slots.release(slot)
    assert path.read_bytes() == spliced(OLD, (0, b"n" * (3 * SLOT)))
