"""Histogram: how often a number was how big, in steps of two.

Steps of two cost one `bit_length` to count and tell a latency of 50 us from one of 5 ms, which is
what such a figure is read for; a percentile is therefore an upper bound, at most twice too high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

BUCKETS = 32
"""Of a histogram that is shown: the last holds 2^30 and more, which is 18 minutes in microseconds
(nothing on a disk that still works) and more operations than a queue takes."""

BUCKETS_COUNTED = 64
"""Of a list that is counted in: any nanosecond clock fits, so that counting needs no bound."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by size: bucket 0 holds 0, bucket n holds 2^(n-1) to 2^n - 1, the last all above."""

    buckets: tuple[int, ...] = (0,) * BUCKETS

    @classmethod
    def of_counted(cls, counted: Sequence[int]) -> Self:
        """Make it from a list of BUCKETS_COUNTED numbers that went on being counted in."""
        assert len(counted) == BUCKETS_COUNTED
        return cls((*counted[: BUCKETS - 1], sum(counted[BUCKETS - 1 :])))

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return sum(self.buckets)

    def percentile(self, percent: float) -> int:
        """Return the smallest 2^n - 1 that `percent` (0 to 100) of the numbers do not exceed.

        0 where nothing was counted. What is in the last bucket may be bigger than is said here.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is 0 to 100, not {percent}")
        wanted, seen = self.count * percent / 100, 0
        for n, count in enumerate(self.buckets):
            seen += count
            if seen and seen >= wanted:
                return (1 << n) - 1
        return 0

    def __sub__(self, earlier: Histogram) -> Histogram:
        pairs = zip(self.buckets, earlier.buckets, strict=True)
        return Histogram(tuple(mine - theirs for mine, theirs in pairs))

    def to_dict(self) -> dict[str, object]:
        """Give it as JSON takes it, trailing empty buckets left out, with the usual percentiles."""
        used = max((n + 1 for n, count in enumerate(self.buckets) if count), default=0)
        percentiles = {f"p{percent}": self.percentile(percent) for percent in (50, 90, 99)}
        return {"count": self.count, **percentiles, "buckets": list(self.buckets[:used])}
