"""Histograms: buckets by powers of two, percentiles, differences."""

from __future__ import annotations

import json

import pytest

from uringio import Histogram
from uringio._trio.histogram import BUCKETS, BUCKETS_COUNTED


def histogram_of(*numbers: int) -> Histogram:
    counted = [0] * BUCKETS_COUNTED
    for number in numbers:
        counted[number.bit_length()] += 1
    return Histogram.of_counted(counted)


def test_a_number_is_counted_between_two_powers_of_two() -> None:
    buckets = histogram_of(0, 1, 2, 3, 4, 7, 8).buckets
    assert len(buckets) == BUCKETS
    assert buckets[:5] == (1, 1, 2, 2, 1)
    assert sum(buckets) == 7


def test_what_is_bigger_than_all_is_in_the_last_bucket() -> None:
    buckets = histogram_of((1 << 30) - 1, 1 << 30, 1 << 31, (1 << 63) - 1).buckets
    assert buckets[-2:] == (1, 3)


@pytest.mark.parametrize(
    ("percent", "bound"), [(0, 1), (50, 1), (75, 7), (90, 127), (99, 127), (100, 127)]
)
def test_a_percentile_is_the_bound_that_so_many_do_not_exceed(percent: float, bound: int) -> None:
    assert histogram_of(1, 1, 5, 100).percentile(percent) == bound


def test_a_percentile_of_nothing_is_0_and_of_nonsense_an_error() -> None:
    assert Histogram().percentile(99) == 0
    assert histogram_of(0, 0).percentile(50) == 0
    for percent in (-1, 101):
        with pytest.raises(ValueError, match="0 to 100"):
            Histogram().percentile(percent)


def test_a_difference_counts_what_came_between() -> None:
    later, earlier = histogram_of(1, 5, 5, 9), histogram_of(1, 5)
    assert later - earlier == histogram_of(5, 9)
    assert (later - later).count == 0


def test_it_goes_into_json_without_its_empty_end() -> None:
    shown = json.loads(json.dumps(histogram_of(1, 1, 5).to_dict()))
    assert shown == {"count": 3, "p50": 1, "p90": 7, "p99": 7, "buckets": [0, 2, 0, 1]}
    assert Histogram().to_dict()["buckets"] == []
