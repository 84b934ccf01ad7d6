"""latency.py: percentiles, and what is timed."""

from dataclasses import replace

from bench.harness.latency import Latencies, percentiles_us
from tests.bench.conftest import CELL


def write(memory: memoryview, offset: int) -> int:
    return len(memory) + offset


async def write_async(memory: memoryview, offset: int) -> int:
    return len(memory) + offset


def test_percentiles_are_the_nearest_ranks() -> None:
    found = percentiles_us([number * 1000 for number in range(1000, 0, -1)])
    assert found == {"50": 500, "90": 900, "99": 990, "99.9": 999}


def test_a_single_write_is_every_percentile() -> None:
    assert set(percentiles_us([7000]).values()) == {7}


def test_where_nothing_is_timed_the_call_is_left_as_it_is() -> None:
    latencies = Latencies(CELL)
    assert latencies.watch(write) is write
    assert latencies.watch_async(write_async) is write_async
    assert latencies.facts() == {}


async def test_each_timed_write_counts_and_its_result_is_handed_on() -> None:
    latencies = Latencies(replace(CELL, timed=True))
    assert latencies.watch(write)(memoryview(b"ab"), 1) == 3
    assert await latencies.watch_async(write_async)(memoryview(b"ab"), 2) == 4
    assert set(latencies.facts()["latency_us"]) == {"50", "90", "99", "99.9"}
