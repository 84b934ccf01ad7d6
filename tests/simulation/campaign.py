"""Many seeds by several processes: their batches come in order, so that what is counted is a range.

A seed that fails is cut short and kept, and the seeds behind it are run all the same.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.shrink import cut_short, run_seed
from tests.simulation.tally import Tally
from tests.simulation.world import BrokenPromiseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.simulation.plan import Limits

BATCH_SEEDS = 10
"""Seeds of one process at a time, about a second: what an interrupt loses for each process."""

BATCHES_AHEAD = 2
"""For each process, so that none of them waits for the others."""

BATCHES_OF_A_PROCESS = 500
"""Then another one goes on: what a run may leave in memory does not add up."""

STUCK_S = 300.0
"""What a batch may take, with all cutting short. A process that hangs or was killed takes more."""


class StuckBatchError(Exception):
    """A batch has not come back; the text says which."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that breaks a promise, cut short: `again` shows it again, `what` says all of it."""

    seed: int
    again: str
    what: str


@dataclass(slots=True)
class Batch:
    """What came of some seeds. Those that failed are counted in `tally`'s seeds, and no further."""

    seeds: range
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)


def run_batch(seeds: range, limits: Limits | None = None) -> Batch:
    """Run seeds, one after the other, in this process."""
    batch = Batch(seeds)
    for seed in seeds:
        try:
            batch.tally.add(run_seed(seed, limits).tally)
        except BrokenPromiseError as exc:
            least = cut_short(seed, exc, limits)
            batch.failures.append(Failure(seed, least.again, str(least)))
            batch.tally.seeds += 1
    return batch


def run_batches(batches: Iterable[range], jobs: int, limits: Limits) -> Iterator[Batch]:
    """Run batches by so many processes, and yield them in order. Raises StuckBatchError.

    A batch is asked for when there is a process for it soon. Closing ends what runs.
    """
    waiting: deque[tuple[range, multiprocessing.pool.AsyncResult[Batch]]] = deque()

    def first() -> Batch:
        seeds, result = waiting.popleft()
        try:
            return result.get(STUCK_S)
        except multiprocessing.TimeoutError as exc:
            text = f"one of the seeds {seeds.start} to {seeds.stop - 1} does not end"
            raise StuckBatchError(text) from exc

    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _begin_process, maxtasksperchild=BATCHES_OF_A_PROCESS) as pool:
        for seeds in batches:
            waiting.append((seeds, pool.apply_async(run_batch, (seeds, limits))))
            if len(waiting) > jobs * BATCHES_AHEAD:
                yield first()
        while waiting:
            yield first()


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent hears it, and ends it
    gc.collect()
    gc.freeze()  # what is imported stays: no run has to look at it again
