"""Logs on stderr: readable on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json"]


class BestEffort:
    """A stream whose reader may go, or whose disk may fill: a log is no reason to fail a client."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(log_format: LogFormat) -> None:
    """Set structlog up for this process. Stdout stays free: it carries what programs read."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(BestEffort(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
