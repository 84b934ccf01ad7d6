"""Logs on stderr: readable on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json"]


class BestEffort:
    """A stream whose reader may go, or whose disk may fill: a log is no reason to fail a client.

    What was written until a flush is one write(2): workers share the stream, and a line that came
    in two pieces could have another one's between them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pieces: list[str] = []

    def write(self, text: str) -> int:
        """Keep text until the flush."""
        self._pieces.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what can be written."""
        text = "".join(self._pieces)
        self._pieces.clear()
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def configure(log_format: LogFormat, worker: int = 0) -> None:
    """Set structlog up for this process. Stdout stays free: it carries what programs read.

    `worker` is the number of one of several; each of its events says so.
    """

    def name_worker(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, "worker": worker} if worker else event

    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            name_worker,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(BestEffort(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
