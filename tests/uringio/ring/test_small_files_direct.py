"""Long small files, written straight from memory that begins at a page: the C steps on real files.

strace lets single writes fail. The group makes no other pwrite64, and with no other flags.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from uringio import _binding
from uringio._ring.small_files import DIRECT_BYTES_MIN, CompiledGroup, SmallFile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunPython

pytestmark = pytest.mark.skipif(_binding.lib is None, reason="needs the extension")

BLOCK = 4096
LONG = DIRECT_BYTES_MIN + 3 * BLOCK

GROUP = """
import mmap, os, sys
from uringio._ring import small_files
length = int(sys.argv[1])
memory = mmap.mmap(-1, length)
memory[:] = bytes(range(256)) * (length // 256) + bytes(length % 256)
for name in ("spool", "target"):
    os.makedirs(name, exist_ok=True)
spool_fd, target_fd = os.open("spool", os.O_RDONLY), os.open("target", os.O_RDONLY)
files = [small_files.SmallFile(memory, target_fd, name, True) for name in (b"a", b"b")]
group = small_files.CompiledGroup(spool_fd, "test-", 0)
group.write(files, sync=False)
group.rename(files)
group.close(files)
assert os.listdir("spool") == []
for file in files:
    if not file.result:
        with open(b"target/" + file.name, "rb") as there:
            assert there.read() == memory[:], file.name
named = [file.name.decode() for file in files if not file.result]
print(*named, *(f"{file.failed_at}{file.result}" for file in files))
"""
GOOD = "a b 0 0"


def aligned(data: bytes, skip: int = 0) -> memoryview:
    """Return memory with `data`, `skip` bytes behind the begin of a page."""
    memory = memoryview(mmap.mmap(-1, skip + len(data)))[skip:]
    memory[:] = data
    return memory


def publish(folder: Path, files: list[memoryview]) -> list[SmallFile]:
    """Publish a group below `folder`, with nothing but its own steps."""
    fd = os.open(folder, os.O_RDONLY)
    group = CompiledGroup(fd, "test-", 0)
    names = [f"f{number}".encode() for number in range(len(files))]
    made = [
        SmallFile(data, fd, name, replace=False) for data, name in zip(files, names, strict=True)
    ]
    group.write(made, sync=False)
    assert group.barrier() == 0
    group.rename(made)
    group.close(made)
    os.close(fd)
    return made


@pytest.mark.parametrize("length", [DIRECT_BYTES_MIN, LONG, LONG + 1, LONG + BLOCK - 1, 1 << 20])
@pytest.mark.parametrize("skip", [0, 1, 512])
def test_a_long_file_is_whole_wherever_its_memory_begins(
    tmp_path: Path, length: int, skip: int
) -> None:
    data = os.urandom(length)
    [file] = publish(tmp_path, [aligned(data, skip)])
    assert file.result == 0
    assert (tmp_path / "f0").read_bytes() == data


def test_files_of_both_ways_go_in_one_group(tmp_path: Path) -> None:
    parts = [os.urandom(length) for length in (LONG, 5, 0, DIRECT_BYTES_MIN - 1, LONG + 7)]
    files = publish(tmp_path, [aligned(part, not part) for part in parts])
    assert [file.result for file in files] == [0] * len(parts)
    assert [(tmp_path / f"f{n}").read_bytes() for n in range(len(parts))] == parts


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(LONG, LONG // BLOCK), (DIRECT_BYTES_MIN - BLOCK, 0), (LONG + 5, LONG // BLOCK)],
)
def test_whole_blocks_of_a_long_file_go_past_the_page_cache(
    run_python: RunPython, tmp_path: Path, length: int, blocks: int
) -> None:
    trace = tmp_path / "trace"
    prefix = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=pwrite64,fcntl")
    assert run_python(GROUP, length, prefix=prefix).stdout == f"{GOOD}\n"
    lines = trace.read_text().splitlines()
    straight = [line for line in lines if "pwrite64(" in line and f", {blocks * BLOCK}, 0)" in line]
    assert len(straight) == (2 if blocks else 0)
    assert sum("O_DIRECT" in line for line in lines) == len(straight)


@pytest.mark.parametrize(
    ("inject", "printed"),
    [
        ("pwrite64:error=EIO", f"b write{-errno.EIO} 0"),
        ("pwrite64:error=ENOSPC", f"b write{-errno.ENOSPC} 0"),
        ("pwrite64:error=EINTR", GOOD),
        ("pwrite64:error=EINVAL", GOOD),
        ("fallocate:error=EOPNOTSUPP", GOOD),
        ("fallocate:error=ENOSPC", GOOD),
    ],
)
def test_a_write_that_fails_costs_its_file_and_one_that_cannot_be_goes_the_other_way(
    run_python: RunPython, inject: str, printed: str
) -> None:
    prefix = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}:when=1")
    assert run_python(GROUP, LONG + 100, prefix=prefix).stdout == f"{printed}\n"


@pytest.mark.parametrize(
    ("which", "printed"), [(0, GOOD), (1, f"b write{-errno.EPERM} 0")], ids=["before", "behind"]
)
def test_a_file_whose_flags_cannot_be_changed_is_whole_or_not_named(
    run_python: RunPython, tmp_path: Path, which: int, printed: str
) -> None:
    """Before its write it goes the other way; behind it, its last bytes would go the wrong one."""
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=fcntl", "-o")
    run_python(GROUP, LONG + 100, prefix=(*strace, str(trace)))
    calls = [line for line in trace.read_text().splitlines() if "fcntl(" in line]
    nth = [number for number, line in enumerate(calls, 1) if "F_SETFL" in line][which]
    inject = ("-e", f"inject=fcntl:error=EPERM:when={nth}")
    done = run_python(GROUP, LONG + 100, prefix=(*strace, "/dev/null", *inject))
    assert done.stdout == f"{printed}\n"


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
"""


@pytest.mark.parametrize("limit", [LONG - BLOCK, LONG - 3 * BLOCK + 512, LONG - 1, 100])
def test_a_write_that_is_cut_short_is_no_whole_file(run_python: RunPython, limit: int) -> None:
    """RLIMIT_FSIZE cuts it, at a block and within one, and refuses the rest."""
    done = run_python(LIMITED + GROUP, LONG, limit)
    assert done.stdout == f"write{-errno.EFBIG} write{-errno.EFBIG}\n"
