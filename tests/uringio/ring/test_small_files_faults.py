"""System calls of a group of small files that fail, one by one: each costs what it must, no more.

strace lets them fail. None of these calls is made by Python itself, so the first is the group's.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uringio import _binding
from uringio._ring import small_files
from uringio._ring.small_files import CompiledGroup, PlainGroup, SmallFile

if TYPE_CHECKING:
    from tests.conftest import RunPython

GROUP = """
import os, sys
from uringio._ring import small_files
kind, length, sync = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "sync"
for name in ("spool", "target"):
    os.mkdir(name)
spool_fd, target_fd = os.open("spool", os.O_RDONLY), os.open("target", os.O_RDONLY)
files = [small_files.SmallFile(bytes(length), target_fd, name, False) for name in (b"a", b"b")]
group = getattr(small_files, kind)(spool_fd, "test-", 0)
group.write(files, sync=sync)
barrier = group.barrier()
group.rename(files)
group.close(files)
assert os.listdir("spool") == []
assert all(os.path.getsize(f"target/{name}") == length for name in os.listdir("target"))
print(barrier, *sorted(os.listdir("target")), *(f"{f.failed_at}{f.result}" for f in files))
"""

SHORT, LONG = 100, small_files.UNCACHED_BYTES_MIN
GOOD = "0 a b 0 0"
C_CALLS = [
    ("flock:error=EAGAIN", SHORT, "", f"0 b flock{-errno.EAGAIN} 0"),
    ("pwritev:error=EINTR", SHORT, "", GOOD),
    ("pwritev:error=EIO", SHORT, "", f"0 b write{-errno.EIO} 0"),
    ("pwritev:retval=0", SHORT, "", f"0 b write{-errno.EIO} 0"),
    ("pwritev2:error=EINTR", LONG, "", GOOD),
    ("pwritev2:error=ENOSYS", LONG, "", GOOD),
    ("pwritev2:error=EOPNOTSUPP", LONG, "", GOOD),
    ("fsync:error=EIO", SHORT, "sync", f"0 b fsync{-errno.EIO} 0"),
    ("syncfs:error=EIO", SHORT, "", f"{-errno.EIO} a b 0 0"),
    ("renameat2:error=EIO", SHORT, "", f"0 b rename{-errno.EIO} 0"),
]
PLAIN_CALLS = [
    ("flock:error=EAGAIN", SHORT, "", f"0 b flock{-errno.EAGAIN} 0"),
    ("fsync:error=EIO", SHORT, "sync", f"0 b fsync{-errno.EIO} 0"),
    ("syncfs:error=EIO", SHORT, "", f"{-errno.EIO} a b 0 0"),
    ("renameat2:error=EIO", SHORT, "", f"0 b rename{-errno.EIO} 0"),
]


@pytest.mark.parametrize(
    ("kind", "inject", "length", "sync", "printed"),
    [("CompiledGroup", *case) for case in C_CALLS]
    + [("PlainGroup", *case) for case in PLAIN_CALLS],
)
def test_a_call_that_fails_costs_one_file_or_the_barrier(
    run_python: RunPython, kind: str, inject: str, length: int, sync: str, printed: str
) -> None:
    if kind == "CompiledGroup" and _binding.lib is None:
        pytest.skip("needs the extension")
    prefix = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}:when=1")
    assert run_python(GROUP, kind, length, sync, prefix=prefix).stdout == f"{printed}\n"


@pytest.mark.parametrize("kind", [CompiledGroup, PlainGroup])
def test_a_file_that_cannot_be_looked_at_gets_no_name(
    tmp_path: Path, kind: type[CompiledGroup | PlainGroup]
) -> None:
    """Its inode is what a receipt knows it by: nobody could tell it from another."""
    if kind is CompiledGroup and _binding.lib is None:
        pytest.skip("needs the extension")
    spool, target = tmp_path / "spool", tmp_path / "target"
    spool.mkdir()
    target.mkdir()
    spool_fd, target_fd = os.open(spool, os.O_RDONLY), os.open(target, os.O_RDONLY)
    files = [SmallFile(b"x", target_fd, name, replace=False) for name in (b"a", b"b")]
    group = kind(spool_fd, "test-", 0)
    group.write(files, sync=False)
    fd = files[0].fd
    os.close(fd)
    group.rename(files)
    os.dup2(target_fd, fd)
    group.close(files)
    assert [(file.failed_at, file.result) for file in files] == [("rename", -errno.EBADF), ("", 0)]
    assert (os.listdir(spool), os.listdir(target)) == ([], ["b"])
    os.close(spool_fd)
    os.close(target_fd)


@pytest.mark.parametrize("kind", [CompiledGroup, PlainGroup])
def test_a_directory_that_cannot_be_synced_is_told(
    tmp_path: Path, kind: type[CompiledGroup | PlainGroup]
) -> None:
    spool_fd = os.open(tmp_path, os.O_RDONLY)
    group = kind(spool_fd, "test-", 0)
    assert group.sync_directory(spool_fd) == 0
    assert group.sync_directory(999_999) == -errno.EBADF
    group.close([])
    os.close(spool_fd)


def test_what_cannot_be_asked_for_its_file_system_has_no_barrier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "cannot be asked: Bad file descriptor" in small_files.why_no_barrier(-1)
    monkeypatch.setattr(small_files, "IS_LINUX", False)
    assert small_files.why_no_barrier(-1) == "syncfs is Linux's"


@pytest.mark.skipif(_binding.lib is None, reason="needs the extension")
@pytest.mark.parametrize("release", [(6, 13), (99, 0)])
def test_a_kernel_too_old_for_it_is_not_asked_to_keep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: tuple[int, int]
) -> None:
    monkeypatch.setattr(small_files, "kernel_version", lambda: release)
    spool_fd = os.open(tmp_path, os.O_RDONLY)
    files = [SmallFile(bytes(LONG), spool_fd, b"name", replace=False)]
    group = CompiledGroup(spool_fd, "test-", 0)
    group.write(files, sync=False)
    group.rename(files)
    group.close(files)
    assert files[0].result == 0
    assert (tmp_path / "name").read_bytes() == bytes(LONG)
    os.close(spool_fd)
