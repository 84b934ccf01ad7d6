"""A file size limit or a full disk in the middle of a write: every way of writing names it."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

import uringio
from uringio.lowlevel import Opcode, RingLike
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunPython
    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

OpenRaw = Callable[[RingLike], AbstractAsyncContextManager[uringio.Ring]]

KIB = 1 << 10

UNDER_A_LIMIT = """
import mmap, resource, signal, sys
import trio, uringio
from uringio.exceptions import NoSpaceError

path, backend, how, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
memory = memoryview(mmap.mmap(-1, 64 << 10))
memory[:] = b"x" * len(memory)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def write(file):
    if how == "pwrite":
        await file.pwrite(memory, 0)
    elif how == "copied":
        await file.pwrite(bytes(memory), 0)
    elif how == "many":
        await file.pwrite_many([(memory, 0)])
    else:
        async with file.chain() as chain:
            chain.fsync()
            chain.pwrite(memory, 0)
            chain.fsync()
            chain.pwrite(memory, 0)

async def main():
    async with (
        uringio.open_ring(slots=2, slot_bytes=64 << 10, backend=backend) as ring,
        await ring.open(path, "w+", direct="require") as file,
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            await write(file)
        except NoSpaceError as exc:
            print(exc.errno, exc.operation, exc.offset, exc.length)

trio.run(main)
"""


@pytest.mark.parametrize("backend", ["io_uring", "threads"])
@pytest.mark.parametrize("how", ["pwrite", "copied", "many", "chain"])
@pytest.mark.parametrize(
    ("limit", "offset"),
    [
        (16 * KIB, 16 * KIB),
        (16 * KIB + 512, 16 * KIB + 512),  # the device could go on here, and says why not
        (16 * KIB + 7, 0),  # a direct write cannot end there: refused from its start
    ],
)
def test_a_file_size_limit_in_mid_write_is_named(
    run_python: RunPython,
    tmp_path: Path,
    backend: str,
    how: str,
    limit: int,
    offset: int,
) -> None:
    """True short writes: the rest must not start where direct I/O cannot."""
    if backend == "io_uring" and not uringio.probe().available:
        pytest.skip(uringio.probe().reason)
    path = tmp_path / "file"
    printed = run_python(UNDER_A_LIMIT, path, backend, how, limit).stdout
    assert printed.split() == [
        str(errno.EFBIG), "write", str(offset), str(64 * KIB - offset)
    ]  # fmt: skip
    if offset:
        assert path.read_bytes() == b"x" * offset


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 16)], indirect=True)
@pytest.mark.parametrize("how", ["pwrite", "many", "chain"])
@pytest.mark.parametrize("direct", ["never", "require"])
async def test_a_full_disk_in_mid_write_is_named(
    open_real: OpenAny, file_system: Path, how: str, direct: Direct
) -> None:
    """Buffered, the kernel writes what fits first; a direct write that grows the file is whole."""
    free = os.statvfs(file_system).f_bavail * os.statvfs(file_system).f_bsize
    length = free + (1 << 20) & -4096
    memory = memoryview(mmap.mmap(-1, length))
    memory[:] = b"x" * length
    async with (
        open_real() as ring,
        await ring.open(file_system / "file", "w+", direct=direct) as file,
    ):
        with pytest.raises(uringio.NoSpaceError) as caught:
            if how == "pwrite":
                await file.pwrite(memory, 0)
            elif how == "many":
                await file.pwrite_many([(memory, 0)])
            else:
                async with file.chain() as chain:
                    chain.pwrite(memory, 0)
                    chain.fsync()
    error = caught.value
    assert (error.errno, error.operation) == (errno.ENOSPC, "write")
    assert error.offset is not None
    assert error.length is not None
    assert error.offset + error.length == length
    written = (file_system / "file").read_bytes()
    assert error.offset <= len(written)
    assert (error.offset > 0) == (direct == "never")
    assert written[: error.offset] == b"x" * error.offset, "what stands before it is written"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", ["pwrite", "many", "chain"])
async def test_the_rest_of_a_short_direct_write_starts_on_a_block(
    open_simulated: OpenRaw, tmp_path: Path, how: str, seed: int
) -> None:
    """The kernel may stop on a sector of 512 bytes; each write is checked where it is done."""
    memory = memoryview(mmap.mmap(-1, 16 * KIB))
    memory[:] = os.urandom(len(memory))
    faults = [Fault(Opcode.WRITE, 1, short=4608), Fault(Opcode.WRITE, 2, short=5000)]
    raw = SimulatedRing(seed, faults=faults)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        if how == "pwrite":
            await file.pwrite(memory, 0)
        elif how == "many":
            await file.pwrite_many([(memory, 0)])
        else:
            async with file.chain() as chain:
                chain.pwrite(memory, 0)
                chain.fsync()
    writes = [op.offset for op, _ in raw.history if op.opcode is Opcode.WRITE and op.length]
    assert len(writes) == 3
    assert all(offset % 4096 == 0 for offset in writes)
    assert (tmp_path / "file").read_bytes() == memory


async def test_a_chunk_that_stops_in_its_first_block_names_what_stopped_it(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    faults = [Fault(Opcode.WRITE, 1, short=512), Fault(Opcode.WRITE, 2, result=-errno.EDQUOT)]
    async with open_simulated(SimulatedRing(1, faults=faults)) as ring:
        with pytest.raises(uringio.NoSpaceError) as caught:
            async with ring.create(tmp_path / "file") as writer:
                await writer.write(bytes(16 * KIB))
                await writer.flush()
    assert (caught.value.errno, caught.value.offset) == (errno.EDQUOT, 512)


FINISHED_CHAIN = """
import mmap, os, resource, signal, sys
import trio, uringio
from uringio.lowlevel import operations, run_steps
from uringio._trio.publish import Step

path, direct = sys.argv[1], sys.argv[2]
memory = memoryview(mmap.mmap(-1, 64 << 10))
memory[:] = b"x" * len(memory)
header = memoryview(mmap.mmap(-1, 4096))
header[:] = b"h" * 4096
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.RLIM_INFINITY

class Relaxing:
    \"\"\"The reactor, with the limit gone once it has cut a write short.\"\"\"

    async def perform_chain(self, chain):
        results = await reactor.perform_chain(chain)
        if any(op.data is not None for op in chain):
            resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
        print(*(op.opcode.name for op in chain), *results)
        return results

async def main():
    global reactor
    async with (
        uringio.open_ring(slots=2, slot_bytes=64 << 10, backend=sys.argv[3]) as ring,
        await ring.open(path, "w+", direct=direct) as file,
    ):
        reactor, fd = ring.reactor, file.fileno()
        resource.setrlimit(resource.RLIMIT_FSIZE, (16896, unlimited))
        steps = [
            Step(operations.fsync(fd), path),
            Step(operations.write(fd, memory, 4096, len(memory)), path),
            Step(operations.fsync(fd, data_only=True), path),
            Step(operations.write(fd, header, 0, 4096), path),
            Step(operations.fsync(fd), path),
        ]
        print(await run_steps(Relaxing(), steps))

trio.run(main)
"""


@pytest.mark.parametrize("backend", ["io_uring", "threads"])
@pytest.mark.parametrize("direct", ["require", "never"])
def test_a_chain_cut_by_a_true_short_write_is_finished_in_order(
    run_python: RunPython, tmp_path: Path, backend: str, direct: str
) -> None:
    """The rest of the write goes first, then what was linked behind it.

    A write behind an fsync waits for its result: a failed one would not stop it.
    """
    if backend == "io_uring" and not uringio.probe().available:
        pytest.skip(uringio.probe().reason)
    path = tmp_path / "file"
    *chains, count = run_python(FINISHED_CHAIN, path, direct, backend).stdout.splitlines()
    rest = 64 * KIB - 12800 // 4096 * 4096  # from the last whole block: it is written again
    assert chains == [
        "FSYNC 0",
        f"WRITE FSYNC 12800 {-errno.ECANCELED}",
        f"WRITE FSYNC {rest} 0",
        "WRITE FSYNC 4096 0",
    ]
    assert count == "1"
    assert path.read_bytes() == b"h" * 4096 + b"x" * 64 * KIB
