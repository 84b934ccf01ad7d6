"""Latencies of single writes: percentiles as fio has them, from submission to completion."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bench.harness.cell import Cell

    Write = Callable[[memoryview, int], Any]
    AsyncWrite = Callable[[memoryview, int], Awaitable[Any]]

PERCENTILES = ("50", "90", "99", "99.9")
"""The last one needs a thousand writes to say anything."""


class Latencies:
    """Keeps what each write took; does nothing at all where a cell is not timed."""

    def __init__(self, cell: Cell) -> None:
        self._timed = cell.timed
        self._found_ns: list[int] = []

    def watch(self, write: Write) -> Write:
        """Wrap a call that writes (memory, offset) and returns when it is written."""
        if not self._timed:
            return write

        def watched(memory: memoryview, offset: int) -> Any:
            began = time.perf_counter_ns()
            result = write(memory, offset)
            self._found_ns.append(time.perf_counter_ns() - began)
            return result

        return watched

    def watch_async(self, write: AsyncWrite) -> AsyncWrite:
        """Do the same for a call that is awaited: what a task waits, the event loop included."""
        if not self._timed:
            return write

        async def watched(memory: memoryview, offset: int) -> Any:
            began = time.perf_counter_ns()
            result = await write(memory, offset)
            self._found_ns.append(time.perf_counter_ns() - began)
            return result

        return watched

    def facts(self) -> dict[str, Any]:
        """Give the percentiles in microseconds, as a fact of the measurement."""
        return {"latency_us": percentiles_us(self._found_ns)} if self._found_ns else {}


def percentiles_us(found_ns: Sequence[int]) -> dict[str, float]:
    """Take the nearest ranks of latencies in nanoseconds: the value that so many do not exceed."""
    ranked = sorted(found_ns)
    found = {}
    for name in PERCENTILES:
        rank = -(-len(ranked) * round(float(name) * 10) // 1000)  # rounded up
        found[name] = ranked[max(0, rank - 1)] / 1000
    return found
