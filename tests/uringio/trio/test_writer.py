"""BulkWriter: sizes, positions, errors, and what is left when it goes wrong."""
# A test may block on a small file; an `async with` that raises is more than one statement.

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import uringio
from tests.lacking import need_root
from uringio.exceptions import (
    AccessError,
    ClosedError,
    IncompleteError,
    NoSpaceError,
    OperationError,
    TargetExistsError,
    TargetMissingError,
)
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.conftest import RunPython
    from tests.uringio.conftest import OpenAny

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]

SLOT = 16 << 10
SIZES = [0, 1, 511, 4096, 4097, SLOT - 1, SLOT, SLOT + 1, 9 * SLOT, 9 * SLOT + 5000]


def content(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1) if size else b""


def data_of(size: int) -> bytes:
    return content(size)[:size]


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory / "big.bin"


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("size", SIZES)
async def test_every_size_is_written_whole(
    open_any: OpenAny, target: Path, size: int, *, declared: bool
) -> None:
    data = data_of(size)
    async with open_any() as ring:
        async with ring.create(target, size if declared else None) as writer:
            await writer.write(data)
            assert names(target.parent) != ["big.bin"], "not visible before its commit"
            receipt = await writer.commit()
        assert target.read_bytes() == data
    assert names(target.parent) == ["big.bin"]
    assert (receipt.size, receipt.path, receipt.durability) == (size, str(target), "published")
    assert receipt.backend == ring.features.backend
    assert (writer.accepted, writer.written, writer.durable) == (size, size, size)
    assert receipt.short_writes == 0


async def test_no_block_stays_reserved_beyond_the_size(open_real: OpenAny, target: Path) -> None:
    async with open_real() as ring, ring.create(target) as writer:
        await writer.write(data_of(9 * SLOT + 1))
        receipt = await writer.commit()
    assert receipt.preallocated
    assert target.stat().st_blocks * 512 < 9 * SLOT + 64 * 1024


async def test_slots_are_filled_without_a_copy(open_any: OpenAny, target: Path) -> None:
    data = data_of(7 * SLOT + 123)
    async with open_any() as ring, ring.create(target) as writer:
        done = 0
        while done < len(data):
            async with writer.slot() as slot:
                slot.length = min(len(slot.view), 5000, len(data) - done)
                slot.view[: slot.length] = data[done : done + slot.length]
                done += slot.length
            assert writer.accepted == done
        receipt = await writer.commit()
        assert receipt.registered == (ring.features.registered_slots > 0)
    assert target.read_bytes() == data


async def test_a_slot_left_by_an_exception_accepts_nothing(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        await writer.write(b"before")
        with pytest.raises(KeyError):
            async with writer.slot() as slot:
                slot.view[:7] = b"nothing"
                slot.length = 7
                raise KeyError
        assert writer.accepted == 6
        await writer.write(b", after")
        await writer.commit()
    assert target.read_bytes() == b"before, after"


@pytest.mark.parametrize("length", [-1, SLOT + 1])
async def test_a_slot_length_out_of_bounds_is_refused(
    open_any: OpenAny, target: Path, length: int
) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        with pytest.raises(ValueError, match=r"slot\.length must be 0 to"):
            async with writer.slot() as slot:
                slot.length = length
        assert writer.accepted == 0
        await writer.commit()
    assert target.read_bytes() == b""


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: array.array("B", data),
        lambda data: memoryview(data).cast("B", (10, 1000)),
    ],
    ids=["bytes", "bytearray", "memoryview", "array", "matrix"],
)
async def test_anything_bytes_like_is_written(
    open_real: OpenAny, target: Path, make: Callable[[bytes], bytes]
) -> None:
    data = data_of(10_000)
    async with open_real() as ring, ring.create(target) as writer:
        await writer.write(make(data))
        await writer.commit()
    assert target.read_bytes() == data


async def test_words_and_mappings_are_written_as_their_bytes(
    open_real: OpenAny, target: Path
) -> None:
    words = array.array("I", range(5000))
    with mmap.mmap(-1, 8192) as mapping:
        mapping[:5] = b"hello"
        async with open_real() as ring, ring.create(target) as writer:
            await writer.write(words)
            await writer.write(mapping)
            await writer.write(array.array("I"))
            await writer.commit()
        assert target.read_bytes() == words.tobytes() + mapping[:]


async def test_memory_that_is_not_contiguous_or_no_bytes_is_refused(
    open_real: OpenAny, target: Path
) -> None:
    async with open_real() as ring, ring.create(target) as writer:
        with pytest.raises(TypeError):
            await writer.write(memoryview(bytes(100))[::2])
        with pytest.raises(TypeError):
            await writer.write("text")  # type: ignore[arg-type]
        await writer.write(b"good")
        await writer.commit()
    assert target.read_bytes() == b"good"


async def test_the_data_may_change_once_write_has_returned(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        data = bytearray(3 * SLOT + 7)
        for value in range(1, 6):
            data[:] = bytes([value]) * len(data)
            await writer.write(data)
        data[:] = bytes(len(data))
        await writer.commit()
    assert target.read_bytes() == b"".join(bytes([v]) * (3 * SLOT + 7) for v in range(1, 6))


async def test_positions_follow_one_another(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        for size in (100, SLOT, 3 * SLOT - 1, 5000):
            before = writer.accepted
            await writer.write(data_of(size))
            assert writer.accepted == before + size
            assert writer.accepted >= writer.written >= writer.durable
        durable = writer.durable
        await writer.flush()
        assert writer.accepted == writer.written > writer.durable == durable == 0
        await writer.sync()
        assert writer.accepted == writer.written == writer.durable
        await writer.write(b"more")
        assert writer.accepted > writer.written == writer.durable
        receipt = await writer.commit(durability="written")
        assert receipt.durability == "written"
        assert writer.durable == writer.accepted - 4, "nothing was made durable by this commit"


async def test_what_is_flushed_in_mid_slot_can_be_read_and_the_slot_goes_on(
    open_any: OpenAny, target: Path
) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        (temporary,) = target.parent.iterdir()
        expected = b""
        for i in range(12):
            expected += bytes([i + 1]) * 3001
            await writer.write(bytes([i + 1]) * 3001)
            await writer.flush()
            assert temporary.read_bytes()[: len(expected)] == expected
        await writer.commit()
    assert target.read_bytes() == expected


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3 * SLOT)),
        st.tuples(st.just("write"), st.integers(0, 600)),
        st.tuples(st.just("slot"), st.integers(0, 5000)),
        st.tuples(st.sampled_from(["flush", "sync"]), st.just(0)),
    ),
    max_size=12,
)


@given(steps=STEPS, seed=st.integers(0, 1000), direct=st.booleans(), short=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_calls_gives_the_bytes_a_bytearray_would_have(
    *, steps: list[tuple[str, int]], seed: int, direct: bool, short: bool
) -> None:
    expected = bytearray()
    # Shorter than a block would be no progress for a direct write; so it is a block at the least.
    fault = Fault(Opcode.WRITE, short=8192, probability=0.3)
    raw = SimulatedRing(seed, faults=[fault] if short else [])

    async def run(path: str) -> None:
        async with run_ring(raw, 3, SLOT) as ring:
            mode = "auto" if direct else "never"
            async with ring.create(path, direct=mode) as writer:  # type: ignore[arg-type]
                for i, (call, length) in enumerate(steps):
                    piece = bytes([i + 1]) * length
                    if call == "write":
                        await writer.write(piece)
                        expected.extend(piece)
                    elif call == "slot":
                        async with writer.slot() as slot:
                            slot.length = min(length, len(slot.view))
                            slot.view[: slot.length] = piece[: slot.length]
                            expected.extend(piece[: slot.length])
                    elif call == "flush":
                        await writer.flush()
                    else:
                        await writer.sync()
                    assert len(expected) == writer.accepted >= writer.written >= writer.durable
                receipt = await writer.commit()
                assert receipt.size == len(expected)

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "file")
        trio.run(run, path)
        assert Path(path).read_bytes() == expected
        assert os.listdir(directory) == ["file"]


async def test_more_than_the_declared_size_is_refused_and_nothing_of_it_accepted(
    open_any: OpenAny, target: Path
) -> None:
    async with open_any() as ring, ring.create(target, 10) as writer:
        await writer.write(b"123456")
        with pytest.raises(IncompleteError, match="10 bytes were declared"):
            await writer.write(b"78901")
        with pytest.raises(IncompleteError):
            async with writer.slot() as slot:
                slot.length = 5
        assert writer.accepted == 6
        await writer.write(b"7890")
        await writer.commit()
    assert target.read_bytes() == b"1234567890"


async def test_less_than_the_declared_size_is_not_committed_and_can_go_on(
    open_any: OpenAny, target: Path
) -> None:
    async with open_any() as ring, ring.create(target, 3 * SLOT) as writer:
        await writer.write(data_of(2 * SLOT))
        with pytest.raises(IncompleteError, match=f"{2 * SLOT} written"):
            await writer.commit()
        await writer.write(data_of(3 * SLOT)[2 * SLOT :])
        await writer.commit()
    assert target.read_bytes() == data_of(3 * SLOT)


async def test_a_negative_size_and_a_path_without_a_name_are_refused(
    open_real: OpenAny, target: Path
) -> None:
    async with open_real() as ring:
        with pytest.raises(ValueError, match="size is 0 or more"):
            await enter(ring, target, size=-1)
        with pytest.raises(ValueError, match="names no file"):
            await enter(ring, f"{target.parent}/")
        with pytest.raises(ValueError, match="null"):
            await enter(ring, f"{target}\0more", overwrite=True)
        with pytest.raises(ValueError, match="durability must be one of"):
            async with ring.create(target) as writer:
                await writer.commit(durability="sure")  # type: ignore[arg-type]
    assert names(target.parent) == []


async def enter(ring: uringio.Ring, path: str | Path, **options: object) -> None:
    async with ring.create(path, **options):  # type: ignore[arg-type]
        pytest.fail("it was created")


async def test_an_existing_name_is_refused_at_once(open_any: OpenAny, target: Path) -> None:
    target.write_bytes(b"old")
    async with open_any() as ring:
        with pytest.raises(FileExistsError) as caught:
            await enter(ring, target)
    assert isinstance(caught.value, TargetExistsError)
    assert "overwrite=True" in str(caught.value)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["big.bin"]


async def test_a_dangling_link_is_an_existing_name_too(open_real: OpenAny, target: Path) -> None:
    target.symlink_to("nowhere")
    async with open_real() as ring:
        with pytest.raises(TargetExistsError):
            await enter(ring, target)


async def test_a_name_taken_meanwhile_is_refused_at_commit(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring:
        with pytest.raises(TargetExistsError) as caught:
            async with ring.create(target) as writer:
                await writer.write(b"new")
                target.write_bytes(b"old")
                await writer.commit()
    assert caught.value.operation == "rename"
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["big.bin"]


async def test_overwrite_replaces_the_old_file_at_commit_and_not_before(
    open_any: OpenAny, target: Path
) -> None:
    target.write_bytes(b"old")
    async with open_any() as ring:
        async with ring.create(target, overwrite=True) as writer:
            await writer.write(data_of(2 * SLOT))
            await writer.sync()
            assert target.read_bytes() == b"old"
            await writer.commit()
        assert target.read_bytes() == data_of(2 * SLOT)
        async with ring.create(target, overwrite=True) as writer:
            await writer.write(b"aborted")
    assert target.read_bytes() == data_of(2 * SLOT)
    assert names(target.parent) == ["big.bin"]


async def test_leaving_without_commit_leaves_nothing(
    open_any: OpenAny, target: Path, count_descriptors: Callable[[], int]
) -> None:
    async with open_any() as ring:
        before = count_descriptors()
        async with ring.create(target, 20 * SLOT) as writer:
            await writer.write(data_of(5 * SLOT + 3))
        assert names(target.parent) == []
        assert count_descriptors() == before
        with pytest.raises(RuntimeError):
            async with ring.create(target) as writer:
                await writer.write(data_of(5 * SLOT + 3))
                raise RuntimeError
        assert names(target.parent) == []
        assert count_descriptors() == before


async def test_after_commit_or_abort_the_writer_is_closed(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring:
        async with ring.create(target) as writer:
            await writer.commit()
            for call in (writer.flush, writer.sync, writer.commit):
                with pytest.raises(ClosedError):
                    await call()
            await writer.abort()
            assert target.exists(), "abort after commit does nothing"
        async with ring.create(target, overwrite=True) as writer:
            await writer.abort()
            await writer.abort()
            with pytest.raises(ClosedError):
                await writer.write(b"late")


async def test_two_tasks_cannot_use_one_writer_at_once(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring, ring.create(target) as writer:
        async with writer.slot() as slot:
            for call in (writer.flush, writer.sync, writer.commit):
                with pytest.raises(trio.BusyResourceError):
                    await call()
            with pytest.raises(trio.BusyResourceError):
                await writer.write(b"x")
            slot.length = 1
        await writer.commit()
    assert target.read_bytes() == b"\0"


async def test_a_writer_in_use_cannot_be_aborted_under_its_user(
    open_any: OpenAny, target: Path
) -> None:
    """The user would go on in a slot and on a descriptor that are somebody else's by then."""
    async with open_any() as ring:
        async with ring.create(target) as writer:
            async with writer.slot() as slot:
                with pytest.raises(trio.BusyResourceError):
                    await writer.abort()
                slot.length = 1
            async with trio.open_nursery() as nursery:
                await writer.write(data_of(3 * SLOT))
                nursery.start_soon(flush_or_busy, writer)
                nursery.start_soon(flush_or_busy, writer)
            await writer.commit()
        assert target.stat().st_size == 3 * SLOT + 1


async def flush_or_busy(writer: uringio.BulkWriter) -> None:
    with contextlib.suppress(trio.BusyResourceError):
        await writer.flush()


async def test_two_aborts_at_once_close_the_descriptors_once(
    open_simulated: OpenRaw, target: Path
) -> None:
    raw = SimulatedRing(3)

    async def abort(writer: uringio.BulkWriter) -> None:
        with contextlib.suppress(trio.BusyResourceError):
            await writer.abort()

    async with open_simulated(raw) as ring, ring.create(target) as writer:
        await writer.write(data_of(5 * SLOT))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(abort, writer)
            nursery.start_soon(abort, writer)
    closed = [result for operation, result in raw.history if operation.opcode is Opcode.CLOSE]
    assert closed == [0, 0]
    assert names(target.parent) == []


async def test_many_writers_share_few_slots(open_any: OpenAny, target: Path) -> None:
    async def write(ring: uringio.Ring, number: int) -> None:
        async with ring.create(target.with_name(str(number))) as writer:
            await writer.write(bytes([number]) * (3 * SLOT + number))
            await writer.commit()

    async with open_any(slots=3) as ring:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(write, ring, number)
    for number in range(3):
        expected = bytes([number]) * (3 * SLOT + number)
        assert target.with_name(str(number)).read_bytes() == expected


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EINTR])
@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_the_first_error_wins_and_is_repeated(
    open_simulated: OpenRaw, target: Path, number: int, seed: int
) -> None:
    raw = SimulatedRing(seed, faults=[Fault(Opcode.WRITE, 3, result=-number)])
    async with open_simulated(raw) as ring, ring.create(target) as writer:
        errors = []
        for call in (writer.flush, writer.sync, writer.commit):
            with pytest.raises(OperationError) as caught:
                await writer.write(data_of(8 * SLOT))
                await call()
            errors.append(caught.value)
        writes = sum(operation.opcode is Opcode.WRITE_FIXED for operation, _ in raw.history)
    first = errors[0]
    assert (first.errno, first.operation, first.path) == (number, "write", str(target))
    assert first.offset is not None
    assert first.offset % SLOT == 0
    assert first.length == SLOT
    assert isinstance(first, NoSpaceError) == (number == errno.ENOSPC)
    assert len({id(error) for error in errors}) == 3, "one instance is raised once"
    assert {str(error) for error in errors} == {str(first)}
    assert writes <= 8, "no new writes behind an error"
    assert not any(operation.opcode is Opcode.RENAMEAT for operation, _ in raw.history)
    assert names(target.parent) == []


@pytest.mark.parametrize(
    ("direct", "short"),
    [("never", 1), ("never", 5000), ("auto", 5000), ("auto", 8192)],  # direct: a block or more
)
async def test_short_writes_are_continued_and_counted(
    open_simulated: OpenRaw, target: Path, short: int, direct: str
) -> None:
    faults = [Fault(Opcode.WRITE, nth, short=short) for nth in (1, 2, 4)]
    raw = SimulatedRing(5, faults=faults)
    data = data_of(6 * SLOT + 100)
    async with (
        open_simulated(raw) as ring,
        ring.create(target, direct=direct) as writer,  # type: ignore[arg-type]
    ):
        await writer.write(data)
        await writer.flush()
        receipt = await writer.commit()
    assert target.read_bytes() == data
    shorts = sum(0 < result < operation.length for operation, result in raw.history)
    assert receipt.short_writes == shorts >= 2


@pytest.mark.parametrize("seed", range(4))
async def test_a_short_tail_in_the_publish_chain_is_continued(
    open_simulated: OpenRaw, target: Path, seed: int
) -> None:
    raw = SimulatedRing(seed, faults=[Fault(Opcode.WRITE, 1, short=4096)])
    async with open_simulated(raw) as ring, ring.create(target) as writer:
        await writer.write(data_of(9000))
        await writer.commit()
    assert target.read_bytes() == data_of(9000)


@pytest.mark.parametrize("call", ["sync", "commit"])
async def test_an_fsync_that_fails_breaks_the_writer_and_is_asked_once(
    open_simulated: OpenRaw, target: Path, call: str
) -> None:
    raw = SimulatedRing(1, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    async with open_simulated(raw) as ring, ring.create(target) as writer:
        await writer.write(data_of(3 * SLOT + 5))
        for _ in range(3):
            with pytest.raises(OperationError, match="fsync of") as caught:
                await getattr(writer, call)()
            assert caught.value.errno == errno.EIO
        with pytest.raises(OperationError, match="fsync of"):
            await writer.write(b"more")
        assert writer.durable == 0
    asked = [result for operation, result in raw.history if operation.opcode is Opcode.FSYNC]
    assert [result for result in asked if result != -errno.ECANCELED] == [-errno.EIO]
    assert not any(
        operation.opcode is Opcode.RENAMEAT and result == 0 for operation, result in raw.history
    )
    assert names(target.parent) == []


async def test_a_directory_that_is_not_there_and_one_that_is_none(
    open_any: OpenAny, target: Path
) -> None:
    async with open_any() as ring:
        with pytest.raises(TargetMissingError) as caught:
            await enter(ring, target.parent / "none" / "file")
        assert isinstance(caught.value, FileNotFoundError)
        target.write_bytes(b"")
        with pytest.raises(OperationError) as other:
            await enter(ring, target / "file")
        assert other.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_name_that_is_too_long_is_refused_before_anything_is_written(
    open_any: OpenAny, target: Path, *, overwrite: bool
) -> None:
    async with open_any() as ring:
        with pytest.raises(OperationError) as caught:
            await enter(ring, target.parent / ("n" * 256), overwrite=overwrite)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert names(target.parent) == []


async def test_a_name_of_255_bytes_is_written(open_any: OpenAny, target: Path) -> None:
    async with open_any() as ring, ring.create(target.parent / ("n" * 255)) as writer:
        await writer.commit()
    assert names(target.parent) == ["n" * 255]


def test_a_directory_without_permission_is_named(run_python: RunPython, target: Path) -> None:
    need_root("taking the capability to write anywhere away")
    code = """
import sys, trio, uringio
async def main():
    for backend in ("auto", "threads"):
        async with uringio.open_ring(slots=2, backend=backend) as ring:
            try:
                async with ring.create(sys.argv[1] + "/new"):
                    raise AssertionError
            except PermissionError as exc:
                assert isinstance(exc, uringio.AccessError) and "EACCES" in str(exc), exc
trio.run(main)
"""
    target.parent.chmod(0o555)
    caps = "-dac_override,-dac_read_search"
    prefix = ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}")
    run_python(code, target.parent, prefix=prefix)
    assert names(target.parent) == []
    assert AccessError.__bases__ == (OperationError, PermissionError)


LIMITED = """
import errno, os, resource, signal, sys, trio, uringio
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
async def main():
    for direct in ("auto", "never"):
        for size in (None, 3 << 20):
            async with uringio.open_ring(slots=4, slot_bytes=65536, backend=sys.argv[2]) as ring:
                try:
                    async with ring.create(sys.argv[1], size, direct=direct) as writer:
                        await writer.write(bytes(3 << 20))
                        await writer.commit()
                        raise AssertionError
                except uringio.NoSpaceError as exc:
                    assert exc.errno == errno.EFBIG and "ulimit -f" in str(exc), exc
                assert ring.statistics().free_slots == 4
                assert os.listdir(os.path.dirname(sys.argv[1])) == []
        async with uringio.open_ring(slots=4, slot_bytes=65536, backend=sys.argv[2]) as ring:
            async with ring.create(sys.argv[1], direct=direct) as writer:
                await writer.write(bytes(1 << 20))
                await writer.commit()
        assert os.stat(sys.argv[1]).st_size == 1 << 20
        os.unlink(sys.argv[1])
trio.run(main)
"""


@pytest.mark.parametrize("backend", ["auto", "threads"])
def test_a_file_size_limit_is_a_full_disk_and_leaves_nothing(
    run_python: RunPython, target: Path, backend: str
) -> None:
    run_python(LIMITED, target, backend)


@pytest.mark.root
@pytest.mark.parametrize("direct", ["auto", "never"])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("file_system", [("ext4", 16)], indirect=True, ids=["ext4"])
async def test_a_full_disk_leaves_nothing(
    open_real: OpenAny, file_system: Path, direct: str, *, declared: bool
) -> None:
    into, before, size = file_system, names(file_system), 40 << 20
    async with open_real(slot_bytes=1 << 20) as ring:
        with pytest.raises(NoSpaceError) as caught:
            async with ring.create(
                into / "big",
                size if declared else None,
                direct=direct,  # type: ignore[arg-type]
            ) as writer:
                assert not declared, "known before the first write"
                for _ in range(40):
                    await writer.write(bytes(1 << 20))
                await writer.commit()
        assert caught.value.errno == errno.ENOSPC
        assert "free space" in str(caught.value)
        assert names(into) == before
        async with ring.create(into / "small") as writer:
            await writer.write(b"there is room again")
            await writer.commit()
    assert (into / "small").read_bytes() == b"there is room again"


@pytest.mark.root
@pytest.mark.parametrize(
    ("file_system", "direct"),
    [(("ext4", 32), True), (("xfs", 320), True), (("btrfs", 128), False)],
    indirect=["file_system"],
    ids=["ext4", "xfs", "btrfs-which-copies-through-the-page-cache"],
)
async def test_every_file_system_gets_the_same_bytes(
    open_real: OpenAny, file_system: Path, *, direct: bool
) -> None:
    into, before = file_system, names(file_system)
    async with open_real() as ring:
        for size in SIZES:
            for declared in (None, size):
                path = into / "file"
                async with ring.create(path, declared, overwrite=True) as writer:
                    await writer.write(data_of(size))
                    await writer.flush()
                    receipt = await writer.commit()
                assert path.read_bytes() == data_of(size)
                assert receipt.direct == direct
        async with ring.create(into / "aborted") as writer:
            await writer.write(data_of(5 * SLOT))
        with pytest.raises(TargetExistsError):
            async with ring.create(into / "late") as writer:
                (into / "late").write_bytes(b"old")
                await writer.commit()
    assert names(into) == sorted([*before, "file", "late"])


@pytest.mark.parametrize("size", SIZES)
async def test_tmpfs_gets_the_same_bytes(
    open_real: OpenAny, shared_memory: Path, size: int
) -> None:
    async with open_real() as ring, ring.create(shared_memory / "file") as writer:
        await writer.write(data_of(size))
        receipt = await writer.commit()
    assert (shared_memory / "file").read_bytes() == data_of(size)
    assert not receipt.direct


async def test_a_file_gets_its_mode_less_the_umask(open_any: OpenAny, target: Path) -> None:
    before = os.umask(0o027)
    try:
        async with open_any() as ring, ring.create(target) as writer:
            await writer.commit()
        assert target.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


async def test_a_relative_path_is_taken_from_the_working_directory(
    open_any: OpenAny, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(target.parent)
    async with open_any() as ring, ring.create("big.bin") as writer:
        await writer.write(b"here")
        await writer.commit()
    assert target.read_bytes() == b"here"
