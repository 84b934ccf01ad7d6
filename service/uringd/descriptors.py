"""Descriptors that travel with frames over a Unix socket (SCM_RIGHTS, unix(7)).

What the kernel does:
- Descriptors belong to bytes. They come with the receive that takes the first byte they were sent
  with, and that receive takes no byte of a later send. So what is sent with the first byte of a
  frame comes with its header, as long as no receive asks for more than the rest of one frame.
- A receive without room for descriptors closes them without a word. Every other session receives
  so: nobody can fill the table of descriptors of a server that has asked for none.
- Where there is room for one, the surplus is closed and MSG_CTRUNC is set. The same flag, and none
  at all, is what comes when this process has no descriptors left. So a frame states their number,
  and what came is held against it.
- Without MSG_CMSG_CLOEXEC a child process would inherit them.

So a descriptor has one owner from the moment it is here: this receiver until `descriptor` hands it
to a block of code, which closes it at its end. Whatever no frame has asked for is closed before the
next frame is read.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from uringd.ancillary import ANCILLARY_BYTES, descriptors_of
from uringd.client_memory import CLOSER
from uringd.receiver import Receiver
from uringd.wire import ErrorCode, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import trio

    from uringd.wire import Connection, ConnectionClosed, Control, Data


class DescriptorReceiver(Receiver):
    """The receiving half of a connection that shares memory.

    Without `may_come` none of its frames may bring descriptors. Then it receives as every other
    does, more than a frame at a time, and has no room for any.
    """

    def __init__(
        self,
        socket: trio.socket.SocketType,
        connection: Connection,
        make_room: Callable[[int], Awaitable[memoryview | None]],
        *,
        may_come: bool,
    ) -> None:
        super().__init__(socket, connection, make_room)
        self.reads_ahead = not may_come
        self._stream = socket
        self._came: list[int] = []
        self._cut = False

    async def next_event(self) -> Control | Data | ConnectionClosed:
        """Wait for the next frame. What came with the last one and was not taken is closed."""
        self.close()
        return await super().next_event()

    async def _receive(self, count: int) -> bytes:
        if self.reads_ahead:
            return await super()._receive(count)
        data, ancillary, flags, _ = await self._stream.recvmsg(
            count, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        self._came += descriptors_of(ancillary)
        self._cut = self._cut or bool(flags & socket.MSG_CTRUNC)
        return data

    @contextlib.contextmanager
    def descriptor(self, stated: int) -> Iterator[int]:
        """Lend the descriptor of the frame that came last, -1 where it is to have none.

        It is closed at the end of the block. Raises RemoteProtocolError (BAD_FRAME) when as many
        came as `stated` is not.
        """
        try:
            if stated and (self._cut or len(self._came) != stated):
                came = "more" if self._cut and self._came else str(len(self._came))
                text = f"a frame says that {stated} descriptor comes with it, and {came} came"
                raise RemoteProtocolError(ErrorCode.BAD_FRAME, text)
            yield self._came[0] if stated else -1
        finally:
            self.close()

    def close(self) -> None:
        """Close what came and was not asked for."""
        while self._came:
            CLOSER.close(self._came.pop())
        self._cut = False
