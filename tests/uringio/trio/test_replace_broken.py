"""A ring that breaks in the middle of a replace, and what else one cannot get past."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from crc32c import crc32c

from uringio._ring.execute import execute
from uringio._trio import reactor as reactor_module
from uringio._trio.opening import OpenFile
from uringio._trio.pieces import Piece
from uringio._trio.reading_back import Reader
from uringio.exceptions import (
    BrokenError,
    OperationError,
    PendingReplaceError,
    UnavailableError,
)
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uringio._ring.ring import Completion

OLD = b"old" * 5000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def leaked() -> Iterator[None]:
    """What is kept for the life of the process, for this test."""
    yield
    reactor_module._leaked.clear()


class Breaking(SimulatedRing):
    """Tells no completion any more once a write to the file itself was done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = False
        super().__init__(1, perform=self.do)

    def do(self, operation: Operation) -> int:
        writes = operation.opcode in {Opcode.WRITE, Opcode.WRITE_FIXED}
        if writes and os.path.samestat(os.fstat(operation.fd), self.path.stat()):
            self.broken = True
        return execute(operation)

    def reap(self) -> list[Completion]:
        completions = super().reap()
        if self.broken:
            raise BrokenError("reap failed (test)")
        return completions


async def reopened(path: Path) -> bytes:
    async with run_ring(SimulatedRing(2), 4, 16 << 10) as ring, await ring.open(path, "r") as file:
        assert [found.outcome for found in file.recovered] == ["completed"]
        return await file.pread(len(OLD), 0)


@pytest.mark.usefixtures("leaked")
async def test_a_ring_that_breaks_under_the_write_leaves_the_journal_to_the_next_open(
    path: Path,
) -> None:
    """And the lock of the range to the descriptor's end: the write may still be on its way."""
    with pytest.warns(ResourceWarning, match="did not give"):
        async with (
            run_ring(Breaking(path), 4, 16 << 10) as ring,
            await ring.open(path, "r+") as file,
        ):
            with pytest.raises(PendingReplaceError):
                await file.replace(4096, b"n" * 4096)
            with pytest.raises(PendingReplaceError):
                await file.replace(0, b"x")
    assert await reopened(path) == OLD[:4096] + b"n" * 4096 + OLD[8192:]


@pytest.mark.usefixtures("leaked")
async def test_a_ring_that_breaks_behind_the_journal_leaves_it_to_the_next_open(path: Path) -> None:
    """With nothing in flight: the next operation is refused before it begins."""
    dir_fsyncs = 0

    def do(operation: Operation) -> int:
        nonlocal dir_fsyncs
        result = execute(operation)
        if operation.opcode is Opcode.FSYNC and os.path.isdir(f"/proc/self/fd/{operation.fd}"):
            dir_fsyncs += 1
            reactor._failure = BrokenError("it broke (test)")
        return result

    async with run_ring(SimulatedRing(1, perform=do), 4, 16 << 10) as ring:
        reactor = ring.reactor
        async with await ring.open(path, "r+") as file:
            with pytest.raises(PendingReplaceError, match="it broke") as info:
                await file.replace(4096, b"n" * 4096)
            assert (info.value.operation, info.value.path) == ("replace", str(path))
            assert dir_fsyncs == 1
        reactor._failure = None
    assert await reopened(path) == OLD[:4096] + b"n" * 4096 + OLD[8192:]


async def test_others_that_are_broken_off_again_and_again_are_not_ended_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uringio._trio.replacing.has_abandoned", lambda _: True)
    async with (
        run_ring(SimulatedRing(1), 4, 16 << 10) as ring,
        await ring.open(path, "r+") as file,
    ):
        with pytest.raises(OperationError, match="EBUSY"):
            await file.replace(0, b"new")
    assert path.read_bytes() == OLD


async def test_a_system_without_locks_that_outlive_a_kill_has_no_replace(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uringio._trio.replacing.F_OFD_SETLK", None)
    async with (
        run_ring(SimulatedRing(1), 4, 16 << 10) as ring,
        await ring.open(path, "r+") as file,
    ):
        with pytest.raises(UnavailableError, match="on Linux"):
            await file.replace(0, b"new")
    assert path.read_bytes() == OLD


async def test_what_goes_through_the_page_cache_is_read_back_too(path: Path) -> None:
    piece = Piece(100, 5000)
    with path.open("rb") as opened:
        file = OpenFile(opened.fileno(), str(path), direct=False, block_bytes=1, memory_bytes=1)
        async with run_ring(SimulatedRing(1), 4, 16 << 10) as ring:
            slot = await ring.slots.acquire()
            piece.fill(slot, memoryview(OLD[100:5100]))
            crc = crc32c(piece.memory(slot))
            reader = Reader(ring.reactor, file)
            await reader.compare(slot, piece, crc)
            with pytest.raises(OperationError, match="read back"):
                await reader.compare(slot, piece, crc ^ 1)
            ring.slots.release(slot)
