"""A TCP relay in front of a server: it reads along, and cuts connections where it is told to."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import trio

from tests.crash.ledger import Ledger, Watch

if TYPE_CHECKING:
    from random import Random

PIECE_BYTES = 256 << 10
"""Read at once: several chunks, so that the relay costs little."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value for a close that throws away what is under way, as a lost host does."""


class Link:
    """One connection through the relay."""

    def __init__(
        self, number: int, client: trio.SocketStream, server: trio.SocketStream, watch: Watch
    ) -> None:
        self.number = number  # rises: the order in which they came
        self._streams = (client, server)
        self._watch = watch
        self._bytes_left: int | None = None  # until it is cut
        self._reset = False
        self.scope = trio.CancelScope()
        self.closed = trio.Event()

    def cut_after(self, count: int, *, reset: bool) -> None:
        """Cut after `count` more bytes, whichever way they go: by a reset, or by an orderly end."""
        self._bytes_left = count
        self._reset = reset
        if not count:
            self.scope.cancel()

    def cut_now(self) -> None:
        """Cut where it stands."""
        self.scope.cancel()

    async def run(self, relay: Relay) -> None:
        """Carry bytes both ways until both sides ended or the link is cut."""
        client, server = self._streams
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, client, server, relay)
                    nursery.start_soon(self._carry, server, client, relay)
        finally:
            for stream in self._streams:
                if self._reset:
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                stream.socket.close()
            self.closed.set()

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, relay: Relay
    ) -> None:
        from_client = source is self._streams[0]
        try:
            while data := bytes(await source.receive_some(PIECE_BYTES)):
                passed = data if self._bytes_left is None else data[: self._bytes_left]
                # Read along first: what the peer gets to hear is known by then.
                (self._watch.client_sent if from_client else self._watch.server_sent)(passed)
                relay.bytes_carried += len(passed)
                relay.moved()
                await sink.send_all(passed)
                if self._bytes_left is not None:
                    self._bytes_left = max(0, self._bytes_left - len(passed))
                    if not self._bytes_left:
                        self.scope.cancel()
            await sink.send_eof()
        except trio.BrokenResourceError:
            self.scope.cancel()


class Relay:
    """Listens on a port of its own for as long as it runs, whatever becomes of the server."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._moved = trio.Event()
        self._links_made = 0
        self.server: tuple[str, int] | None = None  # None while there is none
        self.links: set[Link] = set()
        self.bytes_carried = 0
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever. Raises BrokenPromiseError when a connection breaks one."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    def moved(self) -> None:
        """Wake who waits for bytes to go past."""
        self._moved.set()
        self._moved = trio.Event()

    async def wait_carried(self, count: int) -> None:
        """Wait until so many bytes in all have gone past."""
        while self.bytes_carried < count:
            await self._moved.wait()

    async def cut_one(self, random: Random, patience_s: float) -> bool:
        """Cut a connection at a random byte, soon; False when there is none."""
        if not self.links:
            return False
        # A set's order is that of addresses: by age it is a matter of the seed.
        link = random.choice(sorted(self.links, key=lambda each: each.number))
        link.cut_after(random.randrange(4 * PIECE_BYTES), reset=random.random() < 0.5)
        with trio.move_on_after(patience_s):
            await link.closed.wait()
        link.cut_now()
        await link.closed.wait()
        return True

    async def _serve(self, client: trio.SocketStream) -> None:
        if self.server is None:
            await client.aclose()
            return
        try:
            server = await trio.open_tcp_stream(*self.server)
        except OSError:
            await client.aclose()
            return
        self._links_made += 1
        link = Link(self._links_made, client, server, Watch(self._ledger))
        self.links.add(link)
        try:
            await link.run(self)
        finally:
            self.links.discard(link)
