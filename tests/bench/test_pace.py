"""pace.py: how long it still takes."""

import pytest

from bench.harness.pace import Pace, time_text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def took(found: Pace, clock: list[float], key: str, seconds: float) -> None:
    found.begin()
    clock[0] += seconds
    found.end(key)


def test_what_was_never_measured_takes_as_long_as_the_mean(clock: list[float]) -> None:
    found = Pace(["fast", "slow", "new"], rounds=2)
    assert found.left_s() == 0
    took(found, clock, "fast", 1)
    took(found, clock, "slow", 5)
    assert found.left_s() == 1 + 5 + 2 * 3
    assert (found.done, found.total) == (2, 6)


def test_what_cannot_be_measured_is_not_waited_for(clock: list[float]) -> None:
    found = Pace(["fast", "missing"], rounds=3)
    took(found, clock, "fast", 1)
    took(found, clock, "missing", 1)
    found.drop("missing")
    assert found.left_s() == 2
    assert found.total == 4


def test_a_time_is_said_as_a_clock_does() -> None:
    assert [time_text(seconds) for seconds in (0, 65, 3599.6)] == ["0:00", "1:05", "60:00"]
