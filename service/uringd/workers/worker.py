"""One worker: a server of one process, that shares listeners, spool and catalog with others.

It serves until one of these:
- SIGTERM: the server ends. New clients are told so; what is unfinished may finish until the
  deadline, a second SIGTERM ends it at once.
- SIGHUP: this worker is being replaced. It accepts nobody more, for the others do; the rest is as
  above. What is unfinished at the deadline is made durable, and its clients go on with another.
- its standard input ends: the supervisor is dead. It leaves at once. It shares ROOT's lock, so no
  other server begins before it has left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.accounts import Accounts
from uringd.server import Shared, end_at_signal, open_server
from uringd.workers.accepting import accept
from uringd.workers.answering import Answering
from uringd.workers.asking import OtherWorkers
from uringd.workers.bus import Bus
from uringd.workers.naming import SharedNames
from uringd.workers.orders import READY, Orders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from uringd.server import Server

log = structlog.get_logger("uringd.workers")


PASSES = 2
"""Of the scheduler, after which a task that was started has run to its first wait."""


async def work(orders: Orders) -> None:
    """Serve until told to leave, or until the supervisor is dead."""
    accounts = Accounts(orders.memory_fd, orders.row)
    bus = Bus(orders.bus_fd, str(os.getpid()))
    names = SharedNames(orders.memory_fd)
    shared = Shared(orders.root, accounts, names, OtherWorkers(bus))
    async with (
        open_server(orders.settings, shared=shared) as server,
        bus.serve(Answering(server)),
        trio.open_nursery() as nursery,
    ):
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            nursery.start_soon(_watch_supervisor, server)
            await _serve(orders, server, signals)
            nursery.cancel_scope.cancel()


async def _serve(orders: Orders, server: Server, signals: AsyncIterator[int]) -> None:
    listeners = orders.listeners()
    async with trio.open_nursery() as sessions:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(accept, server, listeners, sessions)
            server.accounts.accept(accepting=True)
            os.write(sys.stdout.fileno(), READY)
            number = await anext(signals)
            server.accounts.accept(accepting=False)
            accepting.cancel_scope.cancel()
        for _ in range(PASSES):  # until whoever was accepted has a session
            await trio.lowlevel.checkpoint()
        server.retiring = number == signal.SIGHUP
        if not server.retiring:  # nobody else is there: who comes is told that the server ends
            sessions.start_soon(accept, server, listeners, sessions)
        log.info("leaving", unfinished=len(server.registry.open), replaced=server.retiring)
        sessions.start_soon(end_at_signal, server, signals)
        await server.shut_down()
        sessions.cancel_scope.cancel()


async def _watch_supervisor(server: Server) -> None:
    """Leave at once when the other end of standard input is gone."""
    with contextlib.suppress(OSError):
        while True:
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            if not os.read(sys.stdin.fileno(), 1):
                break
    log.warning("the supervisor is dead", unfinished=len(server.registry.open))
    server.accounts.accept(accepting=False)
    server.end_now()
    signal.raise_signal(signal.SIGTERM)
