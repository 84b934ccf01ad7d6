"""Each of the library's own choices switched off, one at a time.

Where the library has a switch, it is used. Where it has none, the switch is made here, in a process
that makes one measurement and ends: a ring that leaves a step out, or a function that does nothing.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from bench.harness.library import Way, measure_writer
from bench.harness.measurement import CannotRunError
from bench.harness.offsets import pwrite_many_apart
from uringio.lowlevel import Preallocation, UringRing, run_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from bench.harness.library import OpenRing
    from bench.harness.measurement import Measurement, Order
    from uringio import Ring
    from uringio.lowlevel import BufferPool, Operation

PR_SET_THP_DISABLE = 41
"""prctl(2): no huge pages for this process, whatever madvise says."""


def unregistered(order: Order) -> Measurement:
    """Do not register the slots: the kernel pins their pages anew for each write."""
    return measure_writer(order, Way(open_ring=_with_ring(_Unregistered)))


def small_pages(order: Order) -> Measurement:
    """Have slots of scattered 4 KiB pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise CannotRunError(f"prctl(PR_SET_THP_DISABLE): {os.strerror(ctypes.get_errno())}")
    return measure_writer(order, Way())


def unreserved(order: Order) -> Measurement:
    """Reserve nothing: each write makes the file grow."""
    setattr(Preallocation, "reserve", _reserve_nothing)  # noqa: B010  # types forbid it, rightly
    return measure_writer(order, Way())


def buffered(order: Order) -> Measurement:
    """Write through the page cache."""
    return measure_writer(order, Way(direct="never"))


def unbatched(order: Order) -> Measurement:
    """Hand each operation to the kernel by itself, with an io_uring_enter(2) of its own."""
    open_ring = _with_ring(_Unbatched)
    if order.cell.pattern == "fresh":
        return measure_writer(order, Way(open_ring=open_ring))
    return pwrite_many_apart(order, open_ring)


class _Unregistered(UringRing):
    def register(self, pool: BufferPool) -> None:
        """Leave all slots as they are: plain memory."""


class _Unbatched(UringRing):
    def prepare(self, operation: Operation) -> int:
        """Prepare and submit."""
        token = super().prepare(operation)
        self.submit()
        return token

    def prepare_chain(self, operations: Sequence[Operation]) -> range:
        """Prepare a chain and submit it: it is one submission by nature."""
        tokens = super().prepare_chain(operations)
        self.submit()
        return tokens


def _with_ring(kind: Callable[[], UringRing]) -> OpenRing:
    def open_ring(slots: int, slot_bytes: int) -> AbstractAsyncContextManager[Ring]:
        return run_ring(kind(), slots, slot_bytes)

    return open_ring


async def _reserve_nothing(_: Preallocation, _end: int) -> None:
    """Take the place of Preallocation.reserve."""
