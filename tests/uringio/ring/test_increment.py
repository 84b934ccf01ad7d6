"""Increments: alignment, huge pages, fork, memory that is not there."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

from uringio._ring.increment import huge_bytes_at
from uringio.lowlevel import Increment

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
    increment = Increment(5, 3, 8192)
    start = increment.address
    addresses = [address_of(slot.memory) for slot in increment.slots]
    assert addresses == [start, start + 8192, start + 16384]
    assert start % (2 << 20) == 0
    assert [len(slot.memory) for slot in increment.slots] == [8192] * 3
    assert [slot.index for slot in increment.slots] == [5, 6, 7]
    assert increment.size == 3 * 8192


def test_huge_pages_are_reported_as_smaps_has_them() -> None:
    increment = Increment(0, 4, 1 << 20)
    smaps = Path("/proc/self/smaps").read_text()
    found = re.search(
        rf"^{increment.address:x}-.*?^AnonHugePages:\s*(\d+) kB",
        smaps,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, "madvise cuts the mapping at the increment's start"
    assert increment.has_huge_pages() == (int(found[1]) > 0)
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if enabled.exists() and "[never]" in enabled.read_text():
        assert not increment.has_huge_pages()


def test_huge_bytes_are_read_for_the_mapping_that_holds_the_address() -> None:
    assert huge_bytes_at(SMAPS, 0x7F00_0010_0000) == 2 << 20
    assert huge_bytes_at(SMAPS, 0x7F00_0040_0000) == 0
    assert huge_bytes_at(SMAPS, 0x7F00_0060_0000) == 0
    assert huge_bytes_at("", 0) == 0


def test_a_forked_child_does_not_have_the_pool(run_python: RunPython) -> None:
    """Touching it there is a segmentation fault, which is why it is done in a child of a child."""
    code = """
import os, re, signal
from pathlib import Path
from uringio.lowlevel import Increment
increment = Increment(0, 2, 2 << 20)
child = os.fork()
if child == 0:
    mapped = [line.split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    held = any(int(a, 16) <= increment.address < int(b.split()[0], 16) for a, b, *_ in mapped)
    os._exit(1 if held else 0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
increment.slots[0].memory[:2] = b"ok"
"""
    run_python(code)


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
