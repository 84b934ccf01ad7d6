"""RingStatistics: what a ring has done so far, as one frozen snapshot a user can plot.

Totals only grow; two snapshots subtracted (`later - earlier`) say what was done between them, and
`later.time_s - earlier.time_s` in how many seconds. Gauges say how things are at that moment, and
a difference keeps the later one's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from time import perf_counter
from typing import TYPE_CHECKING, Any

from uringio._trio.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uringio._trio.modes import Cache
    from uringio._trio.reactor import Reactor
    from uringio._trio.slots import SlotQueue

GAUGES = frozenset({"in_flight", "slots", "registered_slots", "free_slots", "waiting_for_slot"})


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """A snapshot. What is not called a gauge is a total since the ring was opened.

    `time_s`: seconds of time.perf_counter() at the snapshot; of a difference, the seconds between.

    `accepted_bytes`, `written_bytes`, `durable_bytes`: of the write operations of all files, those
    handed to the ring; those whose completion came; those that a later fsync of the same descriptor
    covered, or that were durable by themselves (RWF_DSYNC). Operations, not files: the padding of a
    last block, and a block that is written twice (a flush in mid-slot, the rest of a short write),
    count as often as they are written. What a cancelled or failed write left unwritten stays
    accepted and is never written.

    `in_flight`: operations begun and not completed (gauge). `completions`: operations completed.
    `short_writes`: writes that took some of their bytes and had to be continued.

    What the ring keeps going by itself in a `UringFile.pwrite_many` is counted as a whole: its
    bytes are accepted at once and written when the last write of it ended, and until then it is one
    operation in flight. Then each of its writes that was begun is a completion, and short if it
    was; "write_many" has one latency for all of them, and "write" none.

    `enters`: io_uring_enter(2) calls; `retries`: those that the kernel refused for a while (EAGAIN,
    EBUSY, EINTR) and that were made again; both 0 for a ring of threads. `batches`: operations
    handed over at a time, of which a tick of the event loop that has many makes several; io_uring
    begins the writes of a `pwrite_many` without being handed them, and counts one for all.

    `latencies`: by kind of operation ("write", "read", "fsync", ...), the microseconds from the
    tick in which it began to the one in which it was reaped, so with the event loop's own delays.
    Operations that the ring lacks, and that ran in a thread, are not among them.

    `slots`, `registered_slots`, `free_slots`: of the pool (gauges). `waiting_for_slot`: tasks that
    wait for one (gauge). `slot_waits`: how often a task had to; `slot_wait_s`: for how many seconds
    in all, the waits that have ended. `pool_growths`, `pool_shrinks`: increments that the pool
    grew by, and that it gave back.

    `direct_files`, `uncached_files`, `cached_files`: files that were created or opened, by how they
    go to the disk: past the page cache, through it without staying there, or into it.
    """

    time_s: float
    accepted_bytes: int
    written_bytes: int
    durable_bytes: int
    in_flight: int
    completions: int
    short_writes: int
    enters: int
    retries: int
    batches: Histogram
    latencies: Mapping[str, Histogram]
    slots: int
    registered_slots: int
    free_slots: int
    waiting_for_slot: int
    slot_waits: int
    slot_wait_s: float
    pool_growths: int
    pool_shrinks: int
    direct_files: int
    uncached_files: int
    cached_files: int

    def __sub__(self, earlier: RingStatistics) -> RingStatistics:
        between: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            mine, theirs = getattr(self, name), getattr(earlier, name)
            if name == "latencies":
                empty = Histogram()
                between[name] = {kind: mine[kind] - theirs.get(kind, empty) for kind in mine}
            else:
                between[name] = mine if name in GAUGES else mine - theirs
        return RingStatistics(**between)

    def to_dict(self) -> dict[str, object]:
        """Give it as JSON takes it: numbers, and histograms as `Histogram.to_dict` has them."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        latencies = {kind: histogram.to_dict() for kind, histogram in self.latencies.items()}
        return plain | {"batches": self.batches.to_dict(), "latencies": latencies}


def snapshot(reactor: Reactor, slots: SlotQueue, files: Mapping[Cache, int]) -> RingStatistics:
    """Copy the counters of a ring; `files` counts them by how they go to the disk."""
    counters, ring = reactor.counters, reactor.ring
    enters, retries = ring.counts
    latencies = {kind: Histogram.of_counted(counts) for kind, counts in counters.latencies.items()}
    return RingStatistics(
        time_s=perf_counter(),
        accepted_bytes=reactor.accepted_bytes,
        written_bytes=counters.written_bytes,
        durable_bytes=counters.durable_bytes,
        in_flight=reactor.in_flight,
        completions=counters.completions,
        short_writes=counters.short_writes,
        enters=enters,
        retries=retries,
        batches=Histogram.of_counted(counters.batches),
        latencies={kind: histogram for kind, histogram in latencies.items() if histogram.count},
        slots=len(slots.pool),
        registered_slots=ring.features.registered_slots,
        free_slots=slots.free,
        waiting_for_slot=slots.waiting,
        slot_waits=slots.waits,
        slot_wait_s=slots.wait_s,
        pool_growths=slots.pool.growths,
        pool_shrinks=slots.pool.shrinks,
        direct_files=files["direct"],
        uncached_files=files["uncached"],
        cached_files=files["cached"],
    )
