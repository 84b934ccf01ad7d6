"""Slots, awaited: who finds none free waits in line. That wait is the back-pressure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NoReturn

import trio
from outcome import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringio._ring.increment import Slot
    from uringio._ring.pool import BufferPool


class SlotQueue:
    """Hands the slots of a pool to waiting tasks, first come, first served."""

    def __init__(self, pool: BufferPool) -> None:
        self.pool = pool
        self.waits = 0
        self.wait_s = 0.0
        self.demand = trio.lowlevel.ParkingLot()
        """Unparked when a task begins to wait: who makes slots, waits here."""
        self._waiting: OrderedDict[trio.lowlevel.Task, float] = OrderedDict()

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return len(self.pool.free)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._waiting)

    @property
    def waiting_since(self) -> float:
        """When the first in line began to wait, by trio's clock in seconds; there must be one."""
        return next(iter(self._waiting.values()))

    async def acquire(self) -> Slot:
        """Wait for a slot. Its view is whole and its length 0; a cancelled task gets none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        slot = self.acquire_nowait()
        if slot is not None:
            return slot
        self.waits += 1
        task = trio.lowlevel.current_task()
        self._waiting[task] = trio.current_time()
        self.demand.unpark_all()

        def abort(_: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            self.wait_s += trio.current_time() - self._waiting.pop(task)
            return trio.lowlevel.Abort.SUCCEEDED

        got: Slot = await trio.lowlevel.wait_task_rescheduled(abort)
        return got

    def acquire_nowait(self) -> Slot | None:
        """Take a slot that is free now, unless others wait for one."""
        return None if self._waiting else self.pool.take()

    def release(self, slot: Slot) -> None:
        """Give a slot back: the first in line gets it. Not while an operation uses it."""
        self.pool.give(slot)
        if self._waiting:
            self.hand_out()

    def hand_out(self) -> None:
        """Give free slots to who waits for one, first come, first served."""
        now = trio.current_time()
        while self._waiting and (slot := self.pool.take()) is not None:
            task, since = self._waiting.popitem(last=False)
            self.wait_s += now - since
            trio.lowlevel.reschedule(task, Value(slot))
