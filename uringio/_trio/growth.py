"""Growth: the pool follows demand between two bounds, while writes are in flight.

It grows when a task has waited for a slot longer than a disk at work explains, and shrinks when
slots were free all the time for a while. Nothing in flight is waited for either way: slots of other
increments go on, and an increment goes only when none of its slots is held, so that no operation
uses its memory. It is unregistered before it is unmapped.

It all runs in the trio thread: the ring takes registrations from no other one, and to map and
register an increment is over in a moment (INCREMENT_BYTES says how long).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from uringio.exceptions import UringioError

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

GROW_AFTER_S = 0.02
"""How long a task waits before the pool grows. A disk that is the bottleneck gives a slot back
sooner, 1 MiB at 100 MB/s in 10 ms, and more slots would not make it faster; a longer wait says that
the slots are held by something else, by slow senders for example."""

SHRINK_AFTER_S = 5.0
"""How long slots are spare before one increment goes: longer than a pause between two files that
would want it back at once, short enough that a burst's memory is back soon after it."""


class Growth:
    """Grows and shrinks the pool of one ring, from `open` to `aclose`."""

    def __init__(self, reactor: Reactor, slots: SlotQueue) -> None:
        self._reactor = reactor
        self._ring = reactor.ring
        self._slots = slots
        self._pool = slots.pool
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._failed = False

    def open(self) -> None:
        """Begin to follow demand."""
        trio.lowlevel.spawn_system_task(self._follow_demand, name="uringio pool growth")

    async def aclose(self) -> None:
        """Stop. The pool stays as big as it is. Not cancellable."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._stopped.wait()

    async def _follow_demand(self) -> None:
        pool, slots = self._pool, self._slots
        shrink_at = math.inf
        try:
            with self._scope:
                while not self._failed and not self._reactor.is_broken:
                    now = trio.current_time()
                    grow_at = math.inf
                    if slots.waiting and len(pool) < pool.slots_max:
                        grow_at = slots.waiting_since + GROW_AFTER_S
                    if now >= grow_at:
                        self._try(self._grow)
                        shrink_at = now + SHRINK_AFTER_S
                        await trio.lowlevel.checkpoint()  # the others' turn, before the next one
                        continue
                    if now >= shrink_at:
                        self._try(self._shrink)
                        grown = len(pool) > pool.slots_min
                        shrink_at = now + SHRINK_AFTER_S if grown else math.inf
                    with trio.move_on_at(min(grow_at, shrink_at)):
                        await slots.demand.park()
        finally:
            self._stopped.set()

    def _try(self, change: Callable[[], None]) -> None:
        try:
            change()
        except UringioError as exc:
            self._failed = True
            self._ring.features.note(f"the pool stays at {len(self._pool)} slots: {exc}")

    def _grow(self) -> None:
        increment = self._pool.map_increment()
        if increment is None:
            return
        try:
            self._ring.register_increment(increment)
        except BaseException:
            increment.close()
            raise
        self._pool.add(increment)
        self._ring.features.slots = len(self._pool)
        self._slots.hand_out()

    def _shrink(self) -> None:
        increment = self._pool.idle_increment()
        if increment is not None:
            self._ring.unregister_increment(increment)
            self._pool.remove(increment)
            self._ring.features.slots = len(self._pool)
