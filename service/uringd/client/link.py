"""One connection to a server, from HELLO to its end.

Whoever waits for something reads, and does what the frames say that come before it: credit and
positions go to the uploads, answers to whom they are for.
"""

from __future__ import annotations

import contextlib
import os
import socket as stdlib_socket
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.abc import SocketAttribute

from uringd import __version__
from uringd.ancillary import ANCILLARY_BYTES, descriptors_of
from uringd.client.file_chunk import FileChunk, FileSocket
from uringd.client.stream import CONNECT_TIMEOUT_S, open_stream
from uringd.errors import ConnectionLostError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    Role,
    SendCredit,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from google.protobuf.message import Message

    from uringd.client.chunk import Piece
    from uringd.client.places import Place, Places
    from uringd.client.supply import FileSource
    from uringd.urls import Url

ANSWER_TIMEOUT_S = 300.0
"""For an answer, for credit, and for the socket to take a chunk: a commit may wait for a slow disk,
but a server that is stopped, or whose machine is gone, would be waited for without end."""

RECEIVE_BYTES_MAX = 65_536
"""Asked of the socket at a time: many acknowledgements, and one whole control frame."""

EXPLANATION_S = 1.0
"""For the ERROR of a server that closed while we were sending: it is there already, or never."""

FEATURES = ("resume", "lanes", "page-checksums", "small-uploads")
"""What this client asks for in HELLO; features of shared memory only where they are wanted."""


class Holder(Protocol):
    """Whom a link tells about an upload."""

    @property
    def upload_id(self) -> str:
        """The upload's id, for who is told that the link was lost."""

    def acknowledged(self, ack: pb.Ack) -> None:
        """Take the positions of an ACK."""

    def noticed(self, error: RefusedError) -> None:
        """Take the server's notice that a chunk was refused, or the upload failed."""


class Link:
    """A connection after HELLO. Made by `open_link`; used by one task at a time.

    `chunk_bytes`, `alignment` and `small_bytes_max` are the server's, in bytes; `instance_id` names
    the server's life, in hexadecimal.
    """

    def __init__(self, stream: anyio.abc.ByteStream, url: Url, timeout_s: float) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self._connection = Connection(Role.CLIENT)
        self._cookie = 0
        self._waiting: dict[int, Callable[[Control], None]] = {}
        self._lost = ""
        self.holders: dict[int, Holder] = {}
        self.credit = SendCredit()
        self.url = url
        self.server = ""
        self.instance_id = ""
        self.chunk_bytes = 0
        self.alignment = 0
        self.small_bytes_max = 0
        self.features: frozenset[str] = frozenset()
        self.places: Places | None = None
        self._came: list[int] | None = None
        self._file_socket = FileSocket(stream)

    @property
    def takes_files(self) -> bool:
        """Whether `send_from` can be used: what is below is a socket."""
        return self._file_socket.usable

    @property
    def alive(self) -> bool:
        """Whether frames can still be sent, as far as is known."""
        return not self._lost

    async def request(
        self, frame_type: FrameType, message: Message, upload: int = 0, *, descriptor: int = -1
    ) -> Any:
        """Send a request and wait for its reply. Raises RefusedError, ConnectionLostError."""
        answers: list[Control] = []
        await self.post(frame_type, message, answers.append, upload, descriptor)
        while not answers:
            await self.next_event()
        if answers[0].type is FrameType.ERROR:
            raise refused(answers[0].message)
        return answers[0].message

    async def post(
        self,
        frame_type: FrameType,
        message: Message,
        then: Callable[[Control], None],
        upload: int = 0,
        descriptor: int = -1,
    ) -> None:
        """Send a request; `then` is called when its reply, or an ERROR in its place, is read."""
        await self.send(self.request_frame(frame_type, message, then, upload), descriptor)

    def request_frame(
        self,
        frame_type: FrameType,
        message: Message,
        then: Callable[[Control], None],
        upload: int = 0,
    ) -> bytes:
        """Make a request's frame, which is to be sent next; `then` as for `post`."""
        self._cookie += 1
        cookie = self._cookie
        frame = self._connection.send_control(frame_type, message, cookie=cookie, upload=upload)
        self._waiting[cookie] = then
        return frame

    def put_frame(
        self, message: pb.Put, content: bytes | memoryview, then: Callable[[Control], None]
    ) -> bytes:
        """Make a PUT's frame up to its content, which is to be sent next; `then` as for `post`."""
        self._cookie += 1
        frame = self._connection.send_put(message, content, cookie=self._cookie)
        self._waiting[self._cookie] = then
        return frame

    async def send(self, data: bytes | memoryview, descriptor: int = -1) -> None:
        """Send bytes of frames. A failed or cancelled send ends the connection.

        A `descriptor` travels with the first byte, over a Unix socket; it stays the caller's.
        """
        await self._deliver(partial(self._send, data, descriptor))

    async def send_from(self, header: bytes, source: FileSource, piece: Piece) -> None:
        """Send a chunk of a file right from there; as `send`. Raises SourceError."""
        chunk = FileChunk(header, source, piece.offset, piece.length)
        await self._deliver(partial(chunk.send, self._file_socket))
        if chunk.failure is not None:
            raise chunk.failure

    async def _send(self, data: bytes | memoryview, descriptor: int) -> None:
        if descriptor >= 0:
            assert isinstance(self._stream, anyio.abc.UNIXSocketStream)
            await self._stream.send_fds(bytes(data), [descriptor])
        else:
            await self._stream.send(data)  # type: ignore[arg-type]  # any buffer does

    async def _deliver(self, sending: Callable[[], Awaitable[None]]) -> None:
        """Await the sending of whole frames."""
        self._check_alive()
        whole = False
        try:
            with anyio.move_on_after(self._timeout_s):
                await sending()
                whole = True
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self._explain_loss()
        finally:
            if not whole and not self._lost:
                self._lost = "the connection was left in the middle of a frame"
        if not whole:
            self._lost = ""
            raise self._lose(f"the server at {self.url} took nothing for {self._timeout_s:.0f} s")

    async def send_notice(self, frame_type: FrameType, message: Message, upload: int) -> None:
        """Send a control frame that asks for nothing."""
        await self.send(self._connection.send_control(frame_type, message, upload=upload))

    def data_header(self, upload: int, offset: int, length: int, crc32c: int) -> bytes:
        """Make the header of a chunk; uses up one slot's credit."""
        self.credit.consume()
        return self._connection.send_data_header(upload, offset, length, crc32c)

    async def send_placed(self, upload: int, piece: Piece, place: Place) -> None:
        """Say where in shared memory a chunk lies; uses up one slot's credit."""
        message = pb.Placed(
            offset=piece.offset,
            length=piece.length,
            crc32c=piece.crc32c,
            memory_offset=place.offset,
            descriptors=int(place.memory >= 0),
        )
        self.credit.consume()
        frame = self._connection.send_control(FrameType.PLACED, message, upload=upload)
        await self.send(frame, place.memory)

    @contextlib.contextmanager
    def expecting_descriptor(self) -> Iterator[list[int]]:
        """Take the descriptors that come with frames meanwhile; they are closed at the end."""
        came: list[int] = []
        self._came = came
        try:
            yield came
        finally:
            self._came = None
            for descriptor in came:
                os.close(descriptor)

    async def next_event(self) -> Control:
        """Wait for a frame, and do what it says: answers, acknowledgements, notices.

        Raises RefusedError when the server ends the session, ConnectionLostError when it is gone.
        Cancelled, nothing is lost.
        """
        self._check_alive()
        with anyio.move_on_after(self._timeout_s):
            return await self._next_event()
        raise self._lose(f"the server at {self.url} said nothing for {self._timeout_s:.0f} s")

    async def greet(self, token: str, more: Iterable[str] = ()) -> None:
        """Say HELLO, ask for FEATURES and `more`, and take what the server offers."""
        features = [*FEATURES, *more]
        hello = pb.Hello(client=f"uringd/{__version__}", token=token, features=features)
        reply: pb.HelloReply = await self.request(FrameType.HELLO, hello)
        self.credit.replenish(reply.credit)
        self.instance_id = reply.instance_id.hex()
        self.server = reply.server
        self.chunk_bytes = reply.chunk_bytes_max
        self.alignment = reply.alignment
        self.small_bytes_max = reply.small_bytes_max
        self.features = frozenset(reply.features)

    async def aclose(self) -> None:
        """Close without a word, also when cancelled."""
        self._lost = self._lost or "the connection was closed"
        if self.places is not None:
            self.places.close()
        self._file_socket.close()
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    def take_ready(self) -> bool:
        """Do what the next frame says if it is here already; False when it is not.

        Raises as `next_event` does.
        """
        self._check_alive()
        return self._ready_event() is not None

    async def _next_event(self) -> Control:
        while True:
            event = self._ready_event()
            if event is not None:
                return event
            self._connection.receive_data(await self._receive())

    def _ready_event(self) -> Control | None:
        try:
            event = self._connection.next_event()
            if event is NEED_DATA:
                return None
            if isinstance(event, ConnectionClosed):
                raise self._lose(f"the server at {self.url} closed the connection")
            assert isinstance(event, Control)
            self._note(event)
        except RemoteProtocolError as exc:
            text = f"the server at {self.url} does not speak this protocol: {exc.text}"
            raise self._lose(text) from exc
        return event

    async def _receive(self) -> bytes:
        try:
            room = min(RECEIVE_BYTES_MAX, self._connection.bytes_acceptable)
            if self._came is not None:
                return await self._receive_descriptors(room, self._came)
            return await self._stream.receive(room)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            raise self._lose(f"the connection to {self.url} broke") from exc

    async def _receive_descriptors(self, room: int, came: list[int]) -> bytes:
        """Receive as the stream does, with descriptors, which no child of ours is to inherit."""
        raw = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # no SQL here
        while True:
            try:
                flags = stdlib_socket.MSG_CMSG_CLOEXEC | stdlib_socket.MSG_DONTWAIT
                data, ancillary, _, _ = raw.recvmsg(room, ANCILLARY_BYTES, flags)
            except BlockingIOError:
                await anyio.wait_readable(raw)
                continue
            came += descriptors_of(ancillary)
            return data

    def _note(self, event: Control) -> None:
        holder = self.holders.get(event.upload)
        if event.cookie:
            self._waiting.pop(event.cookie)(event)
        elif event.type is FrameType.ACK:
            ack: pb.Ack = event.message
            self.credit.replenish(ack.credit)
            if self.places is not None:
                self.places.release(ack.released)
            self.instance_id = ack.instance_id.hex()
            if holder is not None:
                holder.acknowledged(ack)
        elif event.type is FrameType.ERROR:
            error = refused(event.message)
            if not event.upload:
                self._lost = f"the server ended the session: {error.text}"
                raise error
            if holder is not None:
                holder.noticed(error)

    async def _explain_loss(self) -> None:
        """Look for the ERROR that the server sent before it closed: it is the better reason."""
        with anyio.move_on_after(EXPLANATION_S):
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
        return next((holder.upload_id for holder in self.holders.values()), "")


async def open_link(url: Url, token: str, timeout_s: float, more: Iterable[str] = ()) -> Link:
    """Connect and say HELLO, with `more` features asked for; the caller closes the link.

    Raises ConnectionLostError when nobody answers within 30 s, RefusedError (UNAUTHORIZED ...).
    """
    link = Link(await open_stream(url), url, timeout_s)
    try:
        with anyio.move_on_after(CONNECT_TIMEOUT_S) as scope:
            await link.greet(token, more)
        if scope.cancelled_caught:
            raise ConnectionLostError(f"{url} said nothing for {CONNECT_TIMEOUT_S:.0f} s")
    except BaseException:
        await link.aclose()
        raise
    return link


def refused(message: pb.Error) -> RefusedError:
    """Turn a server's ERROR into the exception."""
    return RefusedError(
        ErrorCode(message.code),
        message.text,
        message.offset if message.HasField("offset") else None,
        tuple((part.offset, part.length) for part in message.missing),
    )
