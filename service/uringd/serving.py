"""`uringd serve`: a server with this process's signals, stdout and stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from uringd.listeners import Listener, ListenError
from uringd.logs import LogFormat, configure
from uringd.root import RootError
from uringd.server import serve
from uringio import UringioError

if TYPE_CHECKING:
    from uringd.config import Settings

log = structlog.get_logger("uringd.serving")


def run(settings: Settings, log_format: LogFormat) -> str:
    """Serve until a signal; the result is the error's sentence, or nothing."""
    configure(log_format)
    failures: list[BaseException] = []
    try:
        trio.run(serve, settings, announce)
    except* (RootError, ListenError, UringioError, ValueError) as group:
        failures = leaves(group)
    return "; ".join(map(str, failures))


def announce(listener: Listener) -> None:
    """Say on stdout that an address is ready."""
    print(f"listening {listener.url}", flush=True)  # noqa: T201  # programs read it


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Take the exceptions out of nested groups."""
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
