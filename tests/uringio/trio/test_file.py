"""UringFile: reads and writes at offsets, whatever their alignment."""
# A test may block on a small file.

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import uringio
from uringio._ring import libc
from uringio.exceptions import ClosedError, OperationError, TargetExistsError, TargetMissingError
from uringio.lowlevel import BufferPool, Opcode
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]
SLOT = 16 << 10


@pytest.fixture(params=["auto", "never"])
def direct(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("offset", [0, 1, 4096, 5000])
@pytest.mark.parametrize("length", [0, 1, 512, 4096, 5 * SLOT, 5 * SLOT + 1])
async def test_what_is_written_is_read_back(
    open_any: OpenAny, tmp_path: Path, direct: Direct, offset: int, length: int
) -> None:
    data = random.Random(length).randbytes(length)
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "x+", direct=direct) as file,
    ):
        assert await file.pwrite(data, offset) == length
        assert await file.pread(length, offset) == data
        assert await file.pread(length + 10, offset) == data, "short at the end"
        assert await file.pread(10, offset + length + 5000) == b""
    size = offset + length if length else 0
    assert (tmp_path / "file").read_bytes() == (bytes(offset) + data)[:size]


@pytest.fixture
def direct_path(tmp_path: Path) -> Path:
    """A name where direct I/O is to be had."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        if not any(libc.statx_direct_alignment(file.fileno()) or ()):
            pytest.skip("no direct I/O on the file system of the temporary files")
    return path


async def test_aligned_memory_goes_past_the_page_cache_without_a_copy(
    open_simulated: OpenRaw, direct_path: Path
) -> None:
    """No slot is free, so a copy would wait for ever."""
    raw, pool = SimulatedRing(1), BufferPool(2, SLOT)
    memory = pool.slots[0].memory
    memory[:] = b"x" * SLOT
    async with open_simulated(raw) as ring:
        taken = [await ring.slots.acquire() for _ in range(ring.statistics().slots)]
        async with await ring.open(direct_path, "r+", direct="require") as file:
            with trio.fail_after(60):
                await file.pwrite(memory, 0)
                await file.pread_into(memory, 0)
        for slot in taken:
            ring.slots.release(slot)
    fds = {op.fd for op, _ in raw.history if op.opcode in {Opcode.READ, Opcode.WRITE}}
    assert len(fds) == 1, "no second descriptor was needed"
    assert direct_path.read_bytes() == b"x" * SLOT


async def test_every_byte_of_a_file_can_be_written_by_itself(
    open_any: OpenAny, tmp_path: Path, direct: Direct
) -> None:
    rng = random.Random(3)
    expected = bytearray(3 * SLOT)
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+", direct=direct) as file,
    ):
        await file.pwrite(expected, 0)
        for _ in range(60):
            offset = rng.randrange(len(expected))
            data = rng.randbytes(min(rng.choice([1, 100, 4096, 9000]), len(expected) - offset))
            expected[offset : offset + len(data)] = data
            assert await file.pwrite(data, offset) == len(data)
            assert await file.pread(len(data), offset) == data
    assert (tmp_path / "file").read_bytes() == expected


async def test_many_tasks_write_side_by_side(
    open_any: OpenAny, tmp_path: Path, direct: Direct
) -> None:
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+", direct=direct) as file,
        trio.open_nursery() as nursery,
    ):
        for i in range(60):
            nursery.start_soon(file.pwrite, bytes([i + 1]) * 4096, i * 4096)
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([i + 1]) * 4096 for i in range(60))


async def test_pwrite_many_writes_all_pairs(
    open_any: OpenAny, tmp_path: Path, direct: Direct
) -> None:
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+", direct=direct) as file,
    ):
        pairs = [(bytes([i + 1]) * (100 + i), i * 200) for i in range(50)]
        assert await file.pwrite_many(pairs) == sum(len(data) for data, _ in pairs)
        assert await file.pwrite_many([]) == 0
        for data, offset in pairs:
            assert await file.pread(len(data), offset) == data


async def test_pwrite_many_raises_the_first_error_as_it_is(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(1, faults=[Fault(Opcode.WRITE, 2, result=-errno.ENOSPC)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(uringio.NoSpaceError):
            await file.pwrite_many([(b"x", i) for i in range(5)])
        with pytest.raises(ValueError, match="an offset is 0 or more"):
            await file.pwrite_many([(b"x", 0), (b"x", -1)])
    writes = [op for op, _ in raw.history if op.opcode is Opcode.WRITE]
    assert len(writes) >= 5, "the others ran to their end"


async def test_short_writes_go_on_from_where_they_stopped(
    open_simulated: OpenRaw, tmp_path: Path, direct: Direct
) -> None:
    data = random.Random(1).randbytes(3 * SLOT)
    raw = SimulatedRing(1, faults=[Fault(Opcode.WRITE, short=5000, probability=0.5)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct=direct) as file,
    ):
        assert await file.pwrite(data, 0) == len(data)
        assert await file.pwrite(data[:101], 3 * SLOT) == 101
    assert (tmp_path / "file").read_bytes() == data + data[:101]


async def test_short_reads_go_on_from_where_they_stopped(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(3 * SLOT)
    (tmp_path / "file").write_bytes(data)
    raw = SimulatedRing(1, faults=[Fault(Opcode.READ, short=5000, probability=0.5)])
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file") as file:
        assert await file.pread(len(data), 0) == data


@pytest.mark.parametrize("short", [512, 5000, 8192])
async def test_a_short_direct_read_is_not_taken_for_the_end(
    open_simulated: OpenRaw, direct_path: Path, short: int
) -> None:
    data = random.Random(1).randbytes(3 * SLOT)
    direct_path.write_bytes(data)
    pool = BufferPool(2, 3 * SLOT)
    memory = pool.slots[0].memory
    raw = SimulatedRing(1, faults=[Fault(Opcode.READ, n, short=short) for n in (1, 2)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(direct_path, direct="require") as file,
    ):
        assert await file.pread_into(memory, 0) == len(data)
        assert memory == data
        assert await file.pread_into(memory, 2 * SLOT) == SLOT


async def test_errors_name_operation_path_offset_and_length(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    faults = [Fault(op, result=-errno.EIO) for op in (Opcode.WRITE, Opcode.READ, Opcode.FSYNC)]
    async with (
        open_simulated(SimulatedRing(1, faults=faults)) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        for call, text in (
            (lambda: file.pwrite(b"four", 7), "write of .*file at offset 7, 4 bytes: .*EIO"),
            (lambda: file.pread(5, 8), "read of .*file at offset 8, 5 bytes: .*EIO"),
            (file.fsync, "fsync of .*file: .*EIO"),
        ):
            with pytest.raises(OperationError, match=text):
                await call()


async def test_fsync_of_data_or_all(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        await file.pwrite(b"x", 0)
        await file.fsync()
        await file.fsync(data_only=True)


async def test_modes_are_those_of_open(open_any: OpenAny, tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with open_any() as ring:
        for mode in ("r", "r+"):
            with pytest.raises(TargetMissingError):
                await ring.open(path, mode)
        async with await ring.open(path, "x+", permissions=0o600) as file:
            await file.pwrite(b"kept", 0)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(TargetExistsError):
            await ring.open(path, "x+")
        async with await ring.open(path, "r+") as file:
            assert await file.pread(10, 0) == b"kept"
        async with await ring.open(path, "w+") as file:
            assert await file.pread(10, 0) == b""
        with pytest.raises(ValueError, match="mode must be one of"):
            await ring.open(path, "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [5, 4096])
async def test_a_file_opened_for_reading_is_never_written(
    open_any: OpenAny, tmp_path: Path, direct: Direct, length: int
) -> None:
    """Not even through the second descriptor, for what is no whole block."""
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    async with open_any() as ring, await ring.open(path, "r", direct=direct) as file:
        assert await file.pread(2, 1) == b"ep"
        with pytest.raises(OperationError) as caught:
            await file.pwrite(bytes(length), 0)
        assert caught.value.errno == errno.EBADF
    assert path.read_bytes() == b"kept"


async def test_reading_into_constant_memory_is_refused(open_any: OpenAny, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    constant = b"abcde"
    async with open_any() as ring, await ring.open(tmp_path / "file") as file:
        with pytest.raises(TypeError, match="writable"):
            await file.pread_into(constant, 0)
    assert constant == b"abc" + b"de"


async def test_offsets_below_0_are_refused(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(ValueError, match="0 or more"):
            await file.pwrite(b"x", -1)
        with pytest.raises(ValueError, match="0 or more"):
            await file.pread(1, -1)


async def test_a_close_waits_for_calls_under_way(
    open_any: OpenAny, tmp_path: Path, count_descriptors: Callable[[], int]
) -> None:
    async with open_any() as ring:
        before = count_descriptors()
        file = await ring.open(tmp_path / "file", "w+")
        taken: list[int] = []

        async def write(offset: int) -> None:
            with contextlib.suppress(ClosedError):  # trio starts tasks in any order
                await file.pwrite(b"x" * 100, offset)
                taken.append(offset)

        async with trio.open_nursery() as nursery:
            for i in range(20):
                nursery.start_soon(write, i * 100)
            await trio.lowlevel.checkpoint()
            await file.aclose()
            await file.aclose()
        assert count_descriptors() == before
        for call in (lambda: file.pwrite(b"", 0), lambda: file.pread(1, 0), file.fsync):
            with pytest.raises(ClosedError):
                await call()
    written = (tmp_path / "file").read_bytes()
    assert written.count(b"x") == 100 * len(taken)
    assert all(written[offset : offset + 100] == b"x" * 100 for offset in taken)


async def test_the_descriptor_is_the_file_s(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert os.path.samestat(os.fstat(file.fileno()), (tmp_path / "file").stat())
        assert file.path == str(tmp_path / "file")


async def test_what_must_be_direct_never_goes_through_the_page_cache(
    open_uring: OpenAny, tmp_path: Path
) -> None:
    async with (
        open_uring() as ring,
        await ring.open(tmp_path / "file", "w+", direct="require") as file,
    ):
        assert await file.pwrite(bytearray(4096), 0) == 4096
        for refused in (file.pwrite(b"abc", 0), file.pwrite(bytes(4096), 1), file.pread(3, 0)):
            with pytest.raises(ValueError, match='direct="require"'):
                await refused
        with pytest.raises(ValueError, match='direct="require"'):
            await file.pwrite_many([(b"abc", 4096)])
