"""File objects with a position: trio's and anyio's, aiofiles, urio.

Their interface is open()'s, awaited. A position allows one write at a time, so that is what they
get; a random write is a seek and a write. Unbuffered, where there is the choice: a block is handed
on as it is. trio, anyio and aiofiles have no fsync: os.fsync in a worker thread is the way.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from bench.harness.content import make_block, stamp
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.harness.measurement import Order

    OpenFile = Callable[[str, str], Awaitable[Any]]
    Sync = Callable[[Any], Awaitable[None]]


def with_trio(order: Order) -> Measurement:
    """Write by trio.open_file, whose calls go through trio's thread pool."""
    trio = imported("trio")

    async def open_file(path: str, mode: str) -> Any:
        return await trio.open_file(path, mode, buffering=0)

    async def sync(file: Any) -> None:
        await trio.to_thread.run_sync(os.fsync, file.fileno())

    measured: Measurement = trio.run(_write, order, open_file, sync)
    return measured


def with_anyio(order: Order) -> Measurement:
    """Write by anyio.open_file on asyncio, whose calls go through anyio's thread pool."""
    anyio = imported("anyio")

    async def open_file(path: str, mode: str) -> Any:
        return await anyio.open_file(path, mode, buffering=0)

    async def sync(file: Any) -> None:
        await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())

    measured: Measurement = anyio.run(_write, order, open_file, sync)
    return measured


def with_aiofiles(order: Order) -> Measurement:
    """Write by aiofiles.open, whose calls go through asyncio's executor."""
    aiofiles = imported("aiofiles")

    async def open_file(path: str, mode: str) -> Any:
        return await aiofiles.open(path, mode, buffering=0)

    async def sync(file: Any) -> None:
        await asyncio.to_thread(os.fsync, file.fileno())

    return asyncio.run(_write(order, open_file, sync))


def with_urio(order: Order) -> Measurement:
    """Write by urio.open; it has an fsync of its own."""
    urio = imported("urio")

    async def open_file(path: str, mode: str) -> Any:
        return await urio.open(path, mode)

    async def sync(file: Any) -> None:
        await file.fsync()

    return asyncio.run(_write(order, open_file, sync))


async def _write(order: Order, open_file: OpenFile, sync: Sync) -> Measurement:
    cell = order.cell
    block = make_block(cell.block_bytes)
    meter = Meter()
    meter.start()
    file = await open_file(str(order.target), "xb" if cell.pattern == "fresh" else "r+b")
    for number in cell.numbers():
        stamp(block, number)
        if cell.pattern == "random":
            await file.seek(number * cell.block_bytes)
        if await file.write(block) != cell.block_bytes:
            raise CannotRunError("a write was short: is the disk full?")
    await sync(file)
    close = file.aclose if hasattr(file, "aclose") else file.close
    await close()
    return Measurement.of_this_process(order, meter.stop())


def imported(name: str) -> Any:
    """Import a peer, by name, so that types are checked without it too."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        python = ".".join(map(str, sys.version_info[:2]))
        raise CannotRunError(
            f"{name} cannot be imported by Python {python} here ({exc}): "
            "pip install 'uringd[bench]' brings it where it has a release for this Python"
        ) from exc
