"""What Python offers without a library: os.write with fsync, and os.pwrite past the page cache."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from bench.harness.content import make_block, stamp
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.measurement import Job


def os_write(job: Job) -> Measurement:
    """Append block after block through the page cache, then one fsync."""
    block = make_block(job.block_bytes)
    meter = Meter()
    meter.start()
    fd = os.open(job.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for number in range(job.size_bytes // job.block_bytes):
        stamp(block, number)
        write_all(fd, block)
    os.fsync(fd)
    os.close(fd)
    return Measurement.of_this_process(job, meter.stop())


def pwrite_direct(job: Job) -> Measurement:
    """Reserve the file, then one O_DIRECT write after the other, then one fsync."""
    block = mmap.mmap(-1, job.block_bytes)  # page-aligned, as O_DIRECT demands
    block[:] = bytes(make_block(job.block_bytes))
    view = memoryview(block)
    meter = Meter()
    meter.start()
    try:
        fd = os.open(job.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT)
    except OSError as exc:
        raise CannotRunError(f"no O_DIRECT on this file system: {exc.strerror}") from exc
    os.posix_fallocate(fd, 0, job.size_bytes)
    for number in range(job.size_bytes // job.block_bytes):
        stamp(view, number)
        if os.pwrite(fd, view, number * job.block_bytes) != job.block_bytes:
            raise CannotRunError("a direct write was short: is the disk full?")
    os.fsync(fd)
    os.close(fd)
    return Measurement.of_this_process(job, meter.stop())


def copy_plain(source: Path, target: Path, block_bytes: int) -> None:
    """Copy a file by os.write, then fsync: what `make demo` compares uploads with."""
    block = bytearray(block_bytes)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with source.open("rb", buffering=0) as file:
            while length := file.readinto(block):
                write_all(fd, memoryview(block)[:length])
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytearray | memoryview) -> None:
    """Write all of it, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
