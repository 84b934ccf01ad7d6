"""When a worker that died is started again: soon, then later, and not for ever."""

from __future__ import annotations

LIVED_S = 3.0
"""A worker that lived so long is no part of a crash loop: it did serve."""

FIRST_WAIT_S = 0.05
"""Before the first new start: whatever killed it may still be at work."""

WAIT_S_MAX = 5.0
"""The longest wait: the other workers serve meanwhile."""

QUICK_DEATHS_MAX = 10
"""Deaths in a row, each before LIVED_S, after which it is given up: about 20 s of trying. Somebody
who watches a service sees it end, and not one that never serves."""


class Crashes:
    """The deaths of one worker and of those that took its place."""

    def __init__(self) -> None:
        self._quick = 0

    def died(self, lived_s: float) -> float | None:
        """Count a death after so many seconds; the result is the wait, None to give up."""
        self._quick = self._quick + 1 if lived_s < LIVED_S else 0
        if self._quick >= QUICK_DEATHS_MAX:
            return None
        return min(FIRST_WAIT_S * (1 << self._quick), WAIT_S_MAX)
