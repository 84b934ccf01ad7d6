"""Publish a group of small uploads: in a worker thread, with as few flushes as can be.

uringio/_ring/small_files.py says what each step promises. The order here is the promise of a
receipt: data durable, then the name, then the directory, then the answer.

Two ways to make the data durable, measured by `make bench-small` (bench/README.md has the figures):
one syncfs for all, or an fsync for each. The syncfs was faster for two files already. But it also
writes back what others left in the page cache, so it is for groups of BARRIER_FILES_MIN and more.

What an error costs. An error of one file (no room, no descriptor, a name that is taken, its own
fsync) costs that file. An error of the barrier costs the whole group: nobody knows whose bytes were
lost, so nothing is named, nothing is answered with a receipt, and it is not tried again. An error
of a directory's fsync costs the files in that directory: they have their names, whole, and may lose
them with the power; that is an error for their clients.

What is there already, and equal, may be a file that was only written, and that a write-back has
lost since. So it is compared with the disk (uringio's page_cache.py), what is dirty has its fsync
or its barrier still before it, and a file whose fsync has failed is not asked again.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from uringd.upload_errors import failed
from uringd.wire import Durability
from uringio.exceptions import operation_error
from uringio.lowlevel import forget_clean_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.small.put import Put
    from uringio.exceptions import OperationError
    from uringio.lowlevel import small_files

BARRIER_FILES_MIN = 4
"""Files of a group from which on one syncfs is worth it: at 4 it took two thirds of the time of an
fsync for each, at 8 a quarter."""


def publish_group(
    group: small_files.SmallGroup, puts: Sequence[Put], *, trusts_barrier: bool
) -> bool:
    """Publish what was `place`d; each put says what came of it. True if written bytes were lost.

    All get the highest level that one of them asks for. Blocks; raises nothing but what is a fault
    of ours, and then no file is left without its name.
    """
    level = max(put.durability for put in puts)
    durable = level >= Durability.DURABLE
    together = trusts_barrier and len(puts) >= BARRIER_FILES_MIN
    sync_each = durable and not together
    waiting = _without_those_there(puts, sync=sync_each)
    files = [put.file for put in waiting]
    lost = False
    try:
        group.write(files, sync=sync_each)
        if durable and together:
            lost = _pass_barrier(group, puts)
        group.rename(files)
        for put in waiting:
            if put.file.result != -errno.EEXIST or not put.keep_equal:
                continue
            if put.lost:
                put.file.fail("fsync", errno.EIO)
            elif _is_there(put, sync=True):
                put.file.result = 0  # another of this group has it
        if level >= Durability.PUBLISHED:
            _sync_directories(group, puts)
    finally:
        group.close(files)
    for put in puts:
        put.durability = level
        if put.file.result:
            put.failure = failed(_error_of(put))
    return lost or any(put.lost for put in puts)


def _without_those_there(puts: Sequence[Put], *, sync: bool) -> list[Put]:
    """Sort out what is published already, but behind another of its name: that one is first."""
    waiting: dict[str, list[Put]] = {}
    for put in puts:
        if put.name in waiting or not (put.keep_equal and _is_there(put, sync=sync)):
            waiting.setdefault(put.name, []).append(put)
    return [put for several in waiting.values() for put in several]


def _pass_barrier(group: small_files.SmallGroup, puts: Sequence[Put]) -> bool:
    """Make durable what was written, and what was there. True if bytes were lost."""
    files = [put.file for put in puts if not put.file.result]
    result = group.barrier() if files else 0
    if result < 0:
        for file in files:
            file.fail("syncfs", -result)
    return result < 0


def _sync_directories(group: small_files.SmallGroup, puts: Sequence[Put]) -> None:
    named = [put.file for put in puts if not put.file.result]
    for dir_fd in {file.dir_fd: None for file in named}:
        result = group.sync_directory(dir_fd)
        if result < 0:
            for file in named:
                if file.dir_fd == dir_fd:
                    file.fail("fsync of the directory", -result)


def _is_there(put: Put, *, sync: bool) -> bool:
    """Whether a regular file of this name has this content; with `sync` it is made durable too.

    Whoever wrote it may not have, and the answer will say so: without `sync` a barrier follows. One
    whose fsync fails is not there, and `lost`.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(put.file.name, flags, dir_fd=put.file.dir_fd)
    except OSError:
        return False
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(put.content):
            return False
        forget_clean_pages(fd)
        if os.pread(fd, len(put.content) + 1, 0) != put.content:
            return False
        if sync:
            try:
                os.fsync(fd)
            except OSError:
                put.lost = True
                return False
    except OSError:
        return False
    finally:
        os.close(fd)
    put.unchanged = True
    put.file.inode, put.file.modified_ns = found.st_ino, found.st_mtime_ns
    return True


def _error_of(put: Put) -> OperationError:
    number = -put.file.result
    if put.file.failed_at == "rename" and number == errno.EISDIR:
        number = errno.EEXIST
    return operation_error(number, put.file.failed_at, put.name)
