"""Frames from a socket: headers into the codec, payloads straight into a slot.

The one copy is the kernel's, from the socket into the memory that is written to disk. A payload and
the header behind it are asked for in one call, since that header is usually there by then.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import trio

from uringd.wire import (
    HEADER_BYTES,
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DRAIN_BYTES_MAX = 64 << 20
"""Thrown away after the last frame to a client: several times what was on its way."""


READ_AHEAD_BYTES = 64 << 10
"""Asked for behind a PUT: what a control frame may take of memory anyway."""

WASTE_BYTES = 64 << 10
"""Thrown away at a time."""


class Receiver:
    """The receiving half of one connection."""

    reads_ahead = True
    """Whether it may ask for more than the rest of one frame."""

    def __init__(
        self,
        socket: trio.socket.SocketType,
        connection: Connection,
        make_room: Callable[[int], Awaitable[None]],
    ) -> None:
        self._socket = socket
        self._connection = connection
        self._make_room = make_room
        self._has_room = self._after_put = False
        self._next_header = bytearray(HEADER_BYTES)

    async def next_event(self) -> Control | Data | ConnectionClosed:
        """Wait for the next frame. Raises RemoteProtocolError for what is none.

        Behind a PUT there usually are more: a good piece is asked for then, since for short ones a
        system call for each costs as much as all else. The rest of one that is not whole by then
        is received when `make_room` has returned.
        """
        connection = self._connection
        while (event := self.ready_event()) is None:
            wanted = connection.bytes_wanted
            if length := connection.awaited_put_bytes:
                if not self._has_room:
                    await self._make_room(length)
                    self._has_room = True
                wanted += HEADER_BYTES * self.reads_ahead
            if self._after_put and self.reads_ahead:
                wanted = max(wanted, min(READ_AHEAD_BYTES, connection.bytes_acceptable))
            connection.receive_data(await self._receive(wanted))
        return event

    async def _receive(self, count: int) -> bytes:
        return await self._socket.recv(count)

    def ready_event(self) -> Control | Data | ConnectionClosed | None:
        """Return the next frame if it is here already. Raises as `next_event` does."""
        event = self._connection.next_event()
        if event is NEED_DATA:
            return None
        assert isinstance(event, Control | Data | ConnectionClosed)
        self._has_room = False
        self._after_put = isinstance(event, Control) and event.type is FrameType.PUT
        return event

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
