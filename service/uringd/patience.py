"""How long a session waits for its client's bytes."""

from __future__ import annotations

import math

import trio


class Patience:
    """What a session has with its client, from entering to leaving. A generator would cost more."""

    __slots__ = ("_timeout_s", "_watchdog")

    def __init__(self, watchdog: trio.CancelScope, timeout_s: float) -> None:
        self._watchdog = watchdog
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        """Begin to count the time."""
        self._watchdog.deadline = trio.current_time() + self._timeout_s

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Count no more, unless it ended by that very deadline."""
        if kind is None:
            self._watchdog.deadline = math.inf
