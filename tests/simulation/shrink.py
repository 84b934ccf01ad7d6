"""Running a seed, and cutting one that fails short: the least of it that still fails."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.plan import Limits, Plan
from tests.simulation.world import BrokenPromiseError, World

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # a folder of our own is made in it


def scratch() -> Path:
    """Make a directory to run in: in memory where that can be had, for its disk is simulated."""
    return Path(tempfile.mkdtemp(prefix="simulate-", dir=MEMORY if MEMORY.is_dir() else None))


def run_seed(seed: int, limits: Limits | None = None) -> World:
    """Run one seed. Raises BrokenPromiseError; the result is the world as it ended."""
    directory = scratch()
    try:
        world = World(seed, directory, limits)
        world.run()
    finally:
        shutil.rmtree(directory)
    return world


def cut_short(
    seed: int, failure: BrokenPromiseError, limits: Limits | None = None
) -> BrokenPromiseError:
    """Leave out of a failing seed what it fails without; the result is the last failure."""
    least = limits or Limits()
    for smaller in _smaller(seed, least):
        try:
            run_seed(seed, smaller(least))
        except BrokenPromiseError as exc:
            least, failure = smaller(least), exc
    return failure


class _Less:
    """One thing less of some limits."""

    def __init__(self, **changes: object) -> None:
        self._changes = changes

    def __call__(self, limits: Limits) -> Limits:
        return replace(limits, **self._changes)  # type: ignore[arg-type]


def _smaller(seed: int, limits: Limits) -> Iterator[_Less]:
    plan = Plan(seed, limits)
    yield _Less(faults=False)
    yield _Less(calm_network=True)
    for count in reversed(range(len(plan.disturbances))):
        yield _Less(disturbances=count)
    for count in reversed(range(1, plan.clients)):
        yield _Less(clients=count)
