"""A chunk that leaves right from its file: the kernel hands the file's pages to the socket.

Read and sent, each byte is copied twice on our side, and that is most of what an upload costs a
client. sendfile(2) copies nothing: on the same machine the server's receive is the only copy left.
What was checksummed before is not what leaves, if somebody writes to the file meanwhile, even after
sendfile has returned; then the server finds that the checksum is not its content's and refuses the
chunk, so that nothing is accepted that was not checksummed.

Whatever sendfile does not do (a file system without it, a file that got shorter, a read that
fails), reading and sending does, or says why not.
"""

from __future__ import annotations

import os
import socket as stdlib_socket
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

from uringd.errors import SourceError

if TYPE_CHECKING:
    from uringd.client.supply import FileSource

COPIED_BYTES = 256 << 10
"""Read and sent at a time, where it must be."""

MSG_MORE = getattr(stdlib_socket, "MSG_MORE", 0)
"""Have TCP send a header together with what follows it (send(2)); others wait for nothing."""


class FileSocket:
    """A connection's socket, for what goes to it beside its stream. Between two of its sends."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        raw = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # no SQL here
        # A descriptor of its own: an event loop lets nobody wait for one that it looks after.
        self._socket: stdlib_socket.socket | None = None if raw is None else raw.dup()
        if self._socket is not None:
            self._socket.setblocking(False)

    @property
    def usable(self) -> bool:
        """Whether there is a socket: a stream may be something else."""
        return self._socket is not None

    async def send(self, data: bytes | memoryview, flags: int = 0) -> None:
        """Send all of `data`. Raises OSError."""
        assert self._socket is not None
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, flags) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def send_file(self, fd: int, position: int, length: int) -> int:
        """Send what can be sent right from a file; the result is less where that ends early."""
        assert self._socket is not None
        done = 0
        while done < length:
            try:
                count = os.sendfile(self._socket.fileno(), fd, position + done, length - done)
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
                continue
            except OSError:
                break
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()


class FileChunk:
    """One DATA frame of a source that is a file. `failure` is why its bytes could not be read."""

    def __init__(self, header: bytes, source: FileSource, offset: int, length: int) -> None:
        self._header = header
        self._source = source
        self._offset = offset
        self._length = length
        self.failure: SourceError | None = None

    async def send(self, socket: FileSocket) -> None:
        """Send the whole frame, in any case. Raises OSError of the socket; sets `failure`."""
        await anyio.lowlevel.checkpoint()
        await socket.send(self._header, MSG_MORE)
        done = await socket.send_file(*self._source.place_of(self._offset), self._length)
        if done < self._length:
            await self._copy(socket, done)

    async def _copy(self, socket: FileSocket, done: int) -> None:
        """Read and send the rest; zeros if it cannot be read, for the frame's length was said.

        A chunk that is padded has another checksum than its header says, and is refused.
        """
        part = memoryview(bytearray(min(COPIED_BYTES, self._length - done)))
        while done < self._length:
            view = part[: self._length - done]
            if self.failure is None:
                try:
                    self._source.read_at(view, self._offset + done)
                except SourceError as exc:
                    self.failure = exc
                    part[:] = bytes(len(part))
            await socket.send(view)
            done += len(view)
