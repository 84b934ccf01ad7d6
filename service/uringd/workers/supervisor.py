"""The supervisor: what there is once for a server of several workers. It serves nobody itself.

It takes ROOT's lock, brings catalog and spool to agree, opens the listening sockets, and starts the
workers. The lock is of the open file, which the workers inherit: it is held until the last process
of this server has ended, so no other server begins beside the workers of a killed supervisor.

Signals: SIGTERM and SIGINT end the server, gracefully, a second one at once. SIGHUP replaces the
workers one after the other: a new one serves before the old one stops accepting.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.accounts import Accounts, Kind, shared_memory
from uringd.catalog import open_catalog
from uringd.listeners import Listener, listen
from uringd.reconcile import reconcile
from uringd.root import Root
from uringd.workers.housekeeping import Housekeeping
from uringd.workers.orders import Orders
from uringd.workers.place import Keeping, Place
from uringd.workers.process import WorkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from uringd.config import Settings

log = structlog.get_logger("uringd.workers")

BUS_DIRECTORY = "workers"
"""Below ROOT/.uringd: the sockets by which workers ask each other."""


async def supervise(
    settings: Settings, log_format: str, announce: Callable[[Listener], None]
) -> None:
    """Serve by several workers until SIGTERM or SIGINT.

    `announce` is called for each listener once all workers are ready. Raises what a server of one
    process does, and WorkerError when a worker does not start or does not stay.
    """
    root = Root(settings.root)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(root.close)
        memory_fd = shared_memory(1 + 2 * settings.workers)
        stack.callback(os.close, memory_fd)
        bus_fd = root.open_private(BUS_DIRECTORY)
        stack.callback(os.close, bus_fd)
        for name in os.listdir(bus_fd):  # of workers that were killed
            os.unlink(name, dir_fd=bus_fd)
        catalog = await stack.enter_async_context(open_catalog(root.catalog_path))
        root.sync_private()  # the catalog's name
        accounts = Accounts(memory_fd)
        for record in await reconcile(root, catalog):
            accounts.found(Kind.UPLOADS, 1)
            accounts.found(Kind.SPOOL_BYTES, record.spool_bytes)
        listeners = []
        for url in settings.listen:
            listeners.append(await listen(url))
            stack.push_async_callback(listeners[-1].aclose)
        fds = tuple(listener.socket.socket.fileno() for listener in listeners)

        def orders(worker: int, row: int) -> Orders:
            return Orders(settings, log_format, worker, row, root.held, memory_fd, bus_fd, fds)

        supervisor = Supervisor(settings, accounts, bus_fd, orders)
        house = Housekeeping(root, catalog, accounts, settings)

        def ready() -> None:
            for listener in listeners:
                announce(listener)

        await supervisor.run(house, ready)


class Supervisor:
    """Keeps the workers there."""

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        bus_fd: int,
        orders: Callable[[int, int], Orders],
    ) -> None:
        self._settings = settings
        self._places = [
            Place(number, settings, accounts, bus_fd, orders)
            for number in range(1, settings.workers + 1)
        ]
        self._replacing = trio.Lock()
        self._failed = trio.Event()
        self._failure = ""

    async def run(self, house: Housekeeping, ready: Callable[[], None]) -> None:
        """Start the workers, call `ready`, and return when all have ended. Raises WorkerError."""
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with trio.open_signal_receiver(*watched) as signals:
            try:
                async with trio.open_nursery() as starting:
                    for place in self._places:
                        starting.start_soon(place.fill)
                ready()
                async with trio.open_nursery() as nursery:
                    keeping = Keeping(nursery, house.somebody_died, self._give_up)
                    nursery.start_soon(house.keep)
                    for place in self._places:
                        nursery.start_soon(place.keep, keeping)
                    nursery.start_soon(self._end_after_failure, nursery)
                    await self._obey(signals, keeping)
                    nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    for place in self._places:
                        await place.kill()
        if self._failure:
            raise WorkerError(self._failure)

    async def _obey(self, signals: AsyncIterator[int], keeping: Keeping) -> None:
        """Do what signals say, until the workers have ended."""
        async for number in signals:
            if number != signal.SIGHUP:
                break
            keeping.nursery.start_soon(self._replace_all, keeping)
        log.info("shutting down", workers=len(self._places))
        keeping.nursery.start_soon(self._end_at_once_at_signal, signals)
        await self._end()

    async def _end(self) -> None:
        for place in self._places:
            place.begin_end()
        async with trio.open_nursery() as ending:
            for place in self._places:
                ending.start_soon(place.wait_ended)

    async def _end_at_once_at_signal(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                for place in self._places:
                    place.signal(signal.SIGTERM)

    async def _end_after_failure(self, nursery: trio.Nursery) -> None:
        await self._failed.wait()
        await self._end()
        nursery.cancel_scope.cancel()

    def _give_up(self, reason: str) -> None:
        self._failure = reason
        self._failed.set()

    async def _replace_all(self, keeping: Keeping) -> None:
        """Replace the workers one after the other; the first that cannot be replaced stays."""
        async with self._replacing:
            for place in self._places:
                try:
                    await place.replace(keeping)
                except WorkerError as exc:
                    log.warning("worker not replaced", worker=place.number, reason=str(exc))
                    return
            log.info("workers replaced", workers=len(self._places))
