"""Frames from a socket: headers into the codec, payloads straight into a slot.

The one copy is the kernel's, from the socket into the memory that is written to disk. A payload and
the header behind it are asked for in one call, since that header is usually there by then.
"""

from __future__ import annotations

import contextlib
import socket

import trio

from uringd.wire import (
    HEADER_BYTES,
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    RemoteProtocolError,
)

DRAIN_BYTES_MAX = 64 << 20
"""Thrown away after the last frame to a client: several times what was on its way."""


WASTE_BYTES = 64 << 10
"""Thrown away at a time."""


class Receiver:
    """The receiving half of one connection."""

    def __init__(self, socket: trio.socket.SocketType, connection: Connection) -> None:
        self._socket = socket
        self._connection = connection
        self._next_header = bytearray(HEADER_BYTES)

    async def next_event(self) -> Control | Data | ConnectionClosed:
        """Wait for the next frame. Raises RemoteProtocolError for what is none."""
        connection = self._connection
        while True:
            event = connection.next_event()
            if event is not NEED_DATA:
                assert isinstance(event, Control | Data | ConnectionClosed)
                return event
            connection.receive_data(await self._socket.recv(connection.bytes_wanted))

    async def drain(self, timeout_s: float) -> None:
        """Send no more, and throw away what still comes, so that the client reads our last frame.

        A socket that is closed with unread bytes resets the connection, and a reset throws away
        what the other side has not read yet: the ERROR that says why.
        """
        waste = bytearray(WASTE_BYTES)
        left = DRAIN_BYTES_MAX
        with trio.move_on_after(timeout_s), contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and (count := await self._socket.recv_into(waste)):
                left -= count

    async def discard_payload(self) -> None:
        """Receive the payload of the DATA that came last, and throw it away."""
        waste = memoryview(bytearray(WASTE_BYTES))
        while self._connection.payload_remaining:
            await self.receive_payload(waste[: self._connection.payload_remaining])

    async def receive_payload(self, view: memoryview) -> None:
        """Receive `view`'s length of the payload of the DATA that came last, whole or in parts."""
        connection, header = self._connection, self._next_header
        done = connection.read_payload_into(view)
        while done < len(view):
            rest = view[done:]
            count, *_ = await self._socket.recvmsg_into([rest, header])
            if not count:
                raise RemoteProtocolError(
                    ErrorCode.BAD_FRAME, "the connection ended in the middle of a chunk"
                )
            payload = min(count, len(rest))
            connection.payload_received(payload)
            done += payload
            if count > payload:
                connection.receive_data(header[: count - payload])
