"""figures.py: medians with their spread, and ratios within a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.harness.figures import Spread, figures_of, paired_ratios

if TYPE_CHECKING:
    from tests.bench.conftest import MakeResult


def test_a_spread_has_the_median_the_ends_and_the_median_deviation() -> None:
    assert Spread.of([5, 1, 2, 9, 3]) == Spread(median=3, low=1, high=9, mad=2, count=5)


def test_a_single_value_is_its_own_spread() -> None:
    assert Spread.of([4.0]) == Spread(4, 4, 4, 0, 1)


def test_ratios_are_taken_within_a_round_so_a_slow_minute_does_not_count() -> None:
    """The machine is half as fast in round 1: every ratio is 2 all the same."""
    assert paired_ratios({0: 200, 1: 100, 2: 200}, {0: 100, 1: 50, 2: 100}) == Spread(2, 2, 2, 0, 3)


def test_rounds_that_only_one_of_the_two_ran_in_are_left_out() -> None:
    assert paired_ratios({0: 200, 1: 100}, {1: 50, 2: 1}) == Spread(2, 2, 2, 0, 1)
    assert paired_ratios({0: 200}, {1: 50}) is None


def test_rates_are_mebibytes_per_second_of_the_time_that_counts(make_result: MakeResult) -> None:
    figures = figures_of(make_result({"os-write": [2.0, 4.0]}, wall_s=8.0))["os-write"]
    assert (figures.rate.low, figures.rate.high) == (256, 512)
    assert figures.wall_rate.median == 128


def test_costs_are_seconds_per_gibibyte(make_result: MakeResult) -> None:
    figures = figures_of(make_result({"os-write": [2.0]}))["os-write"]
    assert figures.cpu.median == pytest.approx(0.3)
    assert figures.kworkers is not None
    assert figures.kworkers.median == 0.5
    assert figures.rss_bytes == 64 << 20


def test_ratios_are_given_over_each_reference_that_ran(make_result: MakeResult) -> None:
    figures = figures_of(make_result({"fio": [1.0], "uringio-slots": [2.0]}))
    assert figures["uringio-slots"].over["fio"].median == 0.5
    assert figures["fio"].over["fio"].median == 1
    assert "os-write" not in figures["fio"].over


def test_a_contender_without_runs_has_no_figures(make_result: MakeResult) -> None:
    assert list(figures_of(make_result({"fio": [], "os-write": [1.0]}))) == ["os-write"]


@pytest.mark.parametrize(("others_s", "disturbed"), [(0.3, 0), (0.5, 2)])
def test_a_run_is_disturbed_by_a_tenth_of_all_cpus(
    make_result: MakeResult, others_s: float, disturbed: int
) -> None:
    """Two CPUs for two seconds are four: a tenth of that is 0.4."""
    figures = figures_of(make_result({"fio": [2.0, 2.0]}, others_s=others_s))["fio"]
    assert figures.disturbed == disturbed
