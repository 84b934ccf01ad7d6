"""The client: uploads from asyncio and trio applications alike (anyio).

    async with connect("tcp://127.0.0.1:7433") as client:
        async with client.upload("name", size=None) as upload:
            await upload.write(data)
            receipt = await upload.commit()

One task at a time uses a connection; open another connection for another task. Frames from the
server are read when something is awaited of it: credit, or an answer. Nothing runs in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from uringd import __version__
from uringd.errors import ConnectionLostError, RefusedError
from uringd.urls import TcpUrl, Url, parse_url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    NEED_DATA,
    BadNameError,
    Connection,
    ConnectionClosed,
    Control,
    Durability,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    Role,
    SendCredit,
    check_name,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from uringd.client_upload import ClientUpload

CONNECT_TIMEOUT_S = 30.0
"""For the connection and HELLO together: beyond it nobody is there."""

ANSWER_TIMEOUT_S = 300.0
"""For an answer, for credit, and for the socket to take a chunk: a commit may wait for a slow disk,
but a server that is stopped, or whose machine is gone, would be waited for without end."""

RECEIVE_BYTES_MAX = 65_536
"""Asked of the socket at a time: many acknowledgements, and one whole control frame."""

UNIX_SEND_BYTES = 4 << 20
"""Send buffer of a Unix socket, two chunks: at the default of 208 KiB the two sides wake each other
ten times a chunk. The kernel cuts it to net.core.wmem_max. TCP tunes its own."""

FAREWELL_TIMEOUT_S = 5.0
"""What an abort may take when the caller is leaving already."""


class Client:
    """A connection to a server, after HELLO. Made by `connect`.

    `chunk_bytes` and `alignment` are the server's, in bytes; `instance_id` names the server's life,
    in hexadecimal: when it changes, what was not durable may be lost.
    """

    def __init__(
        self, stream: anyio.abc.ByteStream, url: Url, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self._connection = Connection(Role.CLIENT)
        self._cookie = 0
        self._lost = ""
        self.credit = SendCredit()
        self.uploads: dict[int, ClientUpload] = {}
        self.url = url
        self.server = ""
        self.instance_id = ""
        self.chunk_bytes = 0
        self.alignment = 0
        self.features: frozenset[str] = frozenset()

    @contextlib.asynccontextmanager
    async def upload(
        self,
        name: str,
        size: int | None = None,
        *,
        overwrite: bool = False,
        durability: str = "published",
    ) -> AsyncIterator[ClientUpload]:
        """Begin an upload; leaving without `commit` aborts it.

        `size` in bytes, when it is known, lets the server reserve the space at once. `durability`
        is what commit will promise: "written", "durable" or "published".
        Raises RefusedError (EXISTS, BAD_NAME, NO_SPACE ...) or ConnectionLostError.
        """
        from uringd.client_upload import ClientUpload  # noqa: PLC0415  # it imports this module

        _check_name(name)
        level = Durability[durability.upper()]
        message = pb.Create(
            name=name,
            size=size,
            overwrite=overwrite,
            durability=int(level),  # type: ignore[arg-type]  # the stub wants its own enum
        )
        reply: pb.CreateReply = await self.request(FrameType.CREATE, message)
        upload = ClientUpload(self, reply, name, size, level)
        self.uploads[reply.upload] = upload
        try:
            yield upload
        finally:
            await upload.aclose()
            self.uploads.pop(reply.upload, None)

    async def list_files(self, prefix: str = "", after: str = "", limit: int = 0) -> pb.ListReply:
        """List published files in byte order; `more` says to ask again after the last one."""
        message = pb.List(prefix=prefix, after=after, limit=limit)
        reply: pb.ListReply = await self.request(FrameType.LIST, message)
        return reply

    async def list_uploads(self, prefix: str = "", after: str = "", limit: int = 0) -> pb.ListReply:
        """List unfinished uploads in order of their ids."""
        message = pb.List(prefix=prefix, after=after, limit=limit, uploads=True)
        reply: pb.ListReply = await self.request(FrameType.LIST, message)
        return reply

    async def stat(self, *, name: str = "", upload_id: str = "") -> pb.StatReply:
        """Ask about a published file or an unfinished upload. Raises RefusedError (NOT_FOUND)."""
        if not upload_id:
            _check_name(name)
        message = pb.Stat(upload_id=upload_id) if upload_id else pb.Stat(name=name)
        reply: pb.StatReply = await self.request(FrameType.STAT, message)
        return reply

    async def abort(self, upload_id: str) -> None:
        """Throw any upload away, by its id. Raises RefusedError (NOT_FOUND, BUSY)."""
        await self.request(FrameType.ABORT, pb.Abort(upload_id=upload_id))

    async def ping(self) -> None:
        """Return when the server has answered."""
        await self.request(FrameType.PING, pb.Ping())

    async def request(self, frame_type: FrameType, message: Message, upload: int = 0) -> Any:
        """Send a request and wait for its reply. Raises RefusedError, ConnectionLostError."""
        self._cookie += 1
        cookie = self._cookie
        frame = self._connection.send_control(frame_type, message, cookie=cookie, upload=upload)
        await self.send(frame)
        while True:
            event = await self.next_event()
            if event.cookie == cookie:
                if event.type is FrameType.ERROR:
                    raise refused(event.message)
                return event.message

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes of frames. A failed or cancelled send ends the connection."""
        self._check_alive()
        whole = False
        try:
            with anyio.move_on_after(self._timeout_s):
                await self._stream.send(data)  # type: ignore[arg-type]  # any buffer does
                whole = True
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self._explain_loss()
        finally:
            if not whole and not self._lost:
                self._lost = "the connection was left in the middle of a frame"
        if not whole:
            self._lost = ""
            raise self._lose(f"the server at {self.url} took nothing for {self._timeout_s:.0f} s")

    def data_header(self, upload: int, offset: int, length: int, crc32c: int) -> bytes:
        """Make the header of a chunk; uses up one slot's credit."""
        self.credit.consume()
        return self._connection.send_data_header(upload, offset, length, crc32c)

    async def next_event(self) -> Control:
        """Wait for a frame, and do what it says: acknowledgements, notices.

        Raises RefusedError when the server ends the session, ConnectionLostError when it is gone.
        """
        self._check_alive()
        with anyio.move_on_after(self._timeout_s):
            return await self._next_event()
        raise self._lose(f"the server at {self.url} said nothing for {self._timeout_s:.0f} s")

    async def _next_event(self) -> Control:
        while True:
            try:
                event = self._connection.next_event()
                if event is NEED_DATA:
                    self._connection.receive_data(await self._receive())
                    continue
            except RemoteProtocolError as exc:
                text = f"the server at {self.url} does not speak this protocol: {exc.text}"
                raise self._lose(text) from exc
            if isinstance(event, ConnectionClosed):
                raise self._lose(f"the server at {self.url} closed the connection")
            assert isinstance(event, Control)
            self._note(event)
            return event

    async def _receive(self) -> bytes:
        try:
            room = min(RECEIVE_BYTES_MAX, self._connection.bytes_acceptable)
            return await self._stream.receive(room)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            raise self._lose(f"the connection to {self.url} broke") from exc

    def _note(self, event: Control) -> None:
        upload = self.uploads.get(event.upload)
        if event.type is FrameType.ACK:
            ack: pb.Ack = event.message
            self.credit.replenish(ack.credit)
            self.instance_id = ack.instance_id.hex()
            if upload is not None:
                upload.acknowledged(ack)
        elif event.type is FrameType.ERROR and not event.cookie:
            error = refused(event.message)
            if not event.upload:
                self._lost = f"the server ended the session: {error.text}"
                raise error
            if upload is not None:
                upload.refused(error)

    async def _explain_loss(self) -> None:
        """Look for the ERROR that the server sent before it closed: it is the better reason."""
        with anyio.move_on_after(1):
            while True:
                await self.next_event()
        raise self._lose(f"the connection to {self.url} broke")

    def _lose(self, text: str) -> ConnectionLostError:
        """Give the connection up; the result is to be raised, with the first reason there was."""
        self._lost = self._lost or text
        return ConnectionLostError(self._lost, self._unfinished())

    def _check_alive(self) -> None:
        if self._lost:
            raise ConnectionLostError(self._lost, self._unfinished())

    def _unfinished(self) -> str:
        """Return the id of an upload that the loss of the connection cuts off."""
        return next((upload.id for upload in self.uploads.values() if not upload.ended), "")

    @property
    def alive(self) -> bool:
        """Whether frames can still be sent."""
        return not self._lost


@contextlib.asynccontextmanager
async def connect(
    url: str | Url, *, token: str = "", timeout_s: float = ANSWER_TIMEOUT_S
) -> AsyncIterator[Client]:
    """Connect and say HELLO. Leaving closes the connection; unfinished uploads are aborted.

    `url` is tcp://host:port or unix:///path, `token` what the server's token file holds, and
    `timeout_s` how long any single wait for the server may take.
    Raises ConnectionLostError when nobody answers within 30 s, RefusedError (UNAUTHORIZED ...).
    """
    url = parse_url(url) if isinstance(url, str) else url
    stream = await _open_stream(url)
    client = Client(stream, url, timeout_s)
    try:
        with anyio.move_on_after(CONNECT_TIMEOUT_S) as scope:
            await _greet(client, token)
        if scope.cancelled_caught:
            raise ConnectionLostError(f"{url} said nothing for {CONNECT_TIMEOUT_S:.0f} s")
        yield client
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)


async def _greet(client: Client, token: str) -> None:
    hello = pb.Hello(client=f"uringd/{__version__}", token=token)
    reply: pb.HelloReply = await client.request(FrameType.HELLO, hello)
    client.credit.replenish(reply.credit)
    client.instance_id = reply.instance_id.hex()
    client.server = reply.server
    client.chunk_bytes = reply.chunk_bytes_max
    client.alignment = reply.alignment
    client.features = frozenset(reply.features)


async def _open_stream(url: Url) -> anyio.abc.SocketStream:
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            if isinstance(url, TcpUrl):
                stream = await anyio.connect_tcp(url.host, url.port)
                raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # no SQL here
                raw.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
                return stream
            stream = await anyio.connect_unix(url.path)
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # no SQL here
            raw.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, UNIX_SEND_BYTES)
            return stream
    except TimeoutError:
        reason = f"no answer for {CONNECT_TIMEOUT_S:.0f} s"
    except OSError as exc:
        reason = _why(exc)
    raise ConnectionLostError(f"cannot connect to {url}: {reason}; is uringd serving there?")


def _why(exc: OSError) -> str:
    cause: BaseException | None = exc
    while cause is not None:  # anyio wraps what the socket said
        if isinstance(cause, OSError) and cause.errno:
            if cause.errno in errno.errorcode:
                return os.strerror(cause.errno)
            return cause.strerror or str(cause)  # getaddrinfo(3) has numbers of its own
        cause = cause.__cause__
    return str(exc)


def _check_name(name: str) -> None:
    """Refuse what the server would refuse; some of it could not even be sent to it."""
    try:
        check_name(name)
    except BadNameError as exc:
        raise RefusedError(exc.code, exc.text) from exc


def refused(message: pb.Error) -> RefusedError:
    """Turn a server's ERROR into the exception."""
    return RefusedError(
        ErrorCode(message.code),
        message.text,
        message.offset if message.HasField("offset") else None,
        tuple((part.offset, part.length) for part in message.missing),
    )
