"""Many writes of one file at a time, without a task for each.

The next write starts in the completion of one before, so a fixed number is in flight however many
there are, and one task awaits them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from outcome import Value

from uringio._ring import operations
from uringio._ring.short_writes import rest_of_write, write_error
from uringio.exceptions import UringioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from uringio._ring.operations import Operation
    from uringio._trio.reactor import Reactor

    Piece = tuple[memoryview, int]

IN_FLIGHT_MAX = 256
"""Writes in flight: a queue depth that any one device is busy with."""


class ManyWrites:
    """Writes pieces, (memory, offset) pairs, of one descriptor; `run` once."""

    def __init__(
        self, reactor: Reactor, fd: int, path: str, pieces: Iterator[Piece], flags: int
    ) -> None:
        self._reactor = reactor
        self._fd = fd
        self._path = path
        self._pieces = pieces
        self._flags = flags
        self._task: trio.lowlevel.Task | None = None
        self._tokens: set[int] = set()
        self._cancelled: Callable[[], NoReturn] | None = None
        self.failure: UringioError | None = None

    async def run(self) -> None:
        """Return when all has ended: `failure` is the first error, or None.

        A cancelled task starts no more, and leaves when those in flight have ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        for _ in range(IN_FLIGHT_MAX):
            if not self._start_next():
                break
        if self._tokens:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._cancelled is not None:
            self._cancelled()

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self._cancelled = raise_cancel
        for token in self._tokens:
            self._reactor.cancel(token)
        return trio.lowlevel.Abort.FAILED

    def _start_next(self) -> bool:
        if self.failure is not None or self._cancelled is not None:
            return False
        piece = next(self._pieces, None)
        if piece is None:
            return False
        view, offset = piece
        self._start(operations.write(self._fd, view, offset, len(view), flags=self._flags))
        return True

    def _start(self, operation: Operation) -> None:
        token = 0

        def completed(result: int) -> None:
            self._tokens.discard(token)
            self._completed(operation, result)

        try:
            token = self._reactor.start(operation, completed)
        except UringioError as exc:
            self.failure = self.failure or exc
        else:
            self._tokens.add(token)

    def _completed(self, operation: Operation, result: int) -> None:
        if result != operation.length and self._cancelled is None:
            rest = rest_of_write(operation, result)
            if rest is not None:
                self._start(rest)
            else:
                self.failure = self.failure or write_error(operation, result, self._path)
        self._start_next()
        if not self._tokens and self._task is not None:
            trio.lowlevel.reschedule(self._task, Value(None))
