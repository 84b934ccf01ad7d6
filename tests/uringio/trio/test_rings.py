"""open_ring, run_ring and write_file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import uringio
from uringio.exceptions import ClosedError, TargetExistsError
from uringio.lowlevel import Opcode, Operation, run_ring, suggest
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable


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


async def test_a_pool_smaller_than_a_huge_page_does_not_blame_the_system() -> None:
    async with uringio.open_ring(4, 4096) as ring:
        (note,) = (note for note in ring.features.notes if "huge pages" in note)
        assert note == "the pool has no huge pages (it is smaller than one)"


@pytest.mark.parametrize(
    "options", [{"slots": 1}, {"slots": 2, "slot_bytes": 100}, {"entries": 3, "slots": 2}]
)
async def test_bad_sizes_are_refused_and_leave_nothing_open(
    count_descriptors: Callable[[], int], options: dict[str, int]
) -> None:
    before = count_descriptors()
    with pytest.raises(ValueError, match="must be"):
        async with uringio.open_ring(backend="auto", **options):  # type: ignore[arg-type]
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


async def test_sizes_are_chosen_for_a_directory_and_said(tmp_path: Path) -> None:
    async with uringio.open_ring(directory=tmp_path) as ring:
        features = ring.features
        assert f"slots of {features.slot_bytes} bytes suggested for" in features.sizes
        assert features.slot_bytes == suggest(tmp_path).slot_bytes
    async with uringio.open_ring(3, 8192, directory=tmp_path) as ring:
        assert (ring.features.slots, ring.features.slot_bytes) == (3, 8192)
    async with uringio.open_ring(2) as ring:
        assert (ring.features.slot_bytes, ring.features.sizes) == (1 << 20, "")


@pytest.mark.parametrize("backend", ["auto", "threads"])
@pytest.mark.parametrize("exponent", range(12, 25))
async def test_slots_of_every_size_from_4_kib_to_16_mib_work(
    tmp_path: Path, backend: str, exponent: int
) -> None:
    slot_bytes = 1 << exponent
    data = os.urandom(slot_bytes) * 3 + b"tail"
    async with uringio.open_ring(2, slot_bytes, backend=backend) as ring:  # type: ignore[arg-type]
        if ring.features.backend == "io_uring":
            assert ring.features.registered_slots == 2 or ring.features.notes
        async with ring.create(tmp_path / "file", len(data)) as writer:
            await writer.write(data)
            await writer.commit()
    assert (tmp_path / "file").read_bytes() == data


@pytest.fixture
def without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel that has none: nobody asks for them."""
    if "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this system gives huge pages to who does not ask")
    monkeypatch.delattr("mmap.MADV_HUGEPAGE")


async def test_a_pool_without_huge_pages_works_and_says_so(
    tmp_path: Path, without_huge_pages: None
) -> None:
    async with uringio.open_ring(4, 1 << 20) as ring:
        assert not ring.features.huge_pages
        assert any("no huge pages" in note for note in ring.features.notes)
        async with ring.create(tmp_path / "file") as writer:
            await writer.write(b"x" * (3 << 20))
            await writer.commit()
    assert (tmp_path / "file").read_bytes() == b"x" * (3 << 20)


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
