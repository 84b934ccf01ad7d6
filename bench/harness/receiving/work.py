"""What every way has in common: the socket, the codec, the slots, and where chunks go to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Connection, Data, FrameType, Role
from uringio.lowlevel import OpenFile, Preallocation, WriteBehind, open_file, operations

if TYPE_CHECKING:
    import socket

    from bench.harness.receiving.order import Order
    from uringio import Ring
    from uringio.exceptions import OperationError
    from uringio.lowlevel import Slot

AT_FDCWD = -100


class Work:
    """One measurement's work. A way awaits headers and payloads, and gives each chunk to `take`."""

    def __init__(self, order: Order, ring: Ring, raw: socket.socket) -> None:
        setting = order.setting
        self.order = order
        self.ring = ring
        self.raw = raw
        self.socket = trio.socket.from_stdlib_socket(raw)
        self.connection = _opened(setting.slot_bytes)
        self.chunks = order.total_bytes // setting.slot_bytes
        self.calls = 0
        self.file: OpenFile | None = None
        self._behind: WriteBehind | None = None
        self._failure: OperationError | None = None

    async def open(self) -> None:
        """Make the file, with its blocks reserved, if chunks are written."""
        if not self.order.setting.writes:
            return
        reactor, path = self.ring.reactor, os.path.join(self.order.directory, "file")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        opening = operations.open_at(AT_FDCWD, path, flags, 0o600)
        self.file = file = await open_file(reactor, opening, path, "auto")
        await Preallocation(reactor, file.fd, path, self.order.total_bytes).reserve(
            self.order.total_bytes
        )
        self._behind = WriteBehind(reactor, self.ring.slots, file.fd, path, file.block_bytes)

    def header(self, data: bytes | bytearray | memoryview) -> Data:
        """Decode a header."""
        self.connection.receive_data(data)
        return self.event()

    def event(self) -> Data:
        """Take the chunk that the codec has been told of."""
        event = self.connection.next_event()
        assert isinstance(event, Data)
        return event

    def take(self, slot: Slot, event: Data, crc: int) -> None:
        """Judge a chunk by the checksum of its bytes, and write it in the background."""
        if crc != event.crc32c:
            raise AssertionError(f"the chunk at {event.offset} differs from its checksum")
        if self._behind is None:
            self.ring.slots.release(slot)
        else:
            self._behind.submit(slot, event.offset, event.length, self._written)

    async def finish(self) -> None:
        """Wait until all is written, and make it durable."""
        if self._behind is None or self.file is None:
            return
        await self._behind.wait_written()
        result = await self.ring.reactor.perform(operations.fsync(self.file.fd))
        assert result == 0, os.strerror(-result)
        os.close(self.file.fd)

    def _written(
        self, slot: Slot, _offset: int, _length: int, _failure: OperationError | None
    ) -> None:
        self.ring.slots.release(slot)


def _opened(chunk_bytes: int) -> Connection:
    """Make a server's half of a connection that has said HELLO."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER, chunk_bytes_max=chunk_bytes)
    server.receive_data(client.send_control(FrameType.HELLO, pb.Hello(), cookie=1))
    server.next_event()
    reply = pb.HelloReply(
        instance_id=bytes(16), chunk_bytes_max=chunk_bytes, alignment=1, credit=1, uploads_max=1
    )
    server.send_control(FrameType.HELLO, reply, reply_to=1)
    return server
