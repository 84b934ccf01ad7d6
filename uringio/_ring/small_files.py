"""Whole small files, many in a call: written, made durable together, given their names.

A chain in a ring (write, fsync, rename) costs a small file three hops to a kernel worker and a
flush of the device. A group of them in one thread costs each four system calls, and all of them
together one flush: every file is written under a temporary name, then one syncfs(2) makes all of
them durable, then each gets its name, then each directory that got one is fsynced. Every step is
one call of C for the whole group, without Python's lock: with a call from Python for each file the
thread would wait for the event loop's lock after each of them.

What holds when a step has returned, and why the order is that:
- `write`: the bytes of every file without an error are in the page cache, or in the device's;
  with `sync` they are durable, each by an fsync of its own. What is long is written back from then
  on, and leaves the page cache again (RWF_DONTCACHE): the disk works meanwhile, and the next file
  gets its pages, which are warm. An error of that is told by the barrier, as of any write-back.
  What is longer goes straight from its memory to the device, where that memory begins at a page,
  but for its last bytes that fill no block. An error of that is told by the write itself and by
  nobody after it, so it is that file's. (Shorter files would wait for the device: 64 KiB took 1.3
  times as long, 256 KiB 1.2 times.) What went straight still needs the barrier: it may be in the
  device's volatile cache, and its blocks and its size are known to no journal yet. To commit that,
  the barrier flushes the device, or it was committed since the write, and flushed with that.
- `barrier`: what `write` wrote is durable. syncfs(2) writes back all dirty inodes of the file
  system, waits for them, commits the journal and flushes the device's cache. Since Linux 5.8 it
  also reports an error of any write-back of this file system since the descriptor it is called by
  was opened or last reported one. So the descriptor is opened before the first write and belongs
  to this group alone: an error cannot have been told to somebody else instead. It may be about a
  stranger's file; nobody can tell, so it is an error of the whole group. It is not called again:
  the kernel drops the pages it could not write and calls them clean, and the second call says 0.
- `rename`: a name appears over bytes that are durable, or not at all.
- `sync_directory`: the names in it are durable.
- `close`: files that got no name are gone.

Where syncfs cannot be relied upon, `why_no_barrier` says why: there files are written with `sync`.

The temporary files are locked (flock(2)) until they are closed: whoever cleans up after a killed
process leaves those of a living one alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from uringio import _binding
from uringio._ring import libc
from uringio._ring.kernel import UNCACHED_SINCE, kernel_version
from uringio._ring.operations import IS_LINUX, RENAME_NOREPLACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

SPOOL_SUFFIX = ".put"
"""Of temporary names: a prefix that no other process uses, a number in hexadecimal, and this."""

STEPS = ("", "open", "flock", "write", "fsync", "rename")
"""What `failed_at` names, by enum uringio_small_step (small_files.csrc.c)."""

UNCACHED_BYTES_MIN = 64 << 10
"""Files that are not kept in the page cache, in C: groups of 64 of 64 KiB were published a tenth
faster so, of 128 KiB twice as fast, of 256 KiB three times, for half of the CPU, and of 32 KiB at
two thirds of the speed."""

DIRECT_BYTES_MIN = 512 << 10
"""Files that are written straight from their memory, if that begins at a page, in C: groups of 16
of 1 MiB were published in nine tenths of the time so, for half of the CPU, of 512 KiB as fast, and
of 256 KiB at nine tenths of the speed."""

SYNCFS_REPORTS = (5, 8)
"""The first Linux whose syncfs(2) reports errors of write-back."""

LOCAL_FILE_SYSTEMS = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
}
"""File systems whose syncfs(2) writes everything back and flushes the device, by statfs(2)'s
f_type. FUSE's does neither, network file systems know no device, and of others we do not know."""


@dataclass(slots=True, eq=False)
class SmallFile:
    """One file of a group: what is asked for, and what came of it.

    `name` is one component below `dir_fd`, `data` its whole content, which must not change before
    `close`; without `replace` a name that is taken is EEXIST. `result` is 0 or the -errno of the
    step in `failed_at`, and nothing is done with the file after that. `inode` and `modified_ns` are
    set by the rename.
    """

    data: Buffer
    dir_fd: int
    name: bytes
    replace: bool
    fd: int = -1
    result: int = 0
    failed_at: str = ""
    inode: int = 0
    modified_ns: int = 0

    def fail(self, step: str, number: int) -> None:
        """Note the first error, errno `number` (positive)."""
        self.result, self.failed_at = -number, step


class SmallGroup(Protocol):
    """The steps of one group, in this order; each skips files that have failed. All block."""

    def write(self, files: Sequence[SmallFile], *, sync: bool) -> None:
        """Write each file under a temporary name; with `sync` make each durable."""

    def barrier(self) -> int:
        """Make all of it durable: 0, or the -errno that is everybody's. Never called twice."""

    def rename(self, files: Sequence[SmallFile]) -> None:
        """Give each file its name."""

    def sync_directory(self, dir_fd: int) -> int:
        """Make the names in a directory durable: 0 or -errno."""

    def close(self, files: Sequence[SmallFile]) -> None:
        """Close all files, and remove those without a name. To be called in any case."""


class _Group:
    """What both groups do in Python: a descriptor for the barrier, directories."""

    def __init__(self, spool_fd: int, prefix: str, first: int) -> None:
        self._spool_fd = spool_fd
        self._prefix = prefix
        self._first = first
        # A new open file description: errors from now on are told to it, and to it alone.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._barrier_fd = os.open(".", flags, dir_fd=spool_fd)

    def sync_directory(self, dir_fd: int) -> int:
        """Make the names in a directory durable: 0 or -errno."""
        try:
            os.fsync(dir_fd)
        except OSError as exc:
            return -(exc.errno or errno.EIO)
        return 0


class CompiledGroup(_Group):
    """A group whose steps are done in C."""

    def __init__(self, spool_fd: int, prefix: str, first: int) -> None:
        super().__init__(spool_fd, prefix, first)
        self._prefix_bytes = prefix.encode()
        self._kept: list[Any] = []
        self._records: Any = None

    def write(self, files: Sequence[SmallFile], *, sync: bool) -> None:
        """Write each file under a temporary name; with `sync` make each durable."""
        ffi = _binding.ffi
        self._records = ffi.new("struct uringio_small_file[]", len(files))
        for number, (record, file) in enumerate(zip(self._records, files, strict=True)):
            data, name = ffi.from_buffer(file.data), ffi.from_buffer(file.name + b"\0")
            self._kept += data, name
            record.data, record.name = ffi.cast("uint8_t *", data), ffi.cast("char *", name)
            record.length, record.number = len(data), self._first + number
            record.dir_fd, record.replace, record.fd = file.dir_fd, file.replace, -1
        uncached_bytes_min = UNCACHED_BYTES_MIN if kernel_version() >= UNCACHED_SINCE else 0
        _binding.lib.uringio_small_write(
            *(self._spool_fd, self._prefix_bytes, self._records, len(files)),
            *(sync, uncached_bytes_min, DIRECT_BYTES_MIN),
        )
        self._read_results(files)

    def barrier(self) -> int:
        """Make all of it durable: 0 or -errno."""
        result: int = _binding.lib.uringio_small_barrier(self._barrier_fd)
        return result

    def rename(self, files: Sequence[SmallFile]) -> None:
        """Give each file its name."""
        for record, file in zip(self._records, files, strict=True):
            record.result = file.result  # what failed since then is not to be named
        _binding.lib.uringio_small_rename(
            self._spool_fd, self._prefix_bytes, self._records, len(files)
        )
        self._read_results(files)
        for record, file in zip(self._records, files, strict=True):
            file.inode = record.inode
            file.modified_ns = record.modified_s * 1_000_000_000 + record.modified_ns

    def close(self, files: Sequence[SmallFile]) -> None:
        """Close all files, and remove those without a name."""
        if self._records is not None:
            _binding.lib.uringio_small_close(
                self._spool_fd, self._prefix_bytes, self._records, len(files)
            )
        self._kept.clear()
        os.close(self._barrier_fd)

    def _read_results(self, files: Sequence[SmallFile]) -> None:
        for record, file in zip(self._records, files, strict=True):
            if record.result and not file.result:
                file.fail(STEPS[record.step], -record.result)
            file.fd = record.fd


class PlainGroup(_Group):
    """A group without the extension: the same steps, a call from Python for each file."""

    def __init__(self, spool_fd: int, prefix: str, first: int) -> None:
        super().__init__(spool_fd, prefix, first)
        self._named: set[SmallFile] = set()

    def write(self, files: Sequence[SmallFile], *, sync: bool) -> None:
        """Write each file under a temporary name; with `sync` make each durable."""
        for number, file in enumerate(files):
            step = "open"
            try:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                file.fd = os.open(self._spool_name(number), flags, 0o666, dir_fd=self._spool_fd)
                step = "flock"
                fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                step = "write"
                view = memoryview(file.data).cast("B")
                while view:
                    view = view[os.write(file.fd, view) :]
                step = "fsync"
                if sync:
                    os.fsync(file.fd)
            except OSError as exc:
                file.fail(step, exc.errno or errno.EIO)

    def barrier(self) -> int:
        """Make all of it durable: 0 or -errno."""
        return libc.syncfs(self._barrier_fd)

    def rename(self, files: Sequence[SmallFile]) -> None:
        """Give each file its name."""
        for number, file in enumerate(files):
            if file.result:
                continue
            name = self._spool_name(number).encode()
            flags = 0 if file.replace else RENAME_NOREPLACE
            try:
                found = os.fstat(file.fd)
                result = libc.renameat2(self._spool_fd, name, file.dir_fd, file.name, flags)
            except OSError as exc:
                result = -(exc.errno or errno.EIO)
            if result < 0:
                file.fail("rename", -result)
            else:
                self._named.add(file)
                file.inode, file.modified_ns = found.st_ino, found.st_mtime_ns

    def close(self, files: Sequence[SmallFile]) -> None:
        """Close all files, and remove those without a name."""
        for number, file in enumerate(files):
            if file.fd < 0:
                continue
            if file not in self._named:
                with contextlib.suppress(OSError):
                    os.unlink(self._spool_name(number), dir_fd=self._spool_fd)
            os.close(file.fd)
            file.fd = -1
        os.close(self._barrier_fd)

    def _spool_name(self, number: int) -> str:
        return f"{self._prefix}{self._first + number:x}{SPOOL_SUFFIX}"


def open_group(spool_fd: int, prefix: str, first: int) -> SmallGroup:
    """Begin a group; its temporary files below `spool_fd` are `prefix` and numbers from `first` on.

    `prefix` must be this process's own, and no number is to be used twice. Raises OSError.
    """
    kind = PlainGroup if _binding.lib is None else CompiledGroup
    return kind(spool_fd, prefix, first)


def why_no_barrier(fd: int) -> str:
    """Say why syncfs(2) on this descriptor's file system is no barrier; empty: it is one."""
    if not IS_LINUX:
        return "syncfs is Linux's"
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or tuple(map(int, numbers.groups())) < SYNCFS_REPORTS:
        return f"syncfs of Linux {release} does not report errors, from 5.8 on it does"
    try:
        kind = libc.file_system_type(fd)
    except OSError as exc:
        return f"which file system this is cannot be asked: {exc.strerror}"
    if kind not in LOCAL_FILE_SYSTEMS:
        return f"of a file system of type {kind:#x} it is not known that syncfs makes files durable"
    return ""
