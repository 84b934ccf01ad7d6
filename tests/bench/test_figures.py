"""figures.py: medians with their spread, and ratios within a round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness.figures import Figures, Spread, figures_of, paired, speed
from tests.bench.conftest import CELL

if TYPE_CHECKING:
    from bench.harness.results import Result
    from tests.bench.conftest import MakeResult


def figures(result: Result) -> dict[str, Figures]:
    (job,) = result.settings.jobs
    return figures_of(result, job, job.cells[0])


def ratio(result: Result, ours: str, theirs: str) -> Spread | None:
    (job,) = result.settings.jobs
    ran, references = (result.runs_of(job, job.cells[0], name) for name in (ours, theirs))
    return paired(ran, references, speed)


def test_a_spread_has_the_median_the_ends_and_the_median_deviation() -> None:
    assert Spread.of([5, 1, 2, 9, 3]) == Spread(median=3, low=1, high=9, mad=2, count=5)


def test_a_single_value_is_its_own_spread() -> None:
    assert Spread.of([4.0]) == Spread(4, 4, 4, 0, 1)


def test_another_unit_is_a_factor_on_all_of_it() -> None:
    assert Spread.of([1, 2, 3]).times(10) == Spread(20, 10, 30, 10, 3)


def test_ratios_are_taken_within_a_round_so_a_slow_minute_does_not_count(
    make_result: MakeResult,
) -> None:
    """The machine is half as fast in round 1: every ratio is 2 all the same."""
    result = make_result({"uringio-slots": [1, 2, 1], "fio": [2, 4, 2]})
    assert ratio(result, "uringio-slots", "fio") == Spread(2, 2, 2, 0, 3)


def test_rounds_that_only_one_of_the_two_ran_in_are_left_out(make_result: MakeResult) -> None:
    result = make_result({"uringio-slots": [1, 2], "fio": [2], "os-write": []})
    assert ratio(result, "uringio-slots", "fio") == Spread(2, 2, 2, 0, 1)
    assert ratio(result, "uringio-slots", "os-write") is None


def test_rates_are_mebibytes_per_second_of_the_time_that_counts(make_result: MakeResult) -> None:
    found = figures(make_result({"os-write": [2.0, 4.0]}, wall_s=8.0))["os-write"]
    assert (found.rate.low, found.rate.high) == (256, 512)
    assert found.wall_rate.median == 128


def test_costs_are_seconds_per_gibibyte(make_result: MakeResult) -> None:
    found = figures(make_result({"os-write": [2.0]}))["os-write"]
    assert found.cpu.median == pytest.approx(0.3)
    assert found.kworkers is not None
    assert found.kworkers.median == 0.5
    assert found.rss_bytes == 64 << 20


def test_the_page_cache_is_a_share_of_the_file(make_result: MakeResult) -> None:
    found = figures(make_result({"os-write": [2.0]}, cached_bytes=CELL.size_bytes // 4))
    cached = found["os-write"].cached
    assert cached is not None
    assert cached.median == 0.25
    assert figures(make_result({"fio": [1.0]}, cached_bytes=None))["fio"].cached is None


def test_ratios_are_given_over_each_reference_that_ran(make_result: MakeResult) -> None:
    found = figures(make_result({"fio": [1.0], "uringio-slots": [2.0]}))
    assert found["uringio-slots"].over["fio"].median == 0.5
    assert found["fio"].over["fio"].median == 1
    assert "os-write" not in found["fio"].over


def test_latencies_are_compared_by_percentile(make_result: MakeResult) -> None:
    facts = {"latency_us": {"50": 10.0, "99": 40.0}}
    names = {"fio": [1.0], "uringio-pwrite": [1.0]}
    result = make_result(names, job="latency", cell=replace(CELL, timed=True), facts=facts)
    found = figures(result)["uringio-pwrite"]
    assert found.latency_us["99"].median == 40
    assert found.latency_over["99"].median == 1
    assert figures(make_result(names, facts=facts))["fio"].latency_us == {}, "not asked for"


def test_a_contender_without_runs_has_no_figures(make_result: MakeResult) -> None:
    assert list(figures(make_result({"fio": [], "os-write": [1.0]}))) == ["os-write"]


@pytest.mark.parametrize(("others_s", "disturbed"), [(0.3, 0), (0.5, 2)])
def test_a_run_is_disturbed_by_a_tenth_of_all_cpus(
    make_result: MakeResult, others_s: float, disturbed: int
) -> None:
    """Two CPUs for two seconds are four: a tenth of that is 0.4."""
    found = figures(make_result({"fio": [2.0, 2.0]}, others_s=others_s))["fio"]
    assert found.disturbed == disturbed
