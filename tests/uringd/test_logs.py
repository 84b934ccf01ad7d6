"""Logs: what is said, and that nobody is harmed when it cannot be said."""

from __future__ import annotations

import io

from uringd.logs import BestEffort


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    stream = BestEffort(Full())
    assert stream.write("event") == 5
    stream.flush()
    closed = io.StringIO()
    closed.close()
    BestEffort(closed).write("event")
