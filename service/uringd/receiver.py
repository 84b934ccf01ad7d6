"""Frames from a socket: headers into the codec, payloads straight into a slot.

The one copy is the kernel's, from the socket into the memory that is written to disk. What else a
chunk costs is decided by how often this process is woken for it and by what is in its caches:

- Who waits for a socket is woken by its first byte, finds some hundred KiB, and waits again: a pass
  of the scheduler each time, which costs as much as copying 200 KiB. TCP can be told to wake nobody
  for less (SO_RCVLOWAT; its receive buffer grows with it). Only bytes that the header has announced
  are waited for, so nobody is kept waiting for what does not come; the end of the stream and a full
  buffer wake all the same.
- A piece is checksummed when it has just been copied, out of the core's own cache. A Unix socket
  has no low-water mark, and its sender uses that time to fill it again.
- The header behind a payload is asked for in the same call, since it is usually there by then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import trio

from uringd.wire import (
    APART_BYTES_MIN,
    HEADER_BYTES,
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    crc32c,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DRAIN_BYTES_MAX = 64 << 20
"""Thrown away after the last frame to a client: several times what was on its way."""

READ_AHEAD_BYTES = 64 << 10
"""Asked for behind a short PUT: what a control frame may take of memory anyway. Behind a long one
it is a header, so that the next one's payload is received where it stays."""

PLACED_AHEAD_BYTES = 4096
"""Asked for behind a PLACED: header, message, and those of more chunks than fit a slab."""

WASTE_BYTES = 64 << 10
"""Thrown away at a time."""

PIECE_BYTES = 512 << 10
"""Received and checksummed at a time: it stays in a core's second-level cache in between."""

WAKE_BYTES = 1 << 20
"""TCP wakes us for no less of a payload than this, or what is left of it: half of a chunk, so that
the other half arrives while it is copied."""

TURN_BYTES = 4 << 20
"""Received without a pass of the scheduler at the most: 1 ms, in which the event loop runs nothing
else and no write is handed to the disk."""

PUTS_TURN_BYTES = 512 << 10
"""The same of small uploads, which cost more than their bytes, and of which a group may wait."""


class Receiver:
    """The receiving half of one connection."""

    reads_ahead = True
    """Whether it may ask for more than the rest of one frame."""

    def __init__(
        self,
        socket: trio.socket.SocketType,
        connection: Connection,
        make_room: Callable[[int], Awaitable[memoryview | None]],
    ) -> None:
        self._socket = socket
        self._connection = connection
        self._make_room = make_room
        self._has_room = False
        self._memory: memoryview | None = None
        self._ahead_bytes = 0
        self._turn_bytes = 0
        self._wakes_at = 1 if _has_low_water_mark(socket) else 0

    async def next_event(self) -> Control | Data | ConnectionClosed:
        """Wait for the next frame. Raises RemoteProtocolError for what is none.

        Behind a PUT there usually are more: a good piece is asked for then, since for short ones a
        system call for each costs as much as all else. The rest of one that is not whole by then
        is received when `make_room` has returned, that of a long one into the memory where it
        stays: that which `make_room` gave, where its content is found to begin.
        """
        connection = self._connection
        while (event := self.ready_event()) is None:
            wanted = connection.bytes_wanted
            if length := connection.awaited_put_bytes:
                if not self._has_room:
                    self._memory = await self._make_room(length)
                    self._has_room = True
                if length >= APART_BYTES_MIN and self.reads_ahead:
                    wanted = connection.put_head_wanted if self._memory is not None else 0
                    if not wanted:
                        await self._receive_put()
                        continue
                else:
                    wanted += HEADER_BYTES * self.reads_ahead
            if self._ahead_bytes:
                wanted = max(wanted, min(self._ahead_bytes, connection.bytes_acceptable))
            self._wake_at(1)
            self._turn_bytes = 0
            connection.receive_data(await self._receive(wanted))
        return event

    async def _receive_put(self) -> None:
        """Receive what is there of the awaited PUT, or wait for its rest."""
        connection = self._connection
        view = connection.put_memory(self._memory)
        if self._turn_bytes >= PUTS_TURN_BYTES:
            self._turn_bytes = 0
            await trio.lowlevel.checkpoint()
        header = bytearray(HEADER_BYTES)
        piece = view[:PIECE_BYTES]
        is_last = len(piece) == len(view)
        try:
            count = os.readv(self._socket.fileno(), [piece, header] if is_last else [piece])
        except BlockingIOError:
            self._turn_bytes = 0
            self._wake_at(min(WAKE_BYTES, len(view)))
            await trio.lowlevel.wait_readable(self._socket)
            return
        connection.put_received(min(count, len(piece)))
        self._turn_bytes += count
        if not count or count > len(piece):  # the end of the stream, or what is behind the PUT
            connection.receive_data(header[: max(0, count - len(piece))])

    async def _receive(self, count: int) -> bytes:
        return await self._socket.recv(count)

    def ready_event(self) -> Control | Data | ConnectionClosed | None:
        """Return the next frame if it is here already. Raises as `next_event` does."""
        event = self._connection.next_event()
        if event is NEED_DATA:
            return None
        assert isinstance(event, Control | Data | ConnectionClosed)
        self._has_room, self._memory = False, None
        self._ahead_bytes = self._behind(event) if self.reads_ahead else 0
        return event

    def _behind(self, event: Control | Data | ConnectionClosed) -> int:
        """Say how many bytes to ask for behind a frame: like follows on like."""
        if isinstance(event, Control) and event.type is FrameType.PUT:
            is_long = len(event.content) >= APART_BYTES_MIN
            return HEADER_BYTES if is_long else READ_AHEAD_BYTES
        if isinstance(event, Control) and event.type is FrameType.PLACED:
            return PLACED_AHEAD_BYTES
        return 0

    async def drain(self, timeout_s: float) -> None:
        """Send no more, and throw away what still comes, so that the client reads our last frame.

        A socket that is closed with unread bytes resets the connection, and a reset throws away
        what the other side has not read yet: the ERROR that says why.
        """
        waste = bytearray(WASTE_BYTES)
        left = DRAIN_BYTES_MAX
        with trio.move_on_after(timeout_s), contextlib.suppress(OSError):
            self._wake_at(1)
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and (count := await self._socket.recv_into(waste)):
                left -= count

    async def discard_payload(self) -> None:
        """Receive the payload of the DATA that came last, and throw it away."""
        waste = memoryview(bytearray(WASTE_BYTES))
        while self._connection.payload_remaining:
            await self.receive_payload(waste[: self._connection.payload_remaining])

    async def receive_payload(self, view: memoryview) -> int:
        """Receive `view`'s length of the payload of the DATA that came last, whole or in parts.

        The result is its CRC32C. Cancelled, the bytes that came are lost, and with them the place
        in the stream: only who ends the session may cancel.
        """
        connection, length = self._connection, len(view)
        done = connection.read_payload_into(view)
        crc = crc32c(view[:done])
        turn_ends = done  # others ran while the header was waited for, or they run now
        while done < length:
            if done >= turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = done + TURN_BYTES
            piece = view[done : done + PIECE_BYTES]
            try:
                is_last = done + len(piece) == length
                count = self._read(piece, with_header=is_last and self.reads_ahead)
            except BlockingIOError:
                self._wake_at(min(WAKE_BYTES, length - done))
                await trio.lowlevel.wait_readable(self._socket)
                turn_ends = done + TURN_BYTES
                continue
            if not count:
                raise RemoteProtocolError(
                    ErrorCode.BAD_FRAME, "the connection ended in the middle of a chunk"
                )
            crc = crc32c(piece[:count], crc)
            done += count
        return crc

    def _read(self, piece: memoryview, *, with_header: bool) -> int:
        """Take what is there of a payload, and of the header behind it; how much of the payload."""
        connection = self._connection
        header = bytearray(HEADER_BYTES) if with_header else b""
        count = os.readv(self._socket.fileno(), [piece, header] if with_header else [piece])
        payload = min(count, len(piece))
        connection.payload_received(payload)
        if count > payload:
            connection.receive_data(header[: count - payload])
        return payload

    def wake_for_anything(self) -> None:
        """Leave the socket as it came, for another process that receives from it."""
        self._wake_at(1)

    def _wake_at(self, count: int) -> None:
        """Have TCP wake us when so many bytes are there, or the stream has ended."""
        if self._wakes_at and self._wakes_at != count:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._wakes_at = count


def _has_low_water_mark(socket_: trio.socket.SocketType) -> bool:
    return socket_.family in {socket.AF_INET, socket.AF_INET6}
