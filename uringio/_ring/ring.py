"""The one surface that every ring has, and what all rings share.

A ring takes operations (`prepare`, `prepare_chain`), hands them over in one go (`submit`), makes
`wakeup_fd` readable when something has finished, and gives the results out (`reap`). It is
synchronous and knows nothing of trio. The layers above cannot tell one ring from another; so the
fallback and the simulator run the very code that the real ring runs.

Rules of the surface:
- A token names one operation for ever: tokens are counted up and never used twice, so a late
  `cancel` can hit nothing but what it was meant for.
- From `prepare` until its completion was reaped, an operation is in flight and the ring holds its
  memory. Every prepared operation completes exactly once, also after `cancel`; what was withdrawn
  is no longer prepared.
- A ring belongs to the thread and the process that made it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple, Protocol

from uringio.exceptions import ClosedError, ForkedError, WrongThreadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._ring.features import RingFeatures
    from uringio._ring.increment import Increment
    from uringio._ring.many import Many
    from uringio._ring.operations import Opcode, Operation
    from uringio._ring.pool import BufferPool


Completion = tuple[int, int]
"""What became of one operation: its token, and the system call's value or -errno. A plain tuple:
there is one for every operation, and a named one takes longer to make than to use."""


class RingCounts(NamedTuple):
    """System calls of a ring: `enters` of io_uring_enter(2) in all, for submits and for reaps.

    `retries` counts those that were refused for a while (EAGAIN, EBUSY, EINTR) and made again.
    """

    enters: int
    retries: int


class RingLike(Protocol):
    """What the layers above may ask of a ring. All calls return at once."""

    features: RingFeatures
    wakeup_fd: int
    """Readable when there may be something to reap. Its count means nothing."""

    @property
    def in_flight(self) -> int:
        """Operations prepared or submitted whose completion was not reaped yet."""

    @property
    def prepared(self) -> int:
        """Operations that `submit` has still to hand over."""

    @property
    def counts(self) -> RingCounts:
        """System calls since it was set up; a ring without io_uring_enter(2) has made none."""

    @property
    def ready(self) -> bool:
        """Whether a reap would find something, as far as can be told without a system call."""

    def supports(self, opcode: Opcode) -> bool:
        """Whether this ring executes such operations itself."""

    def prepare(self, operation: Operation) -> int:
        """Take one operation; the result is its token."""

    def prepare_chain(self, operations: Sequence[Operation]) -> range:
        """Take soft-linked operations, all or none; the result is their tokens, in order.

        Each begins when the one before has completed. Which failures cancel the rest for certain
        is in `execute.BREAKS_LINKS`.
        """

    def prepare_many(self, many: Many) -> int:
        """Take writes in no order, MANY_MAX such calls at a time; the result is one token for all.

        Its completion, with result 0, says that all have ended; their results are in `many`. The
        ring starts the next where one ends, IN_FLIGHT_MAX at a time (io_uring: of one descriptor).
        A `cancel` begins no more.
        """

    def withdraw(self, tokens: Sequence[int]) -> bool:
        """Take an operation, or a whole chain, back that no `submit` has handed over yet.

        True: it is as if it had never been prepared, and it does not complete. False: too late.
        """

    def cancel(self, token: int) -> None:
        """Ask for an early end (-ECANCELED). The operation still completes, maybe as if unasked."""

    def submit(self) -> int:
        """Hand over what was prepared; the result counts what must wait for a later call."""

    def reap(self) -> list[Completion]:
        """Clear the wake-up and take all completions there are.

        It may leave operations `prepared`, the next of many writes, for the next submit.
        """

    def register(self, pool: BufferPool) -> None:
        """Register the pool's slots, as many as can be had, and make room for its increments."""

    def register_increment(self, increment: Increment) -> None:
        """Register slots that the pool grows by, as many as can be had: see `buffer_index`.

        Operations in flight go on meanwhile.
        """

    def unregister_increment(self, increment: Increment) -> None:
        """Take the registration of slots back. No operation in flight may use them."""

    def register_memory(self, address: int, length: int) -> int:
        """Register memory that is no part of the pool; the result is its `buffer_index`, or -errno.

        Up to MEMORIES_MAX such pieces, each at most 1 GiB. It must stay mapped until it is
        unregistered. -EOPNOTSUPP: this ring, or this kernel, has no table to put it in.
        """

    def unregister_memory(self, index: int) -> None:
        """Take that registration back. No operation in flight may use it."""

    def close(self) -> None:
        """Give the ring back. Nothing may be in flight."""


_rings: weakref.WeakSet[OwnedRing] = weakref.WeakSet()


class OwnedRing:
    """Refuses use from another thread, from a forked child, and after close."""

    features: RingFeatures

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self._unusable: type[Exception] | None = None
        _rings.add(self)

    @property
    def ready(self) -> bool:
        """Never told: the wake-up does."""
        return False

    def _check_chain(self, count: int) -> None:
        if not 1 <= count <= self.features.entries:
            raise ValueError(f"a chain has 1 to {self.features.entries} operations")

    def _check_owner(self) -> None:
        if self._unusable is None and threading.get_ident() == self._thread:
            return
        if self._unusable is ForkedError:
            raise ForkedError(
                f"this ring belongs to process {self._process}: open a new one after a fork"
            )
        if self._unusable is not None:
            raise ClosedError("this ring is closed")
        raise WrongThreadError(
            "this ring belongs to another thread: open one in each thread that writes"
        )


def _disown_after_fork() -> None:
    # A child shares the ring's memory with its parent: one submit there corrupts both.
    for ring in _rings:
        ring._unusable = ForkedError  # noqa: SLF001  # the hook is OwnedRing's own other half


os.register_at_fork(after_in_child=_disown_after_fork)
