"""The n-th operation loop: each operation of the canonical upload, each error that fits it.

The operations are counted in a run without faults; of a kind with k of them the 1st to the k-th
then go wrong, in each way that `errors` lists, once and for ever.
"""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING

from tests.nth.errors import TABLE
from tests.nth.trial import Trial
from tests.nth.wrongdoing import Injection
from tests.simulation.shrink import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.nth.errors import Wrong


def run(injection: Injection | None) -> Trial:
    """Run one trial. Raises BrokenPromiseError."""
    directory = scratch()
    try:
        trial = Trial(directory, injection)
        trial.run()
    finally:
        shutil.rmtree(directory)
    return trial


@functools.cache
def undisturbed() -> Trial:
    """Run one without faults, and look at its operations."""
    return run(None)


def injections(kind: str, every: int = 1) -> Iterator[Injection]:
    """Yield what can go wrong with the operations of a kind: everything, or one way in `every`.

    Then the next operation has the next ways; of few operations each still has more of them, so
    that each way is tried.
    """
    count = undisturbed().counts[kind]
    for nth in range(1, count + 1):
        for number, (wrong, lasting) in enumerate(_ways(kind)):
            if (number + nth) % min(every, count) == 0:
                yield Injection(kind, nth, wrong, lasting)


def _ways(kind: str) -> Iterator[tuple[Wrong, bool]]:
    for wrong in TABLE[kind]:
        yield wrong, False
        if wrong.lasts:
            yield wrong, True
