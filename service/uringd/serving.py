"""`uringd serve`: a server with this process's signals, stdout and stderr."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.catalog import CatalogError
from uringd.groups import leaves
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
    except* (RootError, CatalogError, ListenError, UringioError, OSError, ValueError) as group:
        failures = leaves(group)
    return "; ".join(map(_sentence, failures))


def _sentence(exc: BaseException) -> str:
    if not isinstance(exc, OSError) or isinstance(exc, UringioError):
        return str(exc)
    mend = "; raise the limit: ulimit -n 4096" if exc.errno == errno.EMFILE else ""
    return f"cannot serve: {exc.strerror or exc}{mend}"


def announce(listener: Listener) -> None:
    """Say on stdout that an address is ready."""
    print(f"listening {listener.url}", flush=True)  # noqa: T201  # programs read it
