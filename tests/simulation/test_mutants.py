"""The simulation finds what it is there for: each way to get durability wrong, within its seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.campaign import run_batch
from tests.simulation.mutants import MUTANTS, conflicts_not_detected
from tests.simulation.shrink import run_seed
from tests.simulation.test_simulation import SEEDS
from tests.simulation.world import BrokenPromiseError

if TYPE_CHECKING:
    from tests.simulation.mutants import Mutant


SIMPLE_SEED = 4
"""Here one client alone sends other bytes for a chunk: nothing else of the seed matters."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_promise_is_broken(mutant: Mutant) -> None:
    with mutant(), pytest.raises(BrokenPromiseError, match="again: make simulate SEED="):
        for seed in range(SEEDS):
            run_seed(seed)


def test_a_seed_that_fails_is_cut_short_and_named() -> None:
    with conflicts_not_detected():
        batch = run_batch(range(SIMPLE_SEED, SIMPLE_SEED + 1))
    [failure] = batch.failures
    assert failure.what.splitlines()[0].endswith("nothing was said of it")
    assert failure.again.endswith("CLIENTS=1 DISTURBANCES=0 FAULTS=no NETWORK=calm")
    assert batch.tally.seeds == 1
