"""The wall's time, for the age of what is stamped with it.

A wall clock jumps: by hand, by NTP, at a boot without a battery. Uploads age by the monotonic clock
alone. A receipt's age goes over restarts, and so by the wall's stamps. What a jump may not do is to
make all of them old at once. So here, while the server runs, time goes no faster than the monotonic
clock: a jump forwards is not followed. One backwards is, for good: what was stamped in between does
not get old when the clock is put right. The worst is that receipts are kept for longer.
"""

from __future__ import annotations

import time


class SteadyTime:
    """Nanoseconds since 1970, by the slowest that the wall's clock has been since this was made."""

    def __init__(self) -> None:
        self._lead_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time. To be asked now and then: a jump that nobody saw is none."""
        monotonic_ns = time.monotonic_ns()
        self._lead_ns = min(self._lead_ns, time.time_ns() - monotonic_ns)
        return self._lead_ns + monotonic_ns
