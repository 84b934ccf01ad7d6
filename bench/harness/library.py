"""uringio's writer: through slots, with and without a size, and by write(data), which copies."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import trio

import uringio
from bench.harness.content import make_block, stamp
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from bench.harness.measurement import Order

    OpenRing = Callable[[int, int], AbstractAsyncContextManager[uringio.Ring]]


@dataclass(frozen=True, slots=True)
class Way:
    """How the writer is used. `open_ring` takes the number of slots and their size in bytes."""

    sized: bool = True
    copy: bool = False
    direct: Literal["auto", "never"] = "auto"
    open_ring: OpenRing = uringio.open_ring


def slots_sized(order: Order) -> Measurement:
    """Fill lent slots; the size is declared, so the whole file is reserved first."""
    return measure_writer(order, Way())


def slots_unsized(order: Order) -> Measurement:
    """Fill lent slots; the size is not known, so the reservation grows in steps."""
    return measure_writer(order, Way(sized=False))


def write_copy(order: Order) -> Measurement:
    """Hand over bytes, which the writer copies into its slots."""
    return measure_writer(order, Way(copy=True))


def slots_threads(order: Order) -> Measurement:
    """Do as `slots_sized` does, with worker threads in the place of io_uring."""
    threads = functools.partial(uringio.open_ring, backend="threads")
    return measure_writer(order, Way(open_ring=threads))


def measure_writer(order: Order, way: Way) -> Measurement:
    """Write a new file in that way."""
    try:
        return trio.run(_measure, order, way)
    except uringio.UnavailableError as exc:
        raise CannotRunError(str(exc)) from exc


async def _measure(order: Order, way: Way) -> Measurement:
    """Open the ring and fill its slots; then, on the clock, from create to commit.

    As many slots as writes may be in flight. A pool has two at the least, so for one in flight each
    block is waited for (`flush`).
    """
    cell = order.cell
    block = make_block(cell.block_bytes)
    meter = Meter()
    opening = time.perf_counter()
    async with way.open_ring(max(2, cell.depth), cell.block_bytes) as ring:
        opened_s = time.perf_counter() - opening
        if not way.copy:
            await fill_slots(ring, order.target, block)
        meter.start()
        size = cell.size_bytes if way.sized else None
        async with ring.create(order.target, size, direct=way.direct) as writer:
            for number in range(cell.blocks):
                if way.copy:
                    stamp(block, number)
                    await writer.write(block)
                else:
                    async with writer.slot() as slot:
                        stamp(slot.view, number)
                        slot.length = cell.block_bytes
                if cell.depth == 1:
                    await writer.flush()
            receipt = await writer.commit()
        usage = meter.stop()
        facts = _facts(receipt, ring, opened_s)
    return Measurement.of_this_process(order, usage, facts)


async def fill_slots(ring: uringio.Ring, target: Path, block: bytearray) -> None:
    """Fill every slot once, before the clock starts: as many writers, each aborted.

    In real use the producer fills slots by the way (a socket receives into them). fio fills its
    buffers before it starts, too.
    """
    async with contextlib.AsyncExitStack() as stack:
        for number in range(ring.features.slots):
            path = target.with_name(f"fill-{number}")
            writer = await stack.enter_async_context(ring.create(path))
            slot = await stack.enter_async_context(writer.slot())
            slot.view[:] = block
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)  # what the journal has to say about those names is none of the next file's
    os.close(directory)


def _facts(receipt: uringio.Receipt, ring: uringio.Ring, opened_s: float) -> dict[str, Any]:
    facts = asdict(receipt)
    del facts["path"]
    return facts | ring_facts(ring) | {"open_ring_s": opened_s}


def ring_facts(ring: uringio.Ring) -> dict[str, Any]:
    """Say what a ring is made of."""
    features = ring.features
    return {
        "backend": features.backend,
        "huge_pages": features.huge_pages,
        "registered_slots": features.registered_slots,
        "setup_flags": list(features.setup_flags),
        "notes": list(features.notes),
        "slot_waits": ring.statistics().slot_waits,
    }


async def copy_through_slots(source: Path, target: Path) -> float:
    """Copy a file through slots and publish it; the result is the seconds from create to commit."""
    size = source.stat().st_size
    async with uringio.open_ring() as ring, ring.create(target, size) as writer:
        with source.open("rb", buffering=0) as file:
            length = 1
            while length:
                async with writer.slot() as slot:
                    slot.length = length = file.readinto(slot.view) or 0
        return (await writer.commit()).seconds
