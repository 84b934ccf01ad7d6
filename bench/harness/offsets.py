"""uringio's file: writes at offsets into a file that is there, and chains of them.

The file is opened on the clock, the ring before it, as everywhere. The memory is the caller's own:
nothing here is a slot, so nothing is a registered buffer.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

import uringio
from bench.harness.content import aligned_blocks, stamp
from bench.harness.latency import Latencies
from bench.harness.library import ring_facts
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bench.harness.library import OpenRing
    from bench.harness.measurement import Order

    Write = Callable[
        [uringio.Ring, uringio.UringFile, Order, list[memoryview], Latencies], Awaitable[None]
    ]
    Append = Callable[[uringio.UringFile, memoryview, Iterable[int]], Awaitable[None]]

POOL = (2, 4096)
"""The smallest pool there is: aligned memory needs none."""


def pwrite(order: Order) -> Measurement:
    """Await each write by itself, in as many tasks as writes may be in flight."""
    return _run(order, _write_in_tasks, blocks=order.cell.depth)


def pwrite_many(order: Order) -> Measurement:
    """Hand over all writes at once, from as much memory as fio has: a block for each in flight.

    It is filled before, and used again and again; so it stays in the core's cache.
    """
    return _run(order, _write_at_once, blocks=order.cell.depth)


def pwrite_many_apart(order: Order, open_ring: OpenRing = uringio.open_ring) -> Measurement:
    """Hand over all writes at once, each with memory of its own: the disk reads main memory."""
    return _run(order, _write_at_once, blocks=order.cell.blocks, open_ring=open_ring)


def chain(order: Order) -> Measurement:
    """Write a record and its fdatasync as one chain, and wait for that; in each log."""
    return _run(order, _in_logs(_write_chains), blocks=order.cell.depth)


def one_by_one(order: Order) -> Measurement:
    """Write a record, wait, then fdatasync, and wait for that; in each log."""
    return _run(order, _in_logs(_write_records), blocks=order.cell.depth)


async def _write_in_tasks(
    _: uringio.Ring,
    file: uringio.UringFile,
    order: Order,
    blocks: list[memoryview],
    latencies: Latencies,
) -> None:
    length = order.cell.block_bytes
    numbers = order.cell.numbers()

    async def write_on(block: memoryview) -> None:
        for number in numbers:
            stamp(block, number)
            await write(block, number * length)

    write = latencies.watch_async(file.pwrite)
    async with trio.open_nursery() as nursery:
        for block in blocks:
            nursery.start_soon(write_on, block)


async def _write_at_once(
    _ring: uringio.Ring,
    file: uringio.UringFile,
    order: Order,
    blocks: list[memoryview],
    _: Latencies,
) -> None:
    length, count = order.cell.block_bytes, len(blocks)
    numbers = order.cell.numbers()
    await file.pwrite_many((blocks[number % count], number * length) for number in numbers)


async def _write_chains(file: uringio.UringFile, block: memoryview, numbers: Iterable[int]) -> None:
    for number in numbers:
        stamp(block, number)
        async with file.chain() as steps:
            steps.pwrite(block, number * len(block))
            steps.fsync(data_only=True)


async def _write_records(
    file: uringio.UringFile, block: memoryview, numbers: Iterable[int]
) -> None:
    for number in numbers:
        stamp(block, number)
        await file.pwrite(block, number * len(block))
        await file.fsync(data_only=True)


def _in_logs(append: Append) -> Write:
    """Write as many logs side by side as the cell is deep, each a part of the file.

    Each is opened by itself, as logs are: an fsync of one is none of another.
    """

    async def write(
        ring: uringio.Ring,
        _file: uringio.UringFile,
        order: Order,
        blocks: list[memoryview],
        _: Latencies,
    ) -> None:
        length = order.cell.blocks // len(blocks)
        async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for log, block in enumerate(blocks):
                file = await stack.enter_async_context(await ring.open(order.target, "r+"))
                nursery.start_soon(append, file, block, range(log * length, (log + 1) * length))

    return write


def _run(
    order: Order, write: Write, *, blocks: int, open_ring: OpenRing = uringio.open_ring
) -> Measurement:
    memory = aligned_blocks(order.cell, blocks)
    for number, block in enumerate(memory):
        stamp(block, number)
    try:
        return trio.run(_measure, order, write, memory, open_ring)
    except uringio.UnavailableError as exc:
        raise CannotRunError(str(exc)) from exc


async def _measure(
    order: Order, write: Write, memory: list[memoryview], open_ring: OpenRing
) -> Measurement:
    latencies = Latencies(order.cell)
    meter = Meter()
    async with open_ring(*POOL) as ring:
        meter.start()
        async with await ring.open(order.target, "r+") as file:
            await write(ring, file, order, memory, latencies)
            await file.fsync()
            direct = file.direct
        usage = meter.stop()
        # What the ring has to say about its pool is of no interest: nothing is in a slot.
        facts = ring_facts(ring) | {"notes": [], "direct": direct} | latencies.facts()
    return Measurement.of_this_process(order, usage, facts)
