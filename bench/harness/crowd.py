"""Many clients in one process, as cheap as they can be: what is measured is the server.

They speak by the product's codec over sockets of their own. All send the same content, whose
checksums are known before; a frame is one sendmsg(2) of a header and a part of that content.

    crowd.py idle URL COUNT            connect COUNT clients and hold them until stdin ends
    crowd.py fill URL COUNT BYTES      COUNT uploads of BYTES each, from a line on stdin on
    crowd.py slow URL COUNT BYTES      one upload of COUNT chunks of BYTES, one after the other

Each prints "ready" first, and then one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where bench/ is

import trio

from bench.harness.content import make_block, stamp
from bench.harness.units import MIB
from uringd.urls import TcpUrl, UnixUrl, Url, parse_url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    NEED_DATA,
    Connection,
    Control,
    ErrorCode,
    FrameType,
    Role,
    crc32c,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONTENT_BYTES = 64 * MIB
CONNECTING_MAX = 64
"""Clients that connect at a time: the kernel's queue of a listener is longer."""
PAUSE_S = 0.01
"""Between two chunks of a slow client."""


class Content:
    """Chunks that are there already, and their checksums."""

    def __init__(self, chunk_bytes: int) -> None:
        block = make_block(chunk_bytes)
        self.chunks = [memoryview(bytearray(block)) for _ in range(CONTENT_BYTES // chunk_bytes)]
        for number, chunk in enumerate(self.chunks):
            stamp(chunk, number)
        self.checksums = [crc32c(chunk) for chunk in self.chunks]

    def __getitem__(self, number: int) -> tuple[memoryview, int]:
        at = number % len(self.chunks)
        return self.chunks[at], self.checksums[at]


class CheapClient:
    """One connection past HELLO."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = Connection(Role.CLIENT)
        self._cookie = 0
        self.credit = 0
        self.chunk_bytes = 0

    async def hello(self) -> None:
        """Say HELLO."""
        reply: pb.HelloReply = await self.ask(FrameType.HELLO, pb.Hello(client="crowd"))
        self.credit, self.chunk_bytes = reply.credit, reply.chunk_bytes_max

    async def create(self, name: str, size: int) -> int:
        """Begin an upload; the result is its handle."""
        reply: pb.CreateReply = await self.ask(FrameType.CREATE, pb.Create(name=name, size=size))
        return reply.upload

    async def fill(self, handle: int, size: int, content: Content) -> None:
        """Send every chunk of an upload, and COMMIT it."""
        for offset in range(0, size, self.chunk_bytes):
            payload, crc = content[offset // self.chunk_bytes]
            if size - offset < self.chunk_bytes:
                payload = payload[: size - offset]
                crc = crc32c(payload)
            await self.send_chunk(handle, offset, payload, crc)
        await self.ask(FrameType.COMMIT, pb.Commit(size=size), handle)

    async def send_chunk(self, handle: int, offset: int, payload: memoryview, crc: int) -> None:
        """Send one chunk when there is credit."""
        while not self.credit:
            await self.next_event()
        self.credit -= 1
        header = self._connection.send_data_header(handle, offset, len(payload), crc)
        sent = await self._stream.socket.sendmsg([header, payload])
        if sent < len(header):
            await self._stream.send_all(header[sent:])
            sent = len(header)
        await self._stream.send_all(payload[sent - len(header) :])

    async def ask(self, frame_type: FrameType, message: Any, upload: int = 0) -> Any:
        """Send a request and wait for its reply."""
        self._cookie += 1
        frame = self._connection.send_control(
            frame_type, message, cookie=self._cookie, upload=upload
        )
        await self._stream.send_all(frame)
        while True:
            event = await self.next_event()
            if event.cookie:
                return event.message

    async def next_event(self) -> Control:
        """Wait for a frame; acknowledgements are taken here."""
        while (event := self._connection.next_event()) is NEED_DATA:
            self._connection.receive_data(await self._stream.receive_some(65_536))
        if not isinstance(event, Control):
            sys.exit("the server closed the connection")
        if event.type is FrameType.ACK:
            self.credit += event.message.credit
        elif event.type is FrameType.ERROR:
            sys.exit(f"{ErrorCode(event.message.code).name}: {event.message.text}")
        return event


async def connect(url: Url) -> CheapClient:
    """Connect and say HELLO."""
    if isinstance(url, UnixUrl):
        stream = await trio.open_unix_socket(url.path)
    else:
        assert isinstance(url, TcpUrl)
        stream = await trio.open_tcp_stream(url.host, url.port)
    client = CheapClient(stream)
    await client.hello()
    return client


async def connect_many(url: Url, count: int) -> list[CheapClient]:
    """Connect clients, some at a time."""
    clients: list[CheapClient] = []
    limit = trio.CapacityLimiter(CONNECTING_MAX)

    async def one() -> None:
        async with limit:
            clients.append(await connect(url))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return clients


async def idle(url: Url, count: int) -> dict[str, float]:
    """Hold connections until stdin ends."""
    clients = await connect_many(url, count)
    await told()
    return {"connections": len(clients)}


async def fill(url: Url, count: int, size: int) -> dict[str, float]:
    """Upload side by side; the result is the time from the word to the last receipt."""
    clients = await connect_many(url, count)
    content = Content(clients[0].chunk_bytes)
    await told()
    began = time.perf_counter()
    ended: list[float] = []

    async def one(number: int, client: CheapClient) -> None:
        handle = await client.create(f"{number}", size)
        await client.fill(handle, size, content)
        ended.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(one, number, client)
    return {"seconds": max(ended), "first_s": min(ended), "cpu_s": time.process_time()}


async def slow(url: Url, count: int, size: int) -> dict[str, float]:
    """Send one chunk at a time; the result is how long its credit took to come back."""
    client = await connect(url)
    content = Content(size)
    handle = await client.create("slow", count * size)
    await told()
    waits = []
    granted = client.credit
    for number in range(count):
        payload, crc = content[number]
        began = time.perf_counter()
        await client.send_chunk(handle, number * size, payload, crc)
        while client.credit < granted:
            await client.next_event()
        waits.append(time.perf_counter() - began)
        await trio.sleep(PAUSE_S)
    waits.sort()
    return {"p50_s": waits[len(waits) // 2], "p99_s": waits[len(waits) * 99 // 100]}


async def told() -> None:
    """Say that we are ready, and wait for the word."""
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)


WORK = {"idle": idle, "fill": fill, "slow": slow}

if __name__ == "__main__":
    what, address, *numbers = sys.argv[1:]
    work = cast("Callable[..., Awaitable[dict[str, float]]]", WORK[what])
    found = trio.run(work, parse_url(address), *map(int, numbers))
    print(json.dumps(found))
