"""Files that are written at offsets, so that many writes are in flight: aiofile, ayafileio.

aiofile takes `bytes` and nothing else, which start 32 bytes into their allocation: never aligned,
so O_DIRECT is ruled out, and each block is copied into such an object first. ayafileio takes any
memory and wraps a descriptor, so with one opened for O_DIRECT, blocks reserved by hand and aligned
memory it writes past the page cache; it runs both ways, with and without that work done for it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from bench.harness.content import aligned_blocks, stamp
from bench.harness.latency import Latencies
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter
from bench.harness.peers.file_objects import imported
from bench.harness.plain import open_direct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.harness.measurement import Order

    WriteAt = Callable[[memoryview, int], Awaitable[Any]]


def with_aiofile(order: Order) -> Measurement:
    """Write by aiofile.AIOFile, on the io_uring context of caio if there is one."""
    return asyncio.run(_aiofile(order))


def with_ayafileio(order: Order) -> Measurement:
    """Write by ayafileio.open, through the page cache."""
    return asyncio.run(_ayafileio(order, direct=False))


def with_ayafileio_direct(order: Order) -> Measurement:
    """Write by ayafileio.wrap_file of a descriptor that is direct and has its blocks."""
    return asyncio.run(_ayafileio(order, direct=True))


async def _aiofile(order: Order) -> Measurement:
    aiofile, caio = imported("aiofile"), imported("caio")
    blocks = aligned_blocks(order.cell, order.cell.depth)
    meter = Meter()
    meter.start()
    file = aiofile.AIOFile(str(order.target), _mode(order))
    await file.open()

    async def write(block: memoryview, offset: int) -> int:
        written: int = await file.write_bytes(bytes(block), offset)
        return written

    await _write_side_by_side(order, blocks, write)
    await file.fsync()
    await file.close()
    usage = meter.stop()
    return Measurement.of_this_process(order, usage, {"context": caio.AsyncioContext.__module__})


async def _ayafileio(order: Order, *, direct: bool) -> Measurement:
    ayafileio = imported("ayafileio")
    blocks = aligned_blocks(order.cell, order.cell.depth)
    latencies = Latencies(order.cell)
    meter = Meter()
    meter.start()
    if direct:
        fd = open_direct(order)
        file = ayafileio.wrap_file(fd, "r+b")
    else:
        file = ayafileio.open(str(order.target), _mode(order))

    async def write(block: memoryview, offset: int) -> int:
        written: int = await file.write_at(offset, block)
        return written

    await _write_side_by_side(order, blocks, latencies.watch_async(write))
    await file.flush()  # an fsync: nothing of the file is dirty after it
    await file.close()
    if direct:
        os.close(fd)
    usage = meter.stop()
    facts = {"context": ayafileio.get_backend_info()["backend"], **latencies.facts()}
    return Measurement.of_this_process(order, usage, facts)


async def _write_side_by_side(order: Order, blocks: list[memoryview], write: WriteAt) -> None:
    """Keep as many writes in flight as there are blocks of memory."""
    numbers = order.cell.numbers()

    async def write_on(block: memoryview) -> None:
        for number in numbers:
            stamp(block, number)
            if await write(block, number * len(block)) != len(block):
                raise CannotRunError("a write was short: is the disk full?")

    await asyncio.gather(*(write_on(block) for block in blocks))


def _mode(order: Order) -> str:
    return "xb" if order.cell.pattern == "fresh" else "r+b"
