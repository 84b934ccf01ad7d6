"""Frames to a socket: replies in order, acknowledgements merged, neither without bound.

Replies wait in a queue of REPLIES_MAX; who would add one more waits, and meanwhile the session
reads nothing. Acknowledgements are cumulative: all that are due for one upload are one frame.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

import trio

from uringd.config import REPLIES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable


class PeerGoneError(Exception):
    """The client takes nothing any more: it closed, vanished, or reads nothing."""


class Sender:
    """The sending half of one connection. `acknowledge` makes the frames that are due now."""

    def __init__(
        self,
        socket: trio.socket.SocketType,
        acknowledge: Callable[[], bytes],
        send_timeout_s: float,
    ) -> None:
        self._socket = socket
        self._acknowledge = acknowledge
        self._timeout_s = send_timeout_s
        self._frames: deque[bytes] = deque()
        self._due = False
        self._ended = False
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Say that there is something to acknowledge (called from completions)."""
        self._due = True
        self._work.unpark()

    async def put(self, frame: bytes) -> None:
        """Queue a frame; waits while REPLIES_MAX are queued."""
        while len(self._frames) >= REPLIES_MAX:
            await self._room.park()
        self.put_nowait(frame)

    def put_nowait(self, frame: bytes) -> None:
        """Queue a frame that must not wait: one of the few that a session sends unasked."""
        self._frames.append(frame)
        self._work.unpark()

    def end(self) -> None:
        """Let `run` return when everything queued was sent."""
        self._ended = True
        self._work.unpark()

    async def run(self) -> None:
        """Send what is queued until `end`. Raises PeerGoneError."""
        while True:
            while not (self._frames or self._due or self._ended):
                await self._work.park()
            data = b"".join(self._frames)
            self._frames.clear()
            self._room.unpark_all()
            if self._due:
                self._due = False
                data += self._acknowledge()
            if data:
                await self._send_all(memoryview(data))
            elif self._ended:
                return

    async def _send_all(self, data: memoryview) -> None:
        with trio.move_on_after(self._timeout_s):
            while data:
                try:
                    sent = await self._socket.send(data)
                except OSError as exc:
                    name = errno.errorcode.get(exc.errno or 0, "an error")
                    raise PeerGoneError(f"the client is gone ({name})") from exc
                data = data[sent:]
            return
        raise PeerGoneError(f"the client took no acknowledgement for {self._timeout_s:.0f} s")
