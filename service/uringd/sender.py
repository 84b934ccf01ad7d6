"""Frames to a socket: replies in order, acknowledgements merged, neither without bound.

Replies wait until no more than UNSENT_BYTES_MAX are unsent, and no more than REPLIES_MAX of them;
who would add one waits, and meanwhile the session reads nothing. So a client that takes no answers
costs that and one answer more, however long the answers are that it asks for. Acknowledgements are
cumulative: all that are due for one upload are one frame.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING

import trio

from uringd.ancillary import ancillary_for
from uringd.config import REPLIES_MAX, UNSENT_BYTES_MAX

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
        self._frames: deque[tuple[bytes, int]] = deque()
        self._unsent_bytes = 0
        self._due = False
        self._ended = self._gone = False
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Say that there is something to acknowledge (called from completions)."""
        self._due = True
        self._work.unpark()

    async def put(self, frame: bytes) -> None:
        """Queue a frame; waits while too many are queued, or too much is unsent."""
        while len(self._frames) >= REPLIES_MAX or self._unsent_bytes > UNSENT_BYTES_MAX:
            await self._room.park()
        self.put_nowait(frame)

    def put_nowait(self, frame: bytes, descriptor: int = -1) -> None:
        """Queue a frame that must not wait: one of the few that a session sends unasked.

        A `descriptor` travels with its first byte, and is closed after that, or at the end.
        """
        if self._gone:
            _close(descriptor)
            return
        self._frames.append((frame, descriptor))
        self._unsent_bytes += len(frame)
        self._work.unpark()

    def end(self) -> None:
        """Let `run` return when everything queued was sent."""
        self._ended = True
        self._work.unpark()

    async def run(self) -> None:
        """Send what is queued until `end`. Raises PeerGoneError."""
        try:
            while True:
                while not (self._frames or self._due or self._ended):
                    await self._work.park()
                data, descriptor = self._take()
                queued_bytes = len(data)
                if self._due:
                    self._due = False
                    data += self._acknowledge()
                if data:
                    await self._send_all(memoryview(data), descriptor)
                elif self._ended:
                    return
                self._unsent_bytes -= queued_bytes
                self._room.unpark_all()
        finally:
            self._gone = True
            for _, descriptor in self._frames:
                _close(descriptor)

    def _take(self) -> tuple[bytes, int]:
        """Take the frames that one call sends: one that brings a descriptor begins a call."""
        frames: list[bytes] = []
        first = -1
        while self._frames and (not frames or self._frames[0][1] < 0):
            frame, descriptor = self._frames.popleft()
            first = max(first, descriptor)
            frames.append(frame)
        return b"".join(frames), first

    async def _send_all(self, data: memoryview, descriptor: int) -> None:
        try:
            await self._send_in_time(data, descriptor)
        finally:
            _close(descriptor)

    async def _send_in_time(self, data: memoryview, descriptor: int) -> None:
        try:
            if descriptor < 0:
                data = data[self._send_now(data) :]
                if not data:
                    return
            with trio.move_on_after(self._timeout_s):
                if descriptor >= 0:
                    sent = await self._socket.sendmsg([data], ancillary_for(descriptor))
                    data = data[sent:]
                while data:
                    await trio.lowlevel.wait_writable(self._socket)
                    data = data[self._send_now(data) :]
                return
        except OSError as exc:
            name = errno.errorcode.get(exc.errno or 0, "an error")
            raise PeerGoneError(f"the client is gone ({name})") from exc
        raise PeerGoneError(f"the client took no acknowledgement for {self._timeout_s:.0f} s")

    def _send_now(self, data: memoryview) -> int:
        """Send what the socket takes at once; nearly always that is all of it.

        No pass of the scheduler is due for it: what is sent was waited for.
        """
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
