"""`uringd serve`: a server with this process's signals, stdout and stderr."""

from __future__ import annotations

import contextlib
import errno
import resource
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.catalog import CatalogError
from uringd.collecting import leave_full_collections_to_the_server
from uringd.groups import leaves
from uringd.listeners import Listener, ListenError
from uringd.logs import LogFormat, configure
from uringd.root import RootError
from uringd.server import serve
from uringd.small.uploads import GROUP_FILES_MAX
from uringd.workers.process import WorkerError
from uringio import UringioError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uringd.config import Settings

log = structlog.get_logger("uringd.serving")

EXPECTED = (
    *(RootError, CatalogError, ListenError, WorkerError),
    *(UringioError, OSError, ValueError),
)

DESCRIPTORS_APART = 64
"""Descriptors besides those of clients: listeners, ring, directories, catalog, Python's own."""


def run(settings: Settings, log_format: LogFormat) -> str:
    """Serve until a signal; the result is the error's sentence, or nothing."""
    configure(log_format)
    if settings.workers > 1:
        from uringd.workers.supervisor import supervise  # noqa: PLC0415  # one needs none of it

        return guarded(supervise, settings, log_format, announce)
    raise_descriptor_limit(settings)
    leave_full_collections_to_the_server()
    return guarded(serve, settings, announce)


def guarded(main: Callable[..., Awaitable[None]], *args: object) -> str:
    """Run a server's process; the result is the error's sentence, or nothing."""
    failures: list[BaseException] = []
    try:
        trio.run(main, *args)
    except* EXPECTED as group:
        failures = leaves(group)
    return "; ".join(dict.fromkeys(map(_sentence, failures)))


def raise_descriptor_limit(settings: Settings) -> None:
    """Take the descriptors that all clients may need, and say so if there are fewer.

    A connection costs one, an upload of its own another, and a group of small uploads one for each
    file. Without them accept(2) fails, and clients wait for nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    wanted = 2 * settings.connections_max + GROUP_FILES_MAX + DESCRIPTORS_APART
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = int(min(wanted, most))
    with contextlib.suppress(OSError, ValueError):  # it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
        soft = reachable
    if soft < wanted:
        log.warning(
            "few descriptors",
            limit=soft,
            wanted=wanted,
            reason=f"{settings.connections_max} connections with an upload each",
            mend=f"ulimit -n {wanted}, or a lower connections_max",
        )


def _sentence(exc: BaseException) -> str:
    if not isinstance(exc, OSError) or isinstance(exc, UringioError):
        return str(exc)
    mend = "; raise the limit: ulimit -n 4096" if exc.errno == errno.EMFILE else ""
    return f"cannot serve: {exc.strerror or exc}{mend}"


def announce(listener: Listener) -> None:
    """Say on stdout that an address is ready."""
    print(f"listening {listener.url}", flush=True)  # noqa: T201  # programs read it
