"""The pool: alignment, bounds, slots taken and given, huge pages, fork, close."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uringio._ring import pool as module
from uringio.lowlevel import BufferPool, default_slots

if TYPE_CHECKING:
    from tests.conftest import RunPython

SMAPS = """\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac sd hg dc
7f0000400000-7f0000600000 rw-p 00000000 00:00 0
AnonHugePages:         0 kB
"""


def address_of(memory: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_slots_lie_side_by_side_on_a_huge_page_boundary() -> None:
    pool = BufferPool(3, 8192)
    addresses = [address_of(slot.memory) for slot in pool.slots]
    assert addresses == [pool.address, pool.address + 8192, pool.address + 16384]
    assert pool.address % (2 << 20) == 0
    assert [len(slot.memory) for slot in pool.slots] == [8192] * 3
    assert pool.size == 3 * 8192


def test_fresh_memory_is_zero_and_writable() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    assert slot.view == bytes(4096)
    slot.view[:3] = b"abc"
    assert bytes(slot.memory[:4]) == b"abc\0"


@pytest.mark.parametrize("count", [-1, 0, 1, 16_385])
def test_a_number_of_slots_out_of_bounds_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="slots must be 2 to 16384"):
        BufferPool(count, 4096)


@pytest.mark.parametrize("slot_bytes", [0, 2048, 4097, 6144, (16 << 20) + 4096])
def test_a_slot_size_that_is_no_page_multiple_or_out_of_bounds_is_refused(slot_bytes: int) -> None:
    with pytest.raises(ValueError, match="slot_bytes must be a multiple of 4096"):
        BufferPool(2, slot_bytes)


def test_every_slot_is_given_out_once_and_then_none() -> None:
    pool = BufferPool(3, 4096)
    taken = [pool.take() for _ in range(3)]
    assert len({slot.index for slot in taken if slot is not None}) == 3
    assert pool.take() is None


def test_a_slot_comes_back_whole() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    slot.view, slot.length = slot.memory[100:], 7
    pool.give(slot)
    again = pool.take()
    assert again is slot
    assert (len(again.view), again.length) == (4096, 0)


def test_giving_a_slot_twice_is_caught() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    pool.give(slot)
    with pytest.raises(AssertionError, match="twice"):
        pool.give(slot)


def test_close_unmaps() -> None:
    pool = BufferPool(2, 4096)
    address = pool.address
    assert is_mapped(address)
    pool.close()
    assert not is_mapped(address)


def test_close_leaves_a_view_that_somebody_kept_readable() -> None:
    pool = BufferPool(2, 4096)
    kept = pool.slots[0].memory[:5]
    kept[:] = b"still"
    pool.close()
    assert bytes(kept) == b"still"
    assert pool.take() is None


def test_a_slot_that_somebody_kept_is_empty_after_close() -> None:
    pool = BufferPool(2, 4096)
    slot = pool.take()
    assert slot is not None
    pool.close()
    assert len(slot.view) == len(slot.memory) == 0


def test_huge_pages_are_reported_as_smaps_has_them() -> None:
    pool = BufferPool(4, 1 << 20)
    smaps = Path("/proc/self/smaps").read_text()
    found = re.search(
        rf"^{pool.address:x}-.*?^AnonHugePages:\s*(\d+) kB", smaps, re.MULTILINE | re.DOTALL
    )
    assert found is not None, "madvise cuts the mapping at the pool's start"
    assert pool.has_huge_pages() == (int(found[1]) > 0)
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if enabled.exists() and "[never]" in enabled.read_text():
        assert not pool.has_huge_pages()


def test_huge_bytes_are_read_for_the_mapping_that_holds_the_address() -> None:
    assert module.huge_bytes_at(SMAPS, 0x7F00_0010_0000) == 2 << 20
    assert module.huge_bytes_at(SMAPS, 0x7F00_0040_0000) == 0
    assert module.huge_bytes_at(SMAPS, 0x7F00_0060_0000) == 0
    assert module.huge_bytes_at("", 0) == 0


def test_a_forked_child_does_not_have_the_pool(run_python: RunPython) -> None:
    """Touching it there is a segmentation fault, which is why it is done in a child of a child."""
    code = """
import os, re, signal
from pathlib import Path
from uringio.lowlevel import BufferPool
pool = BufferPool(2, 2 << 20)
child = os.fork()
if child == 0:
    mapped = [line.split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    held = any(int(a, 16) <= pool.address < int(b.split()[0], 16) for a, b, *_ in mapped)
    os._exit(1 if held else 0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
pool.slots[0].memory[:2] = b"ok"
"""
    run_python(code)


def test_by_default_as_many_slots_as_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, slots in ((None, 16), (0, 2), (3 << 20, 2), (1 << 40, 16)):
        monkeypatch.setattr(module, "memlock_limit", lambda limit=limit: limit)
        assert default_slots(1 << 20) == slots


def test_more_memory_than_there_is_becomes_an_error_with_the_mend(run_python: RunPython) -> None:
    code = """
import resource
from uringio import UringioError
from uringio.lowlevel import BufferPool
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    BufferPool(16384, 16 << 20)
except UringioError as exc:
    assert "fewer or smaller slots" in str(exc)
else:
    raise AssertionError
"""
    run_python(code)


def is_mapped(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return True
    return False
