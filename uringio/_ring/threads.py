"""The thread ring: the same surface over plain system calls in worker threads.

For systems without io_uring. It does the same operations with the same results; what it cannot
have is registered memory and one system call for many operations.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from uringio._ring.execute import CALLS, execute_chain
from uringio._ring.features import RingFeatures
from uringio._ring.ring import RingCounts
from uringio._ring.software import SoftwareRing
from uringio.exceptions import ClosedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._ring.increment import Increment
    from uringio._ring.operations import Opcode, Operation
    from uringio._ring.pool import BufferPool
    from uringio._ring.ring import Completion

WORKERS = 4
"""Threads, and so system calls at a time: one writes, one syncs, two overlap them. More of them
only contend for the interpreter and the inode."""


class ThreadRing(SoftwareRing):
    """Operations in worker threads; `entries` bounds the length of a chain only.

    `reason` says why it is not io_uring, where that was wanted.
    """

    def __init__(self, entries: int = 256, *, reason: str = "") -> None:
        super().__init__()
        self.features = RingFeatures("threads", entries, entries)
        if reason:
            self.features.notes.append(f"writing through threads: {reason}")
        self.wakeup_fd, self._wake_fd = _wakeup_pair()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="uringio")
        self._prepared: list[tuple[range, list[Operation]]] = []
        self._running: dict[int, tuple[range, Future[None]]] = {}
        self._completed: deque[Completion] = deque()

    @property
    def prepared(self) -> int:
        """Operations that `submit` has still to hand over."""
        return sum(len(tokens) for tokens, _ in self._prepared)

    @property
    def counts(self) -> RingCounts:
        """None: there is no ring to enter."""
        return RingCounts(0, 0)

    def supports(self, opcode: Opcode) -> bool:
        """Whether there is such a system call."""
        return opcode in CALLS

    def _take(self, tokens: range, operations: Sequence[Operation]) -> None:
        self._prepared.append((tokens, list(operations)))

    def _take_back(self, token: int) -> bool:
        before = len(self._prepared)
        self._prepared = [chain for chain in self._prepared if chain[0][0] != token]
        return len(self._prepared) < before

    def cancel(self, token: int) -> None:
        """End an operation that no thread has begun; one that runs, runs to its end."""
        self._check_owner()
        self._cancel_many(token)
        for i, (tokens, _) in enumerate(self._prepared):
            if token in tokens:
                del self._prepared[i]
                self._complete(tokens, [-errno.ECANCELED] * len(tokens))
                return
        tokens, future = self._running.get(token, (range(0), None))
        if future is not None and future.cancel():
            for member in tokens:  # a future that was cancelled says so every time it is asked
                del self._running[member]
            self._complete(tokens, [-errno.ECANCELED] * len(tokens))

    def submit(self) -> int:
        """Hand what was prepared to the threads."""
        self._check_owner()
        for tokens, operations in self._prepared:
            future = self._pool.submit(self._run, tokens, operations)
            self._running.update(dict.fromkeys(tokens, (tokens, future)))
        self._prepared.clear()
        return 0

    def reap(self) -> list[Completion]:
        """Clear the wake-up and take all completions there are."""
        self._check_owner()
        with contextlib.suppress(BlockingIOError):  # somebody asked without being woken
            os.read(self.wakeup_fd, 4096)
        completions = [self._completed.popleft() for _ in range(len(self._completed))]
        for token, _ in completions:
            self._running.pop(token, None)
        self.in_flight -= len(completions)
        return self._settle(completions)

    def register(self, pool: BufferPool) -> None:
        """Nothing to register with: the slots stay ordinary memory."""

    def register_increment(self, increment: Increment) -> None:
        """Nothing to register with either."""

    def unregister_increment(self, increment: Increment) -> None:
        """Nothing was registered."""

    def register_memory(self, address: int, length: int) -> int:  # noqa: ARG002  # RingLike's
        """Nothing to register with: -EOPNOTSUPP."""
        return -errno.EOPNOTSUPP

    def unregister_memory(self, index: int) -> None:
        """Nothing was registered."""

    def close(self) -> None:
        """End the threads. Nothing may be in flight."""
        if self._unusable is None:
            self._unusable = ClosedError
            self._pool.shutdown()
            for fd in {self.wakeup_fd, self._wake_fd}:
                os.close(fd)

    def _run(self, tokens: range, operations: list[Operation]) -> None:
        self._complete(tokens, execute_chain(operations))

    def _complete(self, tokens: range, results: list[int]) -> None:
        self._completed.extend(zip(tokens, results, strict=True))
        with contextlib.suppress(BlockingIOError):  # a full pipe is readable already
            os.write(self._wake_fd, (1).to_bytes(8, "little"))


def _wakeup_pair() -> tuple[int, int]:
    """Make a descriptor that wakes and the one that wakes it: an eventfd, or a pipe elsewhere."""
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return fd, fd
    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, False)
    return reader, writer
