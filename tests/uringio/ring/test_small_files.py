"""Groups of small files on real files, in C and in Python alike."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from uringio import _binding
from uringio._ring import libc, small_files
from uringio._ring.small_files import (
    UNCACHED_BYTES_MIN,
    CompiledGroup,
    PlainGroup,
    SmallFile,
    SmallGroup,
)
from uringio._trio.opening import takes_uncached

KINDS = [PlainGroup, CompiledGroup] if _binding.lib is not None else [PlainGroup]
SIZES = [0, 1, 4095, 4096, 4097, 65_536, 70_001, 262_144]


class Folder:
    """A spool and a directory to publish in."""

    def __init__(self, path: Path, kind: type[PlainGroup | CompiledGroup]) -> None:
        self.kind = kind
        self.spool, self.target = path / "spool", path / "target"
        self.spool.mkdir()
        self.target.mkdir()
        flags = os.O_RDONLY | os.O_DIRECTORY
        self.spool_fd, self.target_fd = os.open(self.spool, flags), os.open(self.target, flags)

    def group(self) -> SmallGroup:
        return self.kind(self.spool_fd, "test-", 0)

    def file(self, name: str, data: bytes, *, replace: bool = False) -> SmallFile:
        return SmallFile(data, self.target_fd, name.encode(), replace)

    def publish(self, files: list[SmallFile]) -> None:
        group = self.group()
        try:
            group.write(files, sync=False)
            assert group.barrier() == 0
            group.rename(files)
            assert group.sync_directory(self.target_fd) == 0
        finally:
            group.close(files)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path, request.param)
    yield made
    assert os.listdir(made.spool) == []
    os.close(made.spool_fd)
    os.close(made.target_fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_files_of_every_size_are_published_whole(folder: Folder) -> None:
    files = [folder.file(f"f{size}", os.urandom(size)) for size in SIZES]
    before = descriptors()
    folder.publish(files)
    assert descriptors() == before
    for file, size in zip(files, SIZES, strict=True):
        path = folder.target / f"f{size}"
        assert path.read_bytes() == file.data
        assert (file.result, file.failed_at) == (0, "")
        found = path.stat()
        assert (file.inode, file.modified_ns) == (found.st_ino, found.st_mtime_ns)
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(found.st_mode) == 0o666 & ~mask


def test_a_taken_name_is_an_error_of_its_own_file(folder: Folder) -> None:
    (folder.target / "taken").write_bytes(b"old")
    files = [folder.file("taken", b"new"), folder.file("free", b"x")]
    folder.publish(files)
    assert (files[0].result, files[0].failed_at) == (-errno.EEXIST, "rename")
    assert (folder.target / "taken").read_bytes() == b"old"
    assert (folder.target / "free").read_bytes() == b"x"


def test_replace_replaces_and_the_last_of_a_name_stays(folder: Folder) -> None:
    (folder.target / "name").write_bytes(b"old")
    files = [folder.file("name", part, replace=True) for part in (b"first", b"second")]
    folder.publish(files)
    assert (folder.target / "name").read_bytes() == b"second"
    assert [file.result for file in files] == [0, 0]


def test_a_directory_is_not_replaced(folder: Folder) -> None:
    (folder.target / "there").mkdir()
    files = [folder.file("there", b"x", replace=True)]
    folder.publish(files)
    assert files[0].result == -errno.EISDIR


def test_a_file_that_failed_is_not_named(folder: Folder) -> None:
    files = [folder.file("a", b"a"), folder.file("b", b"b")]
    group = folder.group()
    group.write(files, sync=True)
    files[0].fail("syncfs", errno.EIO)
    group.rename(files)
    group.close(files)
    assert os.listdir(folder.target) == ["b"]
    assert files[0].result == -errno.EIO


def test_a_group_that_is_left_leaves_nothing(folder: Folder) -> None:
    files = [folder.file("a", b"a" * 5000), folder.file("b", b"b")]
    before = descriptors()
    group = folder.group()
    group.write(files, sync=False)
    assert len(os.listdir(folder.spool)) == 2
    group.close(files)
    assert os.listdir(folder.target) == []
    assert descriptors() == before


def test_temporary_files_are_locked_until_they_are_closed(folder: Folder) -> None:
    files = [folder.file("a", b"a")]
    group = folder.group()
    group.write(files, sync=False)
    [name] = os.listdir(folder.spool)
    assert name.endswith(small_files.SPOOL_SUFFIX)
    fd = os.open(folder.spool / name, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    group.close(files)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_a_temporary_name_that_is_taken_costs_one_file(folder: Folder) -> None:
    (folder.spool / "test-1.put").touch()
    files = [folder.file(name, b"x") for name in "abc"]
    folder.publish(files)
    (folder.spool / "test-1.put").unlink()
    assert [file.result for file in files] == [0, -errno.EEXIST, 0]
    assert files[1].failed_at == "open"
    assert sorted(os.listdir(folder.target)) == ["a", "c"]


def test_a_file_that_is_too_long_is_an_error_of_its_own(folder: Folder) -> None:
    """RLIMIT_FSIZE cuts a write short, and then refuses it: no part of the file is named."""
    files = [folder.file("short", b"s" * 4096), folder.file("long", b"l" * 100_000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
    try:
        folder.publish(files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (files[1].result, files[1].failed_at) == (-errno.EFBIG, "write")
    assert os.listdir(folder.target) == ["short"]


def test_no_descriptors_left_is_an_error_of_those_that_had_none(folder: Folder) -> None:
    files = [folder.file(f"f{number}", b"x") for number in range(8)]
    group = folder.group()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = next(n for n in range(4, 1 << 16) if len(set(range(n)) - used) == 4)  # four are free
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        group.write(files, sync=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    group.rename(files)
    group.close(files)
    results = [file.result for file in files]
    assert set(results) == {0, -errno.EMFILE}
    assert len(os.listdir(folder.target)) == results.count(0)


@pytest.mark.skipif(_binding.lib is None, reason="needs the extension")
@pytest.mark.parametrize("length", [UNCACHED_BYTES_MIN - 1, UNCACHED_BYTES_MIN])
def test_what_is_long_does_not_stay_in_the_page_cache(tmp_path: Path, length: int) -> None:
    (tmp_path / "probe").touch()
    with (tmp_path / "probe").open() as probe:
        if not takes_uncached(probe.fileno()):
            pytest.skip("this file system or kernel keeps everything")
    folder = Folder(tmp_path, CompiledGroup)
    data = os.urandom(length)
    folder.publish([folder.file("file", data)])
    with (folder.target / "file").open("rb") as file:
        if length < UNCACHED_BYTES_MIN:
            assert os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        else:
            with pytest.raises(BlockingIOError):
                os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        assert file.read() == data
    os.close(folder.spool_fd)
    os.close(folder.target_fd)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_system_that_keeps_everything_takes_long_files_too(
    kind: type[PlainGroup | CompiledGroup],
) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no tmpfs here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Folder(Path(scratch), kind)
        data = os.urandom(2 * UNCACHED_BYTES_MIN)
        folder.publish([folder.file("file", data)])
        assert (folder.target / "file").read_bytes() == data
        os.close(folder.spool_fd)
        os.close(folder.target_fd)


def test_local_file_systems_have_a_barrier_and_others_have_not(tmp_path: Path) -> None:
    for path, has in ((tmp_path, True), (Path("/proc"), False)):
        fd = os.open(path, os.O_RDONLY)
        kind = libc.file_system_type(fd)
        if has and kind not in small_files.LOCAL_FILE_SYSTEMS:
            pytest.skip(f"a file system of type {kind:#x}")
        assert (small_files.why_no_barrier(fd) == "") == has
        os.close(fd)


@pytest.mark.parametrize(
    ("release", "has"), [("5.7.19", False), ("4.19.0-6", False), ("5.8.0", True), ("odd", False)]
)
def test_a_kernel_whose_syncfs_hides_errors_has_no_barrier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, *, has: bool
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    if libc.file_system_type(fd) not in small_files.LOCAL_FILE_SYSTEMS:
        pytest.skip("not a file system with a barrier")
    monkeypatch.setattr(platform, "release", lambda: release)
    assert (small_files.why_no_barrier(fd) == "") == has
    os.close(fd)


def test_steps_have_the_numbers_of_the_c_file() -> None:
    source = Path(small_files.__file__).parents[1] / "_binding" / "small_files.csrc.c"
    text = source.read_text()
    names = [line.strip().rstrip(",") for line in text.splitlines() if "    URINGIO_SMALL_" in line]
    wanted = ["none", "open", "lock", "write", "sync", "rename"]
    assert names[: len(wanted)] == [f"URINGIO_SMALL_{name.upper()}" for name in wanted]
    assert len(small_files.STEPS) == len(wanted)
