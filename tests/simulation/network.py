"""The network between clients and daemon: real socket pairs, and a relay that a seed rules.

Each connection has its own delays, so that connections overtake each other; bytes come in pieces of
any size. A connection can be cut, with what is on its way lost or not, or stand still with neither
side being told (half open). A byte can be changed on its way.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

import anyio
import trio

from uringd.errors import ConnectionLostError

if TYPE_CHECKING:
    from tests.simulation.world import World

PIECE_BYTES = 65536
"""What the relay takes at a time at the most."""

SMALL_PIECES = (1, 7, 64, 100, 4096)
SMALL_PIECES_MAX = 24
"""Some connections begin with smaller pieces, of these sizes, and with so many each way: enough to
end anywhere in the first frames. Each takes a pass of the scheduler, which is what a run costs."""

CONNECT_S = 0.05

DAMAGES_MAX = 3
"""Bytes that a connection changes: one that damages every chunk is never done."""


class Connection:
    """One connection: the client's end, the server's, and what lies between."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed}/connection/{number}")
        client, near = _pair()
        far, server = _pair()
        self.client, self.server = client, server
        self._sockets = [near, far]
        self._delay_s = self._random.uniform(0, 2 * world.plan.delay_s)
        self._small_pieces = SMALL_PIECES_MAX if self._random.random() < 0.5 else 0
        self._flows = trio.Event()
        self._flows.set()
        self._scope = trio.CancelScope()
        self._damages = self._random.randint(0, DAMAGES_MAX)
        self._answers = memoryview(b"")  # what the server sent and the relay holds

    async def relay(self) -> None:
        """Carry bytes both ways until either side closes, or it is cut."""
        near, far = self._sockets
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, near, far)
                    nursery.start_soon(self._carry, far, near)
        finally:
            for end in self._sockets:
                end.close()

    def stand_still(self) -> None:
        """Carry nothing, and tell nobody."""
        self._flows = trio.Event()

    def flow(self) -> None:
        """Carry again."""
        self._flows.set()

    def cut(self, *, arrived: bool = False) -> None:
        """Cut it; what the server has sent may have `arrived` before."""
        if arrived and self._flows.is_set():
            near, far = self._sockets
            with contextlib.suppress(OSError):
                held = self._answers
                if _raw(near).send(held) == len(held):
                    _raw(near).send(_raw(far).recv(PIECE_BYTES))
        for end in self._sockets:
            end.close()
        self._scope.cancel()

    async def _carry(self, source: trio.socket.SocketType, sink: trio.socket.SocketType) -> None:
        # What is taken and given is so at once, with no pass of the scheduler in between: at any
        # moment that a cut may come, what is on its way is in one place.
        answers, small = source is self._sockets[1], self._small_pieces
        try:
            while True:
                size = self._random.choice(SMALL_PIECES) if small else PIECE_BYTES
                small = max(0, small - 1)
                left = memoryview(self._maybe_damaged(await _take(source, size)))
                if not left:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if answers:
                    self._answers = left
                await trio.sleep(self._random.uniform(0, self._delay_s))
                if not self._flows.is_set():
                    await self._flows.wait()
                while left:
                    left = left[await _give(sink, left) :]
                    if answers:
                        self._answers = left
                self._world.passed()
        except (OSError, trio.ClosedResourceError):
            self._scope.cancel()

    def _maybe_damaged(self, data: bytes) -> bytes:
        world = self._world
        if not data or not self._damages or not world.trouble:
            return data
        if self._random.random() >= world.plan.damage:
            return data
        self._damages -= 1
        world.tally.counts["network: bytes damaged"] += 1
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]


class Network:
    """All connections there are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed}/network")
        self._connections: dict[Connection, None] = {}
        self._number = 0

    async def connect(self) -> trio.SocketStream:
        """Connect to the daemon. Raises ConnectionLostError while there is none."""
        world = self._world
        await trio.sleep(self._random.uniform(0, CONNECT_S))
        life = world.life
        if life is None or not life.listens:
            raise ConnectionLostError("nobody listens")
        self._number += 1
        connection = Connection(world, self._number)
        world.nursery.start_soon(self._relay, connection)
        life.accept(trio.SocketStream(connection.server))
        return trio.SocketStream(connection.client)

    async def open_stream(self, _url: object) -> anyio.abc.ByteStream:
        """Connect as the product's client does."""
        return Stream(await self.connect())

    async def _relay(self, connection: Connection) -> None:
        self._connections[connection] = None
        try:
            await connection.relay()
        finally:
            del self._connections[connection]

    def cut_all(self) -> None:
        """Cut every connection: the machine at the other end is gone, or its process."""
        for connection in list(self._connections):
            connection.cut(arrived=self._random.random() < 0.5)

    def cut_one(self) -> None:
        """Cut a connection."""
        if self._connections:
            connection = self._random.choice(list(self._connections))
            connection.cut(arrived=self._random.random() < 0.5)

    async def half_open(self) -> None:
        """Let a connection stand still for a while, or for ever."""
        if not self._connections:
            return
        connection = self._random.choice(list(self._connections))
        connection.stand_still()
        await trio.sleep(self._random.choice([0.5, 30.0, 100.0]))
        connection.flow()

    def heal(self) -> None:
        """Let every connection flow."""
        for connection in self._connections:
            connection.flow()


class Stream(anyio.abc.ByteStream):
    """A stream as the product's client has it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _take(source: trio.socket.SocketType, size: int) -> bytes:
    """Wait for bytes and take them, which no pass of the scheduler follows."""
    while True:
        try:
            return _raw(source).recv(size)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(_open(source))


async def _give(sink: trio.socket.SocketType, data: memoryview) -> int:
    """Wait for room and fill it; the result is how many bytes it took."""
    while True:
        try:
            return _raw(sink).send(data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(_open(sink))


def _open(end: trio.socket.SocketType) -> trio.socket.SocketType:
    """Refuse an end that was cut while its task did something else: trio would wait for -1."""
    if end.fileno() < 0:
        raise trio.ClosedResourceError
    return end


def _raw(end: trio.socket.SocketType) -> socket.socket:
    raw: socket.socket = end._sock  # type: ignore[attr-defined]
    return raw


def _pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    return trio.socket.socketpair()
