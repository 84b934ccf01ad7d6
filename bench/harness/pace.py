"""How long it still takes: each measurement as long as the last one of its kind, or as the mean."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class Pace:
    """Knows the measurements of a round, and learns what each one takes."""

    def __init__(self, keys: Sequence[Hashable], rounds: int) -> None:
        self._left = dict.fromkeys(keys, rounds)
        self._took_s: dict[Hashable, float] = {}
        self._began = 0.0
        self.total = len(self._left) * rounds
        self.done = 0

    def begin(self) -> None:
        """Start the clock of a measurement."""
        self._began = time.monotonic()

    def end(self, key: Hashable) -> None:
        """Stop it."""
        self._took_s[key] = time.monotonic() - self._began
        self._left[key] -= 1
        self.done += 1

    def drop(self, key: Hashable) -> None:
        """Expect this one no more: it cannot be made here."""
        self.total -= self._left[key]
        self._left[key] = 0

    def left_s(self) -> float:
        """Estimate the seconds that are left; 0 as long as nothing is known."""
        if not self._took_s:
            return 0.0
        mean = sum(self._took_s.values()) / len(self._took_s)
        return sum(self._took_s.get(key, mean) * count for key, count in self._left.items())


def time_text(seconds: float) -> str:
    """Say a time as a clock does: 4:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
