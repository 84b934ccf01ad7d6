"""Logs: what is said, and that nobody is harmed when it cannot be said."""

from __future__ import annotations

import io

import structlog

from uringd.logs import BestEffort


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


class Writes(io.StringIO):
    """Remembers what each write had."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)


def test_a_line_is_one_write_so_that_workers_do_not_cut_each_others() -> None:
    stream = Writes()
    log = structlog.PrintLogger(BestEffort(stream))  # type: ignore[arg-type]
    log.msg("one event")
    log.msg("another")
    assert stream.texts == ["one event\n", "another\n"]


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    stream = BestEffort(Full())
    assert stream.write("event") == 5
    stream.flush()
    closed = io.StringIO()
    closed.close()
    BestEffort(closed).write("event")
