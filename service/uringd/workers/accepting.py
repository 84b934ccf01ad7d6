"""New connections, shared out among workers that accept from the same sockets.

The listening sockets are inherited, not one for each worker by SO_REUSEPORT. With SO_REUSEPORT the
kernel chooses a worker when the connection comes, by a hash, and puts it into that worker's queue:
what waits there is reset when the worker closes its socket, and waits for nobody when it was killed
or stands still. From one queue whoever is there accepts, a worker that is replaced loses nothing,
and one that is killed delays nobody.

What one queue does not do is share out: all are woken, and the quickest takes all. So a worker that
has more connections than another one lets that one go first, for a moment.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from uringd.accepting import MENDS, PAUSE_S, Shortage

if TYPE_CHECKING:
    from uringd.listeners import Listener
    from uringd.server import Server

STEP_BACK_S = 0.002
"""How long others go first: several passes of an idle worker's scheduler, and nothing to a client
whose other worker is busy."""


async def accept(server: Server, listeners: list[Listener], sessions: trio.Nursery) -> None:
    """Serve who comes, in the nursery `sessions`, until cancelled."""
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept_from, server, listener, sessions)


async def _accept_from(server: Server, listener: Listener, sessions: trio.Nursery) -> None:
    listening = listener.socket.socket
    shortage = Shortage()
    while True:
        await trio.lowlevel.wait_readable(listening)
        if server.accounts.has_more_than_others:
            await trio.sleep(STEP_BACK_S)
        stream = await _accept_one(listening, shortage)
        if stream is not None:  # no checkpoint until it is somebody's
            sessions.start_soon(server.serve_connection, listener.transport, stream)


async def _accept_one(
    listening: trio.socket.SocketType, shortage: Shortage
) -> trio.SocketStream | None:
    """Accept a connection if one is still there (another worker may have been quicker)."""
    try:
        accepted = _nowait(listening)
    except BlockingIOError:
        return None
    except OSError as exc:
        if exc.errno in MENDS:
            shortage.met(exc)
            await trio.sleep(PAUSE_S)
        return None  # or the client is gone already
    accepted.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


def _nowait(listening: trio.socket.SocketType) -> socket.socket:
    borrowed = socket.socket(fileno=listening.fileno())
    try:
        accepted, _ = borrowed.accept()
    finally:
        borrowed.detach()
    return accepted
