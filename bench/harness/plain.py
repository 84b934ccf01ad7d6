"""What Python offers without a library: os.write with fsync, and os.pwrite past the page cache."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.harness.content import aligned_blocks, make_block, stamp
from bench.harness.latency import Latencies
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.harness.measurement import Order


def os_write(order: Order) -> Measurement:
    """Write block after block through the page cache, then one fsync."""
    cell = order.cell
    block = make_block(cell.block_bytes)
    meter = Meter()
    meter.start()
    fd = open_target(order)
    for number in cell.numbers():
        stamp(block, number)
        if cell.pattern == "random":
            os.lseek(fd, number * cell.block_bytes, os.SEEK_SET)
        write_all(fd, block)
        if cell.pattern == "log":
            os.fdatasync(fd)
    os.fsync(fd)
    os.close(fd)
    return Measurement.of_this_process(order, meter.stop())


def pwrite_direct(order: Order) -> Measurement:
    """Reserve a new file, then one O_DIRECT write after the other, then one fsync."""
    cell = order.cell
    (block,) = aligned_blocks(cell, 1)
    latencies = Latencies(cell)
    meter = Meter()
    meter.start()
    fd = open_direct(order)
    write = latencies.watch(lambda memory, offset: pwrite_whole(fd, memory, offset))
    for number in cell.numbers():
        stamp(block, number)
        write(block, number * cell.block_bytes)
        if cell.pattern == "log":
            os.fdatasync(fd)
    os.fsync(fd)
    os.close(fd)
    return Measurement.of_this_process(order, meter.stop(), latencies.facts())


def pwrite_threads(order: Order) -> Measurement:
    """Do the same in as many threads as writes may be in flight, each with a block of its own."""
    cell = order.cell
    blocks = aligned_blocks(cell, cell.depth)
    latencies = Latencies(cell)
    meter = Meter()
    with ThreadPoolExecutor(cell.depth) as pool:
        meter.start()
        fd = open_direct(order)
        write = latencies.watch(lambda memory, offset: pwrite_whole(fd, memory, offset))
        numbers = cell.numbers()

        def write_on(block: memoryview, numbers: Iterator[int]) -> None:
            for number in numbers:
                stamp(block, number)
                write(block, number * cell.block_bytes)

        for done in [pool.submit(write_on, block, numbers) for block in blocks]:
            done.result()
        os.fsync(fd)
        os.close(fd)
        usage = meter.stop()
    return Measurement.of_this_process(order, usage, latencies.facts())


def open_target(order: Order, flags: int = 0) -> int:
    """Open the target for writing: a new file, or the one that is there."""
    new = os.O_CREAT | os.O_EXCL if order.cell.pattern == "fresh" else 0
    return os.open(order.target, os.O_WRONLY | new | flags)


def open_direct(order: Order) -> int:
    """Do that with O_DIRECT, and reserve the blocks of a new file."""
    try:
        fd = open_target(order, os.O_DIRECT)
    except OSError as exc:
        raise CannotRunError(f"no O_DIRECT on this file system: {exc.strerror}") from exc
    if order.cell.pattern == "fresh":
        os.posix_fallocate(fd, 0, order.cell.size_bytes)
    return fd


def pwrite_whole(fd: int, memory: memoryview, offset: int) -> None:
    """Write a block, or say that it was cut short."""
    if os.pwrite(fd, memory, offset) != len(memory):
        raise CannotRunError("a direct write was short: is the disk full?")


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
