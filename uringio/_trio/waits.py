"""What a task leaves behind while it waits for completions, and what it is resumed with."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uringio._trio.counters import Callback
    from uringio._trio.reactor import Reactor

    RaiseCancel = Callable[[], NoReturn]

CANCELLED_RESULTS = frozenset({-errno.ECANCELED, -errno.EINTR})
"""What an operation says that was ended early: before it began, or in a kernel worker."""

_reschedule = trio.lowlevel.reschedule


def no_abort(_raise_cancel: RaiseCancel) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class Wait:
    """A task that waits for operations: what their start, their cancel and their end need, in one.

    It is the outcome that trio resumes the task with, too: all trio asks of one is `unwrap`, and a
    Value beside it costs a small write 4 % more.
    """

    __slots__ = ("raise_cancel", "reactor", "result", "task", "tokens")

    def __init__(self, reactor: Reactor, task: trio.lowlevel.Task) -> None:
        self.reactor = reactor
        self.task = task
        self.tokens: Sequence[int]
        self.raise_cancel: RaiseCancel | None = None

    def completed(self, result: int) -> None:
        self.result = result
        _reschedule(self.task, self)  # type: ignore[arg-type]  # no Outcome, but what one can do

    def unwrap(self) -> int:
        result = self.result
        if result in CANCELLED_RESULTS:
            self.raise_if_cancelled()
        return result

    def raise_if_cancelled(self) -> None:
        if self.raise_cancel is not None:
            self.raise_cancel()

    def abort(self, raise_cancel: RaiseCancel) -> trio.lowlevel.Abort:
        if self.reactor.withdraw(self.tokens):
            return trio.lowlevel.Abort.SUCCEEDED
        self.raise_cancel = raise_cancel
        for token in self.tokens:
            self.reactor.cancel(token)
        return trio.lowlevel.Abort.FAILED


class LinkedResults:
    """Collects the results of linked operations and tells when the last one is in."""

    __slots__ = ("left", "results", "whole")

    def __init__(self, count: int, whole: Callback) -> None:
        self.results = [0] * count
        self.left = count
        self.whole = whole

    def completed(self, index: int, result: int) -> None:
        self.results[index] = result
        self.left -= 1
        if self.left == 0:
            self.whole(0)
