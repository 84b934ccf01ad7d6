"""The slope of what was sampled."""

from __future__ import annotations

import pytest

from tests.soak.slope import JUDGED_S_MIN, SAMPLES_MAX, grows_too_much, slope_per_s

MIB = 1 << 20
HOUR_S = 3600.0


def test_the_slope_of_a_line_is_its_own() -> None:
    assert slope_per_s([0, 1, 2, 3], [5, 7, 9, 11]) == 2
    assert slope_per_s([0], [5]) == 0


def test_outliers_do_not_move_it() -> None:
    times = [float(i) for i in range(100)]
    values = [10.0] * 100
    values[70:80] = [1e9] * 10
    assert slope_per_s(times, values) == 0


def test_many_samples_are_thinned_out() -> None:
    times = [float(i) for i in range(3 * SAMPLES_MAX)]
    assert slope_per_s(times, [3 * t for t in times]) == pytest.approx(3)


@pytest.mark.parametrize(
    ("mib_h", "hours", "broken"),
    [
        (0.9, 3, False),
        (3, 1, True),
        (-5, 1, False),
        (3, 1 / 4, False),
        (9, 1 / 4, True),
        (99, 0.1, False),
    ],
)
def test_an_hour_tells_more_than_a_minute(mib_h: float, hours: float, *, broken: bool) -> None:
    assert grows_too_much(mib_h * MIB / HOUR_S, hours * HOUR_S) is broken


def test_ten_minutes_are_the_least_that_is_judged() -> None:
    assert not grows_too_much(1e6, JUDGED_S_MIN - 1)
    assert grows_too_much(1e6, JUDGED_S_MIN)
