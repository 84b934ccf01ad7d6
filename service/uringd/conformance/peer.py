"""One connection to the server under test. Every wait is bounded, and every frame is judged."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from uringd.conformance.case import FailedError, RefusalError, SilentError, holds, same
from uringd.conformance.frames import raw
from uringd.conformance.watch import Watch, code_of
from uringd.urls import TcpUrl
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    DESCRIPTORS_MAX,
    HEADER_BYTES,
    Control,
    ErrorCode,
    Flag,
    FrameType,
    RemoteProtocolError,
    crc32c,
    decode_header,
    parse,
)
from uringd.wire.messages import FROM_SERVER

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from uringd.urls import Url

RECEIVE_BYTES_MAX = 65_536
"""Asked of the socket at a time."""


class Peer:
    """A client that says what a case wants it to say. Its answers are FailedError or what came.

    `timeout_s` bounds each single wait for the server.
    """

    def __init__(self, stream: anyio.abc.SocketStream, timeout_s: float) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._cookies = itertools.count(1)
        self._answers: dict[int, Control] = {}
        self.watch = Watch()
        self.notices: deque[Control] = deque()
        self.acks: list[Control] = []
        self.shutdowns: list[pb.Shutdown] = []
        self.features: frozenset[str] = frozenset()
        self.instance_id = b""
        self.unfinished: set[str] = set()
        self.descriptors: list[int] = []
        """What came with frames, over a Unix socket; closed with the connection."""

    # What is sent.

    async def send(self, data: bytes, descriptor: int = -1) -> None:
        """Send bytes, over a Unix socket with a descriptor if one is given.

        A server that has closed is no error here: its last words are to be read.
        """
        with (
            anyio.move_on_after(self._timeout_s) as scope,
            contextlib.suppress(anyio.BrokenResourceError, OSError),
        ):
            if descriptor >= 0 and isinstance(self._stream, anyio.abc.UNIXSocketStream):
                await self._stream.send_fds(data, [descriptor])
            else:
                await self._stream.send(data)
        if scope.cancelled_caught:
            raise FailedError(
                "the server to go on reading", f"no byte taken in {self._timeout_s} s"
            )

    async def send_eof(self) -> None:
        """Close the sending direction."""
        with contextlib.suppress(anyio.BrokenResourceError, OSError):
            await self._stream.send_eof()

    async def cut(self) -> None:
        """Close the connection without a word."""
        while self.descriptors:
            os.close(self.descriptors.pop())
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    def frame(
        self, frame_type: FrameType, message: Message | bytes, upload: int = 0, cookie: int = 0
    ) -> tuple[bytes, int]:
        """Make a request: its bytes and its cookie, which `answer` waits for."""
        cookie = cookie or next(self._cookies)
        self.watch.requests.begin(cookie, frame_type, upload)
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        return raw(frame_type, payload, cookie=cookie, upload=upload), cookie

    def chunk(
        self,
        upload: int,
        offset: int,
        payload: bytes,
        crc: int | None = None,
        *,
        more: bool = False,
    ) -> bytes:
        """Make a DATA frame; it uses up one credit, if there is any or not."""
        self.watch.chunks_sent += 1
        flags = Flag.MORE if more else Flag.NONE
        return raw(
            FrameType.DATA, payload, flags=flags, upload=upload, offset=offset, payload_crc=crc
        )

    async def data(self, upload: int, offset: int, payload: bytes, crc: int | None = None) -> None:
        """Send a chunk, as soon as there is credit for it."""
        await self.credit_of(1)
        await self.send(self.chunk(upload, offset, payload, crc))

    # What comes.

    async def receive(self) -> Control | None:
        """Wait for a frame; None is the end of the stream."""
        with anyio.move_on_after(self._timeout_s):
            try:
                return await self._receive()
            except RemoteProtocolError as exc:
                raise FailedError("a frame of this protocol", exc.text) from exc
        raise SilentError("a frame", f"nothing within {self._timeout_s} s")

    async def answer(self, cookie: int) -> Control:
        """Wait for what answers a request: its reply, or the ERROR in its place."""
        while cookie not in self._answers:
            event = await self.receive()
            if event is None:
                raise FailedError("an answer", "the end of the stream")
            if self.watch.over:
                raise FailedError("an answer", described(event))
        return self._answers.pop(cookie)

    async def ask(self, frame_type: FrameType, message: Message | bytes, upload: int = 0) -> Any:
        """Send a request and return its reply's message."""
        frame, cookie = self.frame(frame_type, message, upload)
        await self.send(frame)
        return await self.reply(cookie)

    async def reply(self, cookie: int) -> Any:
        """Wait for the reply to a request that was sent; fail if it is refused."""
        event = await self.answer(cookie)
        if event.type is FrameType.ERROR:
            raise RefusalError(code_of(event.message), described(event))
        return event.message

    async def refusal(
        self, frame_type: FrameType, message: Message | bytes, *codes: ErrorCode, upload: int = 0
    ) -> pb.Error:
        """Send a request and return the ERROR that answers it, which is to have one of `codes`."""
        frame, cookie = self.frame(frame_type, message, upload)
        await self.send(frame)
        return await self.refused(cookie, *codes)

    async def refused(self, cookie: int, *codes: ErrorCode) -> pb.Error:
        """Wait for the ERROR that answers a request that was sent."""
        return refused(await self.answer(cookie), *codes)

    async def notice(self, code: ErrorCode, upload: int, offset: int | None = None) -> pb.Error:
        """Wait for an ERROR about an upload, or about its chunk at `offset`."""
        expected = f"ERROR {code.name} about upload {upload}"
        while not self.notices:
            event = await self.receive()
            if event is None or self.watch.over:
                raise FailedError(expected, "the end" if event is None else described(event))
        event = self.notices.popleft()
        message: pb.Error = event.message
        if (code_of(message), event.upload) != (code, upload):
            raise FailedError(expected, described(event))
        same("the chunk's offset", offset, message.offset if message.HasField("offset") else None)
        return message

    async def no_notice(self) -> None:
        """Fail if the server has something to say about an upload: a PING's reply comes after."""
        await self.alive()
        if self.notices:
            raise FailedError("no ERROR about an upload", described(self.notices[0]))

    async def alive(self) -> None:
        """Fail unless the session goes on."""
        await self.ask(FrameType.PING, pb.Ping())

    async def ended(self, *codes: ErrorCode) -> pb.Error:
        """Wait for the ERROR that ends the session, and for the end of the stream behind it."""
        wanted = " or ".join(code.name for code in codes)
        while not self.watch.over:
            event = await self.receive()
            if event is None:
                raise FailedError(f"ERROR {wanted} that ends the session", "the end without it")
        assert event is not None
        message: pb.Error = event.message
        if code_of(message) not in codes:
            raise FailedError(f"ERROR {wanted} that ends the session", described(event))
        await self.closed()
        return message

    async def closed(self) -> None:
        """Fail unless the stream ends next; acknowledgements may come before."""
        event = await self.receive()
        while event is not None and event.type is FrameType.ACK:
            event = await self.receive()
        holds(event is None, "the end of the stream", event and described(event))

    async def credit_of(self, count: int) -> None:
        """Wait until there is credit for so many chunks."""
        while self.watch.credit < count:
            event = await self.receive()
            if event is None or self.watch.over:
                raise FailedError("credit", "the end" if event is None else described(event))

    async def all_credit(self) -> None:
        """Wait until every credit has come back."""
        await self.credit_of(self.watch.granted)

    # Whole requests.

    async def hello(self, *features: str, token: str = "") -> pb.HelloReply:
        """Begin the session."""
        message = pb.Hello(client="uringd conformance", features=features, token=token)
        reply: pb.HelloReply = await self.ask(FrameType.HELLO, message)
        self.watch.granted = reply.credit
        self.features = frozenset(reply.features)
        self.instance_id = reply.instance_id
        return reply

    async def create(self, name: str, **options: Any) -> pb.CreateReply:
        """Begin an upload."""
        message = pb.Create(name=name, **options)
        reply: pb.CreateReply = await self.ask(FrameType.CREATE, message)
        if "resume" in self.features:
            self.unfinished.add(reply.upload_id)
        return reply

    async def resume(self, upload_id: str, epoch: int = 0, *, join: bool = False) -> pb.ResumeReply:
        """Take an upload over, or become a lane of it."""
        message = pb.Resume(upload_id=upload_id, epoch=epoch, join=join)
        reply: pb.ResumeReply = await self.ask(FrameType.RESUME, message)
        return reply

    async def sync(self, upload: int) -> int:
        """Make durable; the durable position."""
        reply: pb.SyncReply = await self.ask(FrameType.SYNC, pb.Sync(), upload)
        return reply.durable

    async def commit(self, upload: int, size: int, **options: Any) -> pb.Receipt:
        """Publish."""
        message = pb.Commit(size=size, **options)
        receipt: pb.Receipt = await self.ask(FrameType.COMMIT, message, upload)
        self.unfinished.discard(receipt.upload_id)
        return receipt

    async def incomplete(self, upload: int, size: int) -> list[tuple[int, int]]:
        """COMMIT an upload with holes; what is missing."""
        message = pb.Commit(size=size)
        error = await self.refusal(FrameType.COMMIT, message, ErrorCode.INCOMPLETE, upload=upload)
        return [(part.offset, part.length) for part in error.missing]

    async def abort(self, upload: int = 0, upload_id: str = "") -> None:
        """Throw an upload away."""
        await self.ask(FrameType.ABORT, pb.Abort(upload_id=upload_id), upload)

    async def info(self, upload_id: str) -> pb.UploadInfo:
        """Ask about an upload."""
        reply: pb.StatReply = await self.ask(FrameType.STAT, pb.Stat(upload_id=upload_id))
        same("the kind of StatReply", "upload", reply.WhichOneof("subject"))
        return reply.upload

    # Inside.

    async def _receive(self) -> Control | None:
        taken = await self._take(HEADER_BYTES)
        if taken is None:
            return None
        header = decode_header(taken)
        if header.type not in FROM_SERVER or header.is_request:
            raise FailedError("a frame that servers send", header.type.name)
        payload = await self._take(header.payload_length) if header.payload_length else b""
        if payload is None or crc32c(payload) != header.payload_crc32c:
            raise FailedError("a payload that agrees with its checksum", header.type.name)
        message = parse(header.type, payload, from_server=True)
        event = Control(header.type, header.is_reply, header.cookie, header.upload, message)
        self.watch.judge(event)
        self._keep(event)
        return event

    def _keep(self, event: Control) -> None:
        if event.cookie:
            self._answers[event.cookie] = event
        elif event.type is FrameType.ACK:
            self.acks.append(event)
        elif event.type is FrameType.SHUTDOWN:
            self.shutdowns.append(event.message)
        elif event.upload:
            self.notices.append(event)

    async def _receive_some(self) -> bytes:
        if not isinstance(self._stream, anyio.abc.UNIXSocketStream):
            return await self._stream.receive(RECEIVE_BYTES_MAX)
        data, descriptors = await self._stream.receive_fds(RECEIVE_BYTES_MAX, DESCRIPTORS_MAX)
        for fd in descriptors:
            os.set_inheritable(fd, False)
        self.descriptors += descriptors
        return data

    async def _take(self, count: int) -> bytes | None:
        """Take bytes; None where the stream ends before the first of them."""
        while len(self._buffer) < count:
            try:
                self._buffer += await self._receive_some()
            except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                if self._buffer:
                    raise FailedError("whole frames", "the end within one") from None
                return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def described(event: Control) -> str:
    """Say in a few words what came."""
    if event.type is not FrameType.ERROR:
        return event.type.name
    about = f"the request {event.cookie}" if event.cookie else f"the upload {event.upload}"
    about = about if event.cookie or event.upload else "the session, which ends it"
    return f"ERROR {code_of(event.message).name} about {about}: {event.message.text}"


def refused(event: Control, *codes: ErrorCode) -> pb.Error:
    """Return the ERROR that answers a request; fail if it is none, or has another code."""
    wanted = " or ".join(code.name for code in codes)
    if event.type is not FrameType.ERROR or code_of(event.message) not in codes:
        raise FailedError(f"ERROR {wanted} instead of a reply", described(event))
    message: pb.Error = event.message
    return message


async def open_stream(url: Url) -> anyio.abc.SocketStream:
    """Connect. Raises OSError."""
    if isinstance(url, TcpUrl):
        return await anyio.connect_tcp(url.host, url.port)
    return await anyio.connect_unix(url.path)
