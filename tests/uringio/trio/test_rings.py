"""open_ring, run_ring and write_file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

import uringio
from uringio.exceptions import ClosedError, TargetExistsError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("backend", ["auto", "threads"])
async def test_a_ring_says_what_it_is_made_of(backend: str) -> None:
    async with uringio.open_ring(4, 65536, backend=backend) as ring:  # type: ignore[arg-type]
        features = ring.features
        assert (features.slots, features.slot_bytes) == (4, 65536)
        assert features.backend in {"io_uring", "threads"}
        if features.backend == "threads":
            assert features.registered_slots == 0
        assert features.huge_pages == ring.slots.pool.has_huge_pages()
        assert features.huge_pages != any("no huge pages" in note for note in features.notes)


@pytest.mark.parametrize(
    "options", [{"slots": 1}, {"slots": 2, "slot_bytes": 100}, {"entries": 3, "slots": 2}]
)
async def test_bad_sizes_are_refused_and_leave_nothing_open(
    count_descriptors: Callable[[], int], options: dict[str, int]
) -> None:
    before = count_descriptors()
    with pytest.raises(ValueError, match="must be"):
        async with uringio.open_ring(backend="auto", **options):
            pytest.fail("it was opened")
    assert count_descriptors() == before


async def test_a_ring_is_closed_whatever_happened_inside(
    count_descriptors: Callable[[], int],
) -> None:
    async with uringio.open_ring(2):
        pass
    before = count_descriptors()
    with pytest.raises(KeyError):
        async with uringio.open_ring(2) as ring:
            raise KeyError
    with trio.CancelScope() as scope:
        async with uringio.open_ring(2) as ring:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert count_descriptors() == before
    with pytest.raises(ClosedError):
        await ring.reactor.perform(Operation(Opcode.NOP))


async def test_a_ring_made_before_is_closed_too() -> None:
    raw = SimulatedRing()
    async with run_ring(raw, 2, 4096):
        pass
    with pytest.raises(ClosedError):
        raw.submit()
    refused = SimulatedRing()
    with pytest.raises(ValueError, match="slots must be"):
        async with run_ring(refused, 1, 4096):
            pytest.fail("it was opened")
    with pytest.raises(ClosedError):
        refused.submit()


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
async def test_write_file_writes_durably_in_one_line(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    receipt = await uringio.write_file(path, b"x" * size)
    assert path.read_bytes() == b"x" * size
    assert (receipt.size, receipt.durability) == (size, "published")
    with pytest.raises(TargetExistsError):
        await uringio.write_file(path, b"new")
    await uringio.write_file(path, memoryview(b"new"), overwrite=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]
