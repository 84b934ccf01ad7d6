"""The spool's quota: a sum that never goes past its bound nor loses count."""

import errno

import pytest

from uringd.quota import SpoolQuota
from uringio.exceptions import NoSpaceError


def test_uploads_count_for_their_longest_end() -> None:
    quota = SpoolQuota(100)
    quota.reserve("a", 40)
    quota.reserve("a", 10)
    quota.reserve("b", 60)
    assert quota.used == 100
    quota.release("a")
    assert quota.used == 60
    quota.release("a")
    assert quota.used == 60


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    quota = SpoolQuota(100)
    quota.reserve("a", 90)
    with pytest.raises(NoSpaceError) as caught:
        quota.reserve("b", 11)
    assert caught.value.errno == errno.EDQUOT
    assert "--spool-max" in str(caught.value)
    assert quota.used == 90
    quota.reserve("b", 10)


def test_what_is_there_already_is_counted_even_beyond_the_bound() -> None:
    quota = SpoolQuota(100)
    quota.found(150)
    quota.reopen("a", 150)
    assert quota.used == 150
    with pytest.raises(NoSpaceError):
        quota.reserve("b", 1)
    quota.reserve("a", 150)


def test_without_a_bound_nothing_is_refused() -> None:
    quota = SpoolQuota()
    quota.reserve("a", 1 << 60)
    assert quota.used == 1 << 60


def test_a_wish_is_counted_where_there_is_room_and_else_the_need() -> None:
    quota = SpoolQuota(100)
    assert quota.reserve("a", 10, 80) == 80
    assert quota.reserve("a", 20, 20) == 80, "it is counted already"
    assert quota.reserve("b", 15, 70) == 15
    with pytest.raises(NoSpaceError):
        quota.reserve("b", 25, 70)
    assert quota.used == 95
    quota.recorded("a", 20)
    quota.rest("a")
    assert quota.used == 35, "at rest it is no more than what is recorded"
