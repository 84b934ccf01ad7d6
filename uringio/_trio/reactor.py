"""The reactor: everything that goes into a ring or comes out of it passes here.

What trio and the ring demand of each other:
- Submissions are batched: operations are prepared as tasks run, and one `submit` goes in when trio
  is about to wait (`Instrument.before_io_wait`), or for each TURN_MAX of them. Only a submit:
  completion work half done there would wake nobody, for the eventfd does not fire for its rest.
- What woke the loop is reaped in `Instrument.after_io_wait`: those who waited for it run in this
  tick. A task that reaps would have them run in the next, behind one more look at all descriptors.
- One system task reaps. It is a system task because completions must be reaped as long as anybody
  waits for one: a task in `perform` leaves only at its completion (`Abort.FAILED`), so a reaper
  that was cancelled together with its waiters would leave them there for ever.
- An exception in an instrument makes trio drop the instrument. So a ring that fails there is marked
  broken there and tells its waiters in the next tick.
"""

from __future__ import annotations

import contextlib
import errno
import warnings
from typing import TYPE_CHECKING, NoReturn

import trio

from uringio._ring.execute import breaks_chain, execute
from uringio._ring.many import MANY_MAX
from uringio._ring.operations import RWF_DSYNC, WRITE, WRITE_FIXED, Opcode
from uringio._trio.counters import Counters
from uringio._trio.waits import CANCELLED_RESULTS, LinkedResults, Wait, no_abort
from uringio.exceptions import BrokenError, ClosedError, ForkedError, UringioError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from uringio._ring.many import Many
    from uringio._ring.operations import Operation
    from uringio._ring.ring import RingLike
    from uringio._trio.counters import Callback, Entry

IN_FLIGHT_MAX = 4096
"""Operations in flight through one reactor: beyond it tasks wait their turn. Bounds the kernel's
memory for requests (about 256 bytes each) and what a close has to wait for."""

TURN_MAX = 32
"""Operations that a tick prepares before they are handed over, and not only at its end: a tick of a
hundred small writes is a millisecond of Python, in which the disk would run dry. At QD128 they were
written 1.2 times as fast as by one submit a tick; 16 and 64 gained less."""

CLOSE_TIMEOUT_S = 60.0
"""How long a close waits for the kernel to give operations back. A disk that takes longer for one
write has failed; its memory is then leaked, since freeing it could let the disk read other data."""

_current_task = trio.lowlevel.current_task
_wait_task_rescheduled = trio.lowlevel.wait_task_rescheduled

_leaked: list[object] = []
"""Rings and pools that could not be closed: kept for the life of the process."""


class Reactor(trio.abc.Instrument):
    """Runs operations of one ring for the tasks of one trio run."""

    def __init__(self, ring: RingLike) -> None:
        self.ring = ring
        self.counters = Counters()
        self._waiting: dict[int, Entry] = {}
        self._idle = trio.lowlevel.ParkingLot()
        self._turn = trio.lowlevel.ParkingLot()
        self._lacking = frozenset(opcode for opcode in Opcode if not ring.supports(opcode))
        self._many_turn = trio.Semaphore(MANY_MAX)
        self._reaper = trio.CancelScope()
        self._reaped = False
        self._is_turn_full = False
        self._stopped = trio.Event()
        self._failure: UringioError | None = None
        self._closing = False
        self._trio_token = trio.lowlevel.current_trio_token()
        self.gave_up = False

    def open(self) -> None:
        """Start the reaper and join trio's scheduler."""
        trio.lowlevel.add_instrument(self)
        trio.lowlevel.spawn_system_task(self._reap_until_closed, name="uringio reaper")

    @property
    def in_flight(self) -> int:
        """Operations started here whose completion has not come; many writes count as one."""
        return len(self._waiting)

    @property
    def is_broken(self) -> bool:
        """Whether the ring failed for good: the kernel may then still use memory of old writes."""
        return self._failure is not None

    @property
    def accepted_bytes(self) -> int:
        """Bytes of all the writes that were started, done or not."""
        counters = self.counters
        done = counters.written_bytes + counters.unwritten_bytes + counters.many_bytes
        return done + sum(length for _, _, _, length in self._waiting.values())

    def start(self, operation: Operation, callback: Callback) -> int:
        """Start an operation; the reaper calls `callback(result)` once, which must not raise.

        The result is a token for `cancel`.
        """
        if self._closing or self._failure is not None:
            self._check_open()
        if self._is_turn_full:  # before, so that who is cancelled already can take its own back
            self._hand_over()
        token = self.ring.prepare(operation)
        opcode, counters = operation.opcode, self.counters
        if opcode is WRITE_FIXED or opcode is WRITE:  # as Counters.begun, without the call
            file = counters.files.get(operation.fd) or counters.count_file(operation.fd)
            if operation.flags & RWF_DSYNC:
                file = counters.synced
            now_ns = counters.tick_ns or counters.tick()
            self._waiting[token] = callback, file, now_ns, operation.length
        else:
            self._waiting[token] = counters.begun(operation, callback)
        if not token % TURN_MAX:
            self._is_turn_full = True
        return token

    def cancel(self, token: int) -> None:
        """Ask for an early end of an operation. Its callback is called all the same."""
        if token in self._waiting and self._failure is None:
            # Only asked for, and trio allows no exception here: the next submit tells it again.
            with contextlib.suppress(UringioError):
                self.ring.cancel(token)

    def withdraw(self, tokens: Sequence[int]) -> bool:
        """Take back operations of one call that were not submitted; False: too late."""
        if self._failure is not None:
            return False
        with contextlib.suppress(UringioError):  # trio allows no exception here
            if self.ring.withdraw(tokens):
                for token in tokens:
                    del self._waiting[token]
                self._make_way(len(tokens))
                return True
        return False

    async def perform(self, operation: Operation) -> int:
        """Await one operation: the system call's result, or -errno.

        A task that is cancelled before the operation was submitted takes it back, and nothing was
        done: also when it was cancelled already. Later it asks the kernel to cancel and then waits
        for the completion all the same, because until then the memory is the kernel's. If the
        operation was done by then, its result is returned and the cancellation is delivered at the
        next checkpoint.
        """
        return await self.performing(operation)

    def performing(self, operation: Operation) -> Awaitable[int]:
        """Begin what `perform` awaits. The very task that calls this has to await it, at once.

        For the one place that every small write passes: a coroutine more costs it a twentieth.
        """
        if operation.opcode in self._lacking:
            return trio.to_thread.run_sync(execute, operation)
        if len(self._waiting) >= IN_FLIGHT_MAX:
            return self._perform_in_turn(operation)
        wait = Wait(self, _current_task())
        wait.tokens = (self.start(operation, wait.completed),)
        return _wait_task_rescheduled(wait.abort)

    async def _perform_in_turn(self, operation: Operation) -> int:
        await self._wait_turn(1)
        return await self.perform(operation)

    async def perform_chain(
        self, operations: Sequence[Operation], *, to_the_end: bool = False
    ) -> list[int]:
        """Await soft-linked operations, submitted as one: their results, in order.

        A write that fails or is short cancels those behind it (-ECANCELED); other failures may or
        may not (`execute.BREAKS_LINKS`). Where the ring lacks one of the operations, they are done
        one by one, and every failure does. A cancelled task leaves when all have completed, as in
        `perform`; `to_the_end` cancels none of them, as a shielded scope around the call would,
        which costs a chain of two a twentieth of its time.
        """
        if self._lacking and any(op.opcode in self._lacking for op in operations):
            with trio.CancelScope(shield=to_the_end):
                return await self._perform_one_by_one(operations)
        if len(self._waiting) + len(operations) > IN_FLIGHT_MAX:
            with trio.CancelScope(shield=to_the_end):
                await self._wait_turn(len(operations))
        wait = Wait(self, _current_task())
        chain = LinkedResults(len(operations), wait.completed)
        self._check_open()
        wait.tokens = tokens = self.ring.prepare_chain(operations)
        entries = self.counters.begun_chain(operations, chain.completed)
        self._waiting.update(zip(tokens, entries, strict=True))
        await _wait_task_rescheduled(no_abort if to_the_end else wait.abort)
        if not CANCELLED_RESULTS.isdisjoint(chain.results):
            wait.raise_if_cancelled()
        return chain.results

    async def perform_many(self, many: Many) -> None:
        """Await writes in no order, kept going by the ring; `many.results` say what became of each.

        Up to MANY_MAX such calls run at a time, others wait their turn. A cancelled task begins no
        more, and leaves when those in flight have ended, as in `perform`.
        """
        async with self._many_turn:
            wait = Wait(self, _current_task())
            self._check_open()
            token = self.ring.prepare_many(many)
            wait.tokens = (token,)
            self._waiting[token] = self.counters.begun_many(many, wait.completed)
            result: int = await _wait_task_rescheduled(wait.abort)
            if result < 0:  # the ring gave up: what was written of them nobody knows
                self._check_open()
            if not CANCELLED_RESULTS.isdisjoint(many.results):
                wait.raise_if_cancelled()

    async def perform_always(self, operation: Operation) -> int:
        """Await an operation that cleans up: also on a ring that is broken or closing.

        Neither cancellable nor ever an exception: the result, or -errno. In a forked child nothing
        is done: what there is to clean up is its parent's, which goes on.
        """
        result = -errno.EIO
        with trio.CancelScope(shield=True):
            try:
                return await self.perform(operation)
            except ForkedError:
                return result
            except UringioError:
                result = await trio.to_thread.run_sync(execute, operation)
        return result

    async def _wait_turn(self, count: int) -> None:
        while self._waiting and len(self._waiting) + count > IN_FLIGHT_MAX:
            await self._turn.park()

    async def _perform_one_by_one(self, operations: Sequence[Operation]) -> list[int]:
        results: list[int] = []
        broken = False
        for operation in operations:
            if broken:
                result = -errno.ECANCELED
            else:
                result = await self.perform(operation)
            results.append(result)
            broken = broken or breaks_chain(operation, result)
        return results

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight."""
        while self._waiting:
            await self._idle.park()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # trio's signature
        """Hand over what the tasks of this tick have prepared (called by trio)."""
        self.counters.tick_ns = 0
        self._reaped = False
        self._hand_over()

    def _hand_over(self) -> None:
        self._is_turn_full = False
        left = self.ring.prepared
        if not left:
            return
        self.counters.batches[left.bit_length()] += 1
        try:
            left = self.ring.submit()
        except UringioError as exc:
            self._failure, left = exc, 1
        except Exception as exc:  # noqa: BLE001  # raised where trio lets it end the run
            self._trio_token.run_sync_soon(self._end_run, exc)
        if left:
            # The kernel is short of memory or of CQ space: reap, and try again next tick. Tasks
            # that are resumed from here would not run, for trio has settled how long it sleeps.
            self._trio_token.run_sync_soon(self._reap, idempotent=True)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # trio's signature
        """Reap what has completed while trio waited (called by trio)."""
        try:
            if self._waiting and self.ring.ready:
                self._reaped = True
                self._reap()
        except Exception as exc:  # noqa: BLE001  # raised where trio lets it end the run
            self._trio_token.run_sync_soon(self._end_run, exc)

    async def aclose(self) -> bool:
        """Wait for what is in flight, then stop; False if the kernel kept operations.

        Not cancellable; takes CLOSE_TIMEOUT_S at the most.
        """
        self._closing = True
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_TIMEOUT_S):
                await self.wait_idle()
            trio.lowlevel.remove_instrument(self)
            self._reaper.cancel()
            await self._stopped.wait()
        if not self._waiting and not self.gave_up:
            return True
        self.keep(self.ring)
        warnings.warn(
            f"the kernel did not give {len(self._waiting) or 'all'} operations back: their memory "
            "is leaked, not freed, because the disk may still read it",
            ResourceWarning,
            stacklevel=2,
        )
        return False

    def keep(self, memory: object) -> None:
        """Keep memory for the life of the process: the kernel may still use it."""
        _leaked.append(memory)

    async def _reap_until_closed(self) -> None:
        try:
            with self._reaper:
                while True:
                    await trio.lowlevel.wait_readable(self.ring.wakeup_fd)
                    if not self._reaped:
                        self._reap()
        finally:
            self._stopped.set()

    def _reap(self) -> None:
        if self._stopped.is_set():
            return
        try:
            completions = self.ring.reap()
        except UringioError as exc:
            self._failure = self._failure or exc
            completions = []
        self.counters.ended(completions, self._waiting)
        if self._failure is not None:
            self._give_up()
        self._make_way(max(1, len(completions)))

    def _make_way(self, count: int) -> None:
        """Let those go on who wait for `count` operations less, or for none."""
        self._turn.unpark(count=count)
        if not self._waiting:  # nothing will complete that could wake another
            self._turn.unpark_all()
            self._idle.unpark_all()

    def _give_up(self) -> None:
        """End every wait of a broken ring with EIO. What the kernel may still hold is leaked."""
        if self._waiting:
            self.keep(self.ring)
            self.gave_up = True
        while self._waiting:
            _, (callback, _, _, length) = self._waiting.popitem()
            self.counters.unwritten_bytes += length
            callback(-errno.EIO)

    def _end_run(self, exc: Exception) -> NoReturn:
        """End the run by a fault of ours, and every wait first: the reaper goes with the run."""
        self._failure = self._failure or BrokenError(f"the ring failed: {exc!r}")
        self._give_up()
        raise exc

    def _check_open(self) -> None:
        if self._failure is not None:
            raise BrokenError(str(self._failure)) from self._failure
        if self._closing:
            raise ClosedError("this ring is closed")
