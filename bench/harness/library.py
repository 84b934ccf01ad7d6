"""uringio's writer: through slots, with and without a size, and by write(data), which copies."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import trio

import uringio
from bench.harness.content import make_block, stamp
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.measurement import Job


def slots_sized(job: Job) -> Measurement:
    """Fill lent slots; the size is declared, so the whole file is reserved first."""
    return _run(job, size=job.size_bytes, copy=False)


def slots_unsized(job: Job) -> Measurement:
    """Fill lent slots; the size is not known, so the reservation grows in steps."""
    return _run(job, size=None, copy=False)


def write_copy(job: Job) -> Measurement:
    """Hand over bytes, which the writer copies into its slots."""
    return _run(job, size=job.size_bytes, copy=True)


def slots_threads(job: Job) -> Measurement:
    """Do as `slots_sized` does, with worker threads in the place of io_uring."""
    return _run(job, size=job.size_bytes, copy=False, backend="threads")


def _run(
    job: Job,
    *,
    size: int | None,
    copy: bool,
    backend: Literal["io_uring", "threads"] = "io_uring",
) -> Measurement:
    try:
        return trio.run(functools.partial(_measure, job, size=size, copy=copy, backend=backend))
    except uringio.UnavailableError as exc:
        raise CannotRunError(str(exc)) from exc


async def _measure(
    job: Job, *, size: int | None, copy: bool, backend: Literal["io_uring", "threads"]
) -> Measurement:
    """Open the ring and fill its slots; then, on the clock, from create to commit."""
    block = make_block(job.block_bytes)
    blocks = job.size_bytes // job.block_bytes
    meter = Meter()
    opening = time.perf_counter()
    async with uringio.open_ring(job.depth, job.block_bytes, backend=backend) as ring:
        opened_s = time.perf_counter() - opening
        if not copy:
            await fill_slots(ring, job.target, block)
        meter.start()
        async with ring.create(job.target, size) as writer:
            if copy:
                for number in range(blocks):
                    stamp(block, number)
                    await writer.write(block)
            else:
                for number in range(blocks):
                    async with writer.slot() as slot:
                        stamp(slot.view, number)
                        slot.length = job.block_bytes
            receipt = await writer.commit()
        usage = meter.stop()
        facts = _facts(receipt, ring, opened_s)
    return Measurement.of_this_process(job, usage, facts)


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
    features = ring.features
    return facts | {
        "huge_pages": features.huge_pages,
        "registered_slots": features.registered_slots,
        "setup_flags": list(features.setup_flags),
        "notes": list(features.notes),
        "open_ring_s": opened_s,
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
