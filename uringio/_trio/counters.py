"""Counters: what the reactor counts as operations begin and end, cheap enough to be always on.

All that this costs an operation is in `begun` and `ended` (and, to save the call, in
`Reactor.start` for writes): a tuple, a look into a dict and a bucket. The clock is read once for
all operations that begin in one tick of the event loop, since they reach the kernel together, and
once for all that are reaped together.

Which bytes are durable, as seen from here: an fsync that succeeded makes durable what the writes
of the same descriptor had completed when it began, and, in a chain, the writes that stand before
it. What another descriptor of that file wrote is durable too, but which those are is not known
here: the figure is a floor and never too high. A write with RWF_DSYNC is durable by itself, and
none of those that an fsync has still to cover.

Many writes that the ring keeps going by itself (perform_many) are seen here when they begin and
when the last has ended: they are counted from their results, and timed as a whole.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from uringio._ring.many import NOT_BEGUN, STARTED
from uringio._ring.operations import CLOSE, FSYNC, NAMES, RWF_DSYNC, WRITE, WRITE_FIXED
from uringio._trio.histogram import BUCKETS_COUNTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uringio._ring.many import Many
    from uringio._ring.operations import Operation
    from uringio._ring.ring import Completion

    Callback = Callable[[int], None]
    Entry = tuple[Callback, "OperationCounter", int, int]
    """Whom to call, where to count, when it began in ns, and how many bytes it is to write."""

WRITE_MANY = "write_many"
"""The kind of many writes: the time from the first to the last of them is that of no single one."""


class OperationCounter:
    """Operations of one kind, or the writes of one descriptor: their latencies and bytes."""

    __slots__ = ("durable_bytes", "latencies", "written_bytes")

    def __init__(self, latencies: list[int]) -> None:
        self.latencies = latencies
        self.written_bytes = 0
        self.durable_bytes = 0


class Counters:
    """What was counted since the ring was opened; `statistics.py` shows it."""

    def __init__(self) -> None:
        self.written_bytes = 0
        self.unwritten_bytes = 0
        self.many_bytes = 0
        self.short_writes = 0
        self.completions = 0
        self.batches = [0] * BUCKETS_COUNTED
        self.latencies: dict[str, list[int]] = {}
        self.tick_ns = 0
        self._kinds = {
            opcode: OperationCounter(self.latencies.setdefault(name, [0] * BUCKETS_COUNTED))
            for opcode, name in NAMES.items()
        }
        self.files: dict[int, OperationCounter] = {}
        self.synced = OperationCounter(self.latencies[NAMES[WRITE]])
        self._many = OperationCounter(self.latencies.setdefault(WRITE_MANY, [0] * BUCKETS_COUNTED))
        self._fsynced_bytes = 0

    @property
    def durable_bytes(self) -> int:
        """Bytes of writes that an fsync covered, or that were durable by themselves."""
        return self._fsynced_bytes + self.synced.written_bytes

    def is_durable(self, fd: int) -> bool:
        """Whether all that was written through a descriptor was covered by an fsync of it."""
        file = self.files.get(fd)
        return file is None or file.durable_bytes == file.written_bytes

    def begun(self, operation: Operation, callback: Callback, before_bytes: int = 0) -> Entry:
        """Count an operation in; `before_bytes` are its file's writes before it in its chain."""
        opcode, fd = operation.opcode, operation.fd
        now_ns = self.tick_ns or self.tick()
        if opcode is WRITE_FIXED or opcode is WRITE:
            return callback, self._of_file(fd, operation.flags), now_ns, operation.length
        if opcode is FSYNC and fd in self.files:
            file = self.files[fd]
            callback = partial(self._synced, callback, file, file.written_bytes + before_bytes)
        elif opcode is CLOSE:
            self.files.pop(fd, None)
        return callback, self._kinds[opcode], now_ns, 0

    def begun_chain(
        self, operations: Sequence[Operation], callback: Callable[[int, int], None]
    ) -> list[Entry]:
        """Count linked operations in; `callback(index, result)` is called for each."""
        before: dict[int, int] = {}
        entries = []
        for index, operation in enumerate(operations):
            fd, opcode = operation.fd, operation.opcode
            entries.append(self.begun(operation, partial(callback, index), before.get(fd, 0)))
            if (opcode is WRITE or opcode is WRITE_FIXED) and not operation.flags & RWF_DSYNC:
                before[fd] = before.get(fd, 0) + operation.length
        return entries

    def begun_many(self, many: Many, callback: Callback) -> Entry:
        """Count many writes in."""
        self.many_bytes += sum(many.lengths)
        now_ns = self.tick_ns or self.tick()
        ended = partial(self._ended_many, callback, many, self._of_file(many.fd, many.flags))
        return ended, self._many, now_ns, 0

    def ended(self, completions: Sequence[Completion], waiting: dict[int, Entry]) -> None:
        """Take operations that were reaped together out of `waiting`, count them, call back."""
        self.completions += len(completions)
        self.tick_ns = now_ns = perf_counter_ns()
        tick_ns = bucket = 0
        for token, result in completions:
            entry = waiting.pop(token, None)
            if entry is None:
                continue
            callback, counter, begun_ns, length = entry
            if begun_ns != tick_ns:  # most of them began together
                tick_ns, bucket = begun_ns, ((now_ns - begun_ns) // 1000).bit_length()
            counter.latencies[bucket] += 1
            if length:
                done = length
                if result != length:
                    done = max(result, 0)
                    self.unwritten_bytes += length - done
                    self.short_writes += done > 0
                counter.written_bytes += done
                self.written_bytes += done
            callback(result)

    def tick(self) -> int:
        """Read the clock for all that begins in this tick of the event loop."""
        self.tick_ns = perf_counter_ns()
        return self.tick_ns

    def count_file(self, fd: int) -> OperationCounter:
        """Begin to count the writes of a descriptor."""
        file = self.files[fd] = OperationCounter(self.latencies[NAMES[WRITE]])
        return file

    def _of_file(self, fd: int, flags: int) -> OperationCounter:
        if flags & RWF_DSYNC:
            return self.synced
        return self.files.get(fd) or self.count_file(fd)

    def _ended_many(
        self, callback: Callback, many: Many, file: OperationCounter, result: int
    ) -> None:
        total = done = sum(many.lengths)
        ended = len(many.lengths)
        if many.results != many.lengths:
            done = 0
            for length, written in zip(many.lengths, many.results, strict=True):
                done += max(written, 0)
                self.short_writes += 0 < written < length
                ended -= written in (NOT_BEGUN, STARTED)
        self.completions += ended - (result == 0)  # the ring told of one, if it could
        self.many_bytes -= total
        self.unwritten_bytes += total - done
        self.written_bytes += done
        file.written_bytes += done
        callback(result)

    def _synced(
        self, callback: Callback, file: OperationCounter, covered_bytes: int, result: int
    ) -> None:
        if result >= 0 and covered_bytes > file.durable_bytes:
            self._fsynced_bytes += covered_bytes - file.durable_bytes
            file.durable_bytes = covered_bytes
        callback(result)
