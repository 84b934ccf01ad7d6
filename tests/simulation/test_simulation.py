"""The whole daemon in a simulation, seed after seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.campaign import run_batch
from tests.simulation.conftest import ROOT
from tests.simulation.shrink import run_seed

SEEDS = 1000
BLOCK = 50
CHILD_S = 60

FAILED_ONCE = [
    850,  # a lane that waited to write was told of an IO error of an upload that was aborted
    10756,  # the simulation's own: a kill did an unlink that was begun, and the oracle did not hear
    11013,  # the same
    13154,  # a COMMIT went on behind a checkpoint whose fsync had failed, and lost the file
    100529,  # the oracle's: power loss took a file at WRITTEN whose receipt was asked for again
    105137,  # the disk's: a failed fsync took back a cut, which stands in a journal
    105609,  # the oracle's: a removal that failed, of a file that has no record
    106910,  # the ring's: what it held back was let go after it was closed
    115636,  # the oracle's: power loss took one at DURABLE with the one at WRITTEN that replaced it
    117733,  # the client's: it sent other bytes for a chunk that had been damaged on its way
    155510,  # the simulation's own: a life killed at its very last step had two heirs
    155830,  # the simulation's own: a life that ended closed the file of a process killed before it
    156303,  # a SYNC for an upload that was found published was refused
    188997,  # the simulation's own: a killed life kept a descriptor, which the kernel closes
    113808,  # a COMMIT's connection was lost, other lanes sent chunks again, and were refused
]

TRACE = """
import sys
sys.path.append(sys.argv[1])
from tests.simulation.shrink import run_seed
print(run_seed(int(sys.argv[2])).trace)
"""


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_promise_is_broken(first: int) -> None:
    batch = run_batch(range(first, first + BLOCK))
    assert not batch.failures, batch.failures[0].what
    counts = batch.tally.counts
    assert counts["daemon: kills"] and counts["daemon: power cuts"]
    assert counts["uploads: published"] > BLOCK / 2


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_found_something_finds_it_no_more(seed: int) -> None:
    run_seed(seed)


@pytest.mark.parametrize("seed", [2, 3, 15])
def test_a_seed_repeats_itself_event_for_event(seed: int) -> None:
    traces = {run_seed(seed).trace, run_seed(seed).trace}
    for hashes in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", TRACE, str(ROOT), str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            timeout=CHILD_S,
            check=True,
        )
        traces.add(done.stdout.strip())
    assert len(traces) == 1


def test_another_seed_is_another_run() -> None:
    assert run_seed(2).trace != run_seed(3).trace
