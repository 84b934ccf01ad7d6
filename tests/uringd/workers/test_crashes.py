"""When a worker that died is started again."""

from uringd.workers.crashes import FIRST_WAIT_S, LIVED_S, QUICK_DEATHS_MAX, WAIT_S_MAX, Crashes


def test_a_worker_that_served_is_started_again_at_once_however_often_it_dies() -> None:
    crashes = Crashes()
    waits = {crashes.died(LIVED_S) for _ in range(10 * QUICK_DEATHS_MAX)}
    assert waits == {FIRST_WAIT_S}


def test_one_that_dies_at_once_is_waited_for_longer_each_time_and_then_given_up() -> None:
    crashes = Crashes()
    waits = [crashes.died(0) for _ in range(QUICK_DEATHS_MAX)]
    assert waits.pop() is None
    longer = [wait for wait in waits if wait is not None]
    assert longer == sorted(longer)
    assert longer[-1] == WAIT_S_MAX


def test_one_that_lived_in_between_is_not_given_up() -> None:
    crashes = Crashes()
    for lived_s in [0] * (QUICK_DEATHS_MAX - 1) + [LIVED_S] + [0] * (QUICK_DEATHS_MAX - 1):
        assert crashes.died(lived_s) is not None
