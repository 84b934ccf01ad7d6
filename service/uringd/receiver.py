"""Frames from a socket: headers into the codec, payloads straight into a slot.

The one copy is the kernel's, from the socket into the memory that is written to disk. A payload and
the header behind it are asked for in one call, since that header is usually there by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import trio


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

    async def receive_payload(self, view: memoryview) -> None:
        """Receive the payload of the DATA that came last; `view` has its exact length."""
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
