"""How a write goes to the disk and what it promises: asked of the kernel, and said afterwards."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import uringio
from uringio._ring import libc
from uringio._ring.execute import execute
from uringio._ring.operations import O_DIRECT, RWF_ATOMIC, RWF_DONTCACHE, RWF_DSYNC
from uringio._trio.modes import UNCACHED_BYTES_MIN
from uringio._trio.opening import takes_uncached
from uringio.lowlevel import Opcode, Operation
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.conftest import MakeFileSystem
    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]
KIB, MIB = 1 << 10, 1 << 20


def aligned(length: int) -> memoryview:
    memory = memoryview(mmap.mmap(-1, length))
    memory[:] = os.urandom(length)
    return memory


def cached_pages(path: Path) -> int:
    """Pages of a file in the page cache: mincore(2) of a mapping that nobody has touched."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        first = ctypes.c_char.from_buffer(mapped)
        length = ctypes.c_size_t(len(mapped))
        there = (ctypes.c_ubyte * (-(-len(mapped) // mmap.PAGESIZE)))()
        result = ctypes.CDLL(None).mincore(ctypes.byref(first), length, there)
        del first  # a mapping that is pointed to cannot be closed
    assert result == 0
    return sum(byte & 1 for byte in there)


def flushes(path: Path) -> int:
    """Flushes that reached the block device below a file (field 16 of its stat, Linux 5.5)."""
    device = path.stat().st_dev
    text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    return int(text.split()[15])


def write_flags(raw: SimulatedRing) -> list[int]:
    return [op.flags for op, _ in raw.history if op.opcode is Opcode.WRITE]


# Durable writes.


async def write_in_every_way(file: uringio.UringFile, *, durable: bool) -> None:
    block = aligned(4 * KIB)
    await file.pwrite(block, 0, durable=durable)
    await file.pwrite(b"x" * 4096, 4096, durable=durable)
    await file.pwrite(b"odd", 8192, durable=durable)
    await file.pwrite_many([(block, 12288), (b"odd", 16385)], durable=durable)
    async with file.chain() as chain:
        chain.pwrite(block, 20480, durable=durable)


@pytest.mark.parametrize("durable", [False, True])
async def test_durable_is_a_flag_of_every_write(
    open_simulated: OpenRaw, tmp_path: Path, *, durable: bool
) -> None:
    raw = SimulatedRing(1)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        await write_in_every_way(file, durable=durable)
    assert write_flags(raw) == [RWF_DSYNC if durable else 0] * 6


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 32), ("xfs", 320)], indirect=True)
async def test_a_durable_write_is_beyond_the_disk_s_own_cache(
    open_real: OpenAny, file_system: Path
) -> None:
    path = file_system / "file"
    block = aligned(4 * KIB)
    async with open_real() as ring, await ring.open(path, "w+") as file:
        await file.pwrite(block, 0)
        await file.fsync()
        before = flushes(path)
        await file.pwrite(block, 0)
        plain = flushes(path)
        await file.pwrite(block, 0, durable=True)
        one = flushes(path)
        await file.pwrite(b"odd", 5, durable=True)
        buffered = flushes(path)
        async with file.chain() as chain:
            chain.pwrite(block, 0, durable=True)
        assert before == plain < one < buffered < flushes(path)


# Atomic writes.


@pytest.fixture
def offer_atomic(monkeypatch: pytest.MonkeyPatch) -> Callable[[Operation], int]:
    """Let statx promise atomic writes, and do them without: for disks that have none."""
    monkeypatch.setattr(libc, "statx_atomic_write", lambda _: (4 * KIB, 64 * KIB))
    return lambda op: execute(
        replace(op, flags=op.flags & ~RWF_ATOMIC) if op.opcode is Opcode.WRITE else op
    )


async def test_atomic_is_a_flag_of_every_write_and_goes_with_durable(
    open_simulated: OpenRaw, tmp_path: Path, offer_atomic: Callable[[Operation], int]
) -> None:
    block, raw = aligned(4 * KIB), SimulatedRing(1, perform=offer_atomic)
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="require") as file,
    ):
        assert file.atomic_write_bytes == (4 * KIB, 64 * KIB)
        await file.pwrite(block, 0, atomic=True)
        await file.pwrite(bytes(4096), 4096, atomic=True)  # by a copy, which is one write too
        await file.pwrite_many([(block, 8192), (block, 0)], atomic=True)
        async with file.chain() as chain:
            chain.pwrite(block, 8192, atomic=True, durable=True)
    assert write_flags(raw) == [RWF_ATOMIC] * 4 + [RWF_ATOMIC | RWF_DSYNC]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 2048), (0, 12288), (4096, 8192), (0, 128 * KIB), (1, 4096)]
)
async def test_what_no_file_system_writes_atomically_is_refused(
    open_simulated: OpenRaw,
    tmp_path: Path,
    offer_atomic: Callable[[Operation], int],
    offset: int,
    length: int,
) -> None:
    memory, raw = aligned(length), SimulatedRing(1, perform=offer_atomic)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(ValueError, match="a power of two"):
            await file.pwrite(memory, offset, atomic=True)
        with pytest.raises(ValueError, match="a power of two"):
            await file.pwrite_many([(memory, offset)], atomic=True)
        async with file.chain() as chain:
            with pytest.raises(ValueError, match=r"a power of two|multiples of 4096"):
                chain.pwrite(memory, offset, atomic=True)
    assert write_flags(raw) == []


async def test_what_does_not_fit_a_slot_is_not_written_atomically_by_copies(
    open_simulated: OpenRaw, tmp_path: Path, offer_atomic: Callable[[Operation], int]
) -> None:
    raw = SimulatedRing(1, perform=offer_atomic)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(ValueError, match="needs memory aligned"):
            await file.pwrite(bytes(64 * KIB), 0, atomic=True)
    assert write_flags(raw) == []


@pytest.mark.parametrize("how", ["pwrite", "many", "chain"])
async def test_an_atomic_write_that_comes_back_short_is_an_error(
    open_simulated: OpenRaw,
    tmp_path: Path,
    offer_atomic: Callable[[Operation], int],
    how: str,
) -> None:
    """Its rest would be a second write, and two are not one."""
    memory = aligned(16 * KIB)
    raw = SimulatedRing(
        1,
        perform=lambda op: offer_atomic(
            replace(op, length=min(op.length, 4096)) if op.data else op
        ),
    )
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(uringio.OperationError) as caught:
            if how == "pwrite":
                await file.pwrite(memory, 0, atomic=True)
            elif how == "many":
                await file.pwrite_many([(memory, 0)], atomic=True)
            else:
                async with file.chain() as chain:
                    chain.pwrite(memory, 0, atomic=True)
    assert caught.value.errno == errno.EIO
    assert len(write_flags(raw)) == 1


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 32)], indirect=True)
async def test_where_atomic_writes_are_not_offered_they_are_refused(
    open_real: OpenAny, file_system: Path
) -> None:
    """A loop device has none, and ext4 has none of its own."""
    block = aligned(4 * KIB)
    async with open_real() as ring:
        for direct in ("require", "never"):
            async with await ring.open(file_system / "file", "w+", direct=direct) as file:
                assert file.atomic_write_bytes is None
                with pytest.raises(uringio.UnavailableError, match="not offered"):
                    await file.pwrite(block, 0, atomic=True)
                with pytest.raises(uringio.UnavailableError, match="not offered"):
                    await file.pwrite_many([(block, 0)], atomic=True)
                async with file.chain() as chain:
                    with pytest.raises(uringio.UnavailableError, match="not offered"):
                        chain.pwrite(block, 0, atomic=True)
                assert (file_system / "file").stat().st_size == 0


@pytest.fixture
def atomic_file_system(make_file_system: MakeFileSystem) -> Path:
    """XFS writes atomically by reflinks, on any disk (Linux 6.16)."""
    path = make_file_system("xfs", 320)
    with (path / "probe").open("wb") as file:
        if libc.statx_atomic_write(file.fileno()) is None:
            pytest.skip("XFS offers no atomic writes on this kernel")
    return path


@pytest.mark.root
async def test_where_they_are_offered_the_kernel_takes_them(
    open_real: OpenAny, atomic_file_system: Path
) -> None:
    memory, path = aligned(64 * KIB), atomic_file_system / "file"
    async with (
        open_real(slot_bytes=64 * KIB) as ring,
        await ring.open(path, "w+", direct="require") as file,
    ):
        assert file.atomic_write_bytes is not None
        shortest, longest = file.atomic_write_bytes
        assert shortest <= 4 * KIB < 64 * KIB <= longest
        await file.pwrite(memory, 0, atomic=True)
        await file.pwrite(bytes(memory), 64 * KIB, atomic=True, durable=True)
        await file.pwrite_many([(memory, n * 64 * KIB) for n in (2, 3)], atomic=True)
        async with file.chain() as chain:
            chain.pwrite(memory, 4 * 64 * KIB, atomic=True)
            chain.fsync(data_only=True)
    assert path.read_bytes() == bytes(memory) * 5


# Uncached writes.


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 64), ("xfs", 320)], indirect=True)
async def test_big_pieces_that_cannot_be_direct_do_not_stay_in_the_page_cache(
    open_real: OpenAny, file_system: Path
) -> None:
    path = file_system / "file"
    data, pages = os.urandom(MIB), 8 * MIB // mmap.PAGESIZE
    with path.open("w+b") as probe:
        uncached = takes_uncached(probe.fileno())
    async with open_real() as ring:
        for direct in ("never", "auto"):
            async with await ring.open(path, "w+", direct=direct) as file:
                for n in range(8):
                    await file.pwrite(data, 17 + n * MIB)
                await file.fsync()
                statistics = file.statistics()
                if direct == "auto" and uncached:
                    assert statistics == uringio.FileStatistics(0, 8 * MIB, 0, 0)
                    assert cached_pages(path) < pages / 2
                else:
                    assert statistics == uringio.FileStatistics(0, 0, 8 * MIB, 0)
                    assert cached_pages(path) >= pages
            assert path.read_bytes() == bytes(17) + data * 8


async def test_what_went_which_way_is_counted(open_uring: OpenAny, tmp_path: Path) -> None:
    block = aligned(4 * KIB)
    async with open_uring() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert (file.direct, file.cache) == (True, "direct")
        await file.pwrite(block, 0)
        await file.pwrite(bytes(block), 4096)
        await file.pwrite(b"odd", 8192)
        await file.pwrite_many([(block, 0), (b"odd", 8192)])
        async with file.chain() as chain:
            chain.pwrite(block, 4096)
            chain.fsync()
        assert file.statistics() == uringio.FileStatistics(
            direct_bytes=4 * 4096, uncached_bytes=0, cached_bytes=6, copied_bytes=4096
        )
        assert ring.statistics().direct_files == 1


@pytest.fixture
def journalled(make_file_system: MakeFileSystem) -> Path:
    """An ext4 that journals data as well: no direct I/O there."""
    path = make_file_system("ext4", 64)
    image = path.with_suffix(".image")
    for command in (
        ("umount", path),
        ("tune2fs", "-o", "journal_data", image),
        ("mount", "-o", "loop", image, path),
    ):
        subprocess.run(command, check=True, capture_output=True)
    with (path / "probe").open("w+b") as file:
        if not takes_uncached(file.fileno()):
            pytest.skip("this kernel has no RWF_DONTCACHE that can be trusted (Linux 6.16)")
    return path


@pytest.mark.root
async def test_a_stream_that_cannot_be_direct_is_uncached_and_the_receipt_says_so(
    open_real: OpenAny, journalled: Path
) -> None:
    data = os.urandom(3 * MIB + 5)
    async with open_real(slot_bytes=UNCACHED_BYTES_MIN) as ring:
        async with ring.create(journalled / "big") as writer:
            await writer.write(data)
            receipt = await writer.commit()
        assert (receipt.direct, receipt.cache) == (False, "uncached")
        assert (journalled / "big").read_bytes() == data
        assert ring.statistics().uncached_files == 1
    async with open_real(slot_bytes=UNCACHED_BYTES_MIN // 2) as ring:
        async with ring.create(journalled / "small") as writer:
            await writer.write(data)
            receipt = await writer.commit()
        assert (receipt.direct, receipt.cache) == (False, "cached"), "too small to pay"


@pytest.mark.parametrize("direct", ["auto", "never"])
async def test_a_stream_to_tmpfs_is_cached_and_the_receipt_says_so(
    open_real: OpenAny, shared_memory: Path, direct: Direct
) -> None:
    async with (
        open_real(slot_bytes=UNCACHED_BYTES_MIN) as ring,
        ring.create(shared_memory / "file", direct=direct) as writer,
    ):
        await writer.write(bytes(MIB))
        receipt = await writer.commit()
        assert (receipt.direct, receipt.cache) == (False, "cached")
        assert ring.statistics().cached_files == 1


@pytest.mark.parametrize(("length", "expected"), [(256 * KIB, RWF_DONTCACHE), (255 * KIB, 0)])
async def test_only_big_pieces_are_uncached(
    open_simulated: OpenRaw, tmp_path: Path, length: int, expected: int
) -> None:
    """Smaller ones would cost more than they save."""
    path, data = tmp_path / "file", bytes(length)
    raw = SimulatedRing(1)
    async with open_simulated(raw) as ring, await ring.open(path, "w+") as file:
        if not takes_uncached(file.fileno()):
            expected = 0
        await file.pwrite(data, 1)
        assert file.statistics().uncached_bytes == (length if expected else 0)
    assert write_flags(raw) == [expected]


def test_a_kernel_that_may_lose_uncached_pages_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with path.open("w+b") as file:
        for release in ("6.14.2", "6.15.0-rc1+", "5.10"):
            monkeypatch.setattr(os, "uname", lambda name=release: SimpleNamespace(release=name))
            assert not takes_uncached(file.fileno())


def test_the_probe_writes_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    fd = os.open(path, os.O_RDWR)
    takes_uncached(fd)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & O_DIRECT
    os.close(fd)
    assert path.read_bytes() == b"kept"
