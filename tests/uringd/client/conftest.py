"""A real server behind a wire that breaks: frames are lost, cut and damaged as a test says."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import pytest
import trio

from uringd.ancillary import ANCILLARY_BYTES, ancillary_for, descriptors_of
from uringd.listeners import listen
from uringd.urls import UnixUrl
from uringd.wire import (
    HEADER_BYTES,
    ErrorCode,
    FrameType,
    Header,
    crc32c,
    decode_header,
    encode_header,
    error_message,
    serialize,
)

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, InAsyncio

T = TypeVar("T")


class CutError(Exception):
    """Ends a connection, after these bytes were passed on."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__(last)
        self.last = last


@dataclass(frozen=True)
class Frame:
    """A frame on its way."""

    connection: int  # counted from 0
    from_client: bool
    header: Header
    payload: bytes = field(repr=False)
    count: int  # of the same type and direction before it, over all connections

    @property
    def whole(self) -> bytes:
        return encode_header(self.header) + self.payload

    def is_a(self, frame_type: FrameType, count: int = 0, *, reply: bool = False) -> bool:
        """Whether it is that frame of its kind, counted from 0."""
        mine = (self.header.type, self.from_client, self.count)
        return mine == (frame_type, not reply, count)

    def cut(self, length: int = 0) -> NoReturn:
        """Pass only so many of its bytes on, and end the connection."""
        raise CutError(self.whole[:length])

    def with_message(self, message: Any) -> bytes:
        """The same frame with another message."""
        payload = serialize(self.header.type, message, from_server=not self.from_client)
        header = self.header._replace(payload_length=len(payload), payload_crc32c=crc32c(payload))
        return encode_header(header) + payload

    def refuse(self, code: ErrorCode) -> NoReturn:
        """Pass an ERROR on in place of this reply, and end the connection."""
        payload = serialize(FrameType.ERROR, error_message(code, "no"), from_server=True)
        cookie, upload = self.header.cookie, self.header.upload
        flags = type(self.header.flags)(0)
        header = Header(FrameType.ERROR, flags, cookie, upload, 0, len(payload), crc32c(payload))
        raise CutError(encode_header(header) + payload)


Rule = Callable[[Frame], bytes]
"""What is passed on of a frame, if it is not cut."""


@dataclass
class Wire:
    """Frames between clients and a server, each as `rule` lets it pass."""

    url: UnixUrl
    rule: Rule
    held: Callable[[Frame], bool] = lambda _: False
    seen: list[Frame] = field(default_factory=list)
    connections: int = 0
    descriptors: bool = False
    """Whether descriptors are passed on; else they are lost on the way."""

    def sent(self, frame_type: FrameType, *, reply: bool = False) -> list[Frame]:
        return [
            frame
            for frame in self.seen
            if frame.header.type is frame_type and frame.from_client is not reply
        ]

    async def serve(self, server: UnixUrl, client: trio.SocketStream) -> None:
        number, self.connections = self.connections, self.connections + 1
        async with (
            client,
            await trio.open_unix_socket(server.path) as upstream,
            trio.open_nursery() as nursery,
        ):
            for streams in [(client, upstream), (upstream, client)]:
                nursery.start_soon(self._pass_on, number, *streams, streams[0] is client, nursery)

    async def _pass_on(
        self,
        number: int,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        from_client: bool,  # noqa: FBT001  # a task has no keywords
        nursery: trio.Nursery,
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
            try:
                while True:
                    rights: list[int] = []
                    header = decode_header(await self._exactly(source, HEADER_BYTES, rights))
                    payload = await self._exactly(source, header.payload_length, rights)
                    frame_type = header.type
                    count = len(self.sent(frame_type, reply=not from_client))
                    frame = Frame(number, from_client, header, payload, count)
                    kept = b"" if frame_type is FrameType.DATA else payload
                    self.seen.append(Frame(number, from_client, header, kept, count))
                    while self.held(frame):
                        await trio.lowlevel.checkpoint()
                    try:
                        await self._send(sink, self.rule(frame), rights)
                    finally:
                        for descriptor in rights:
                            os.close(descriptor)
            except CutError as cut:
                await sink.send_all(cut.last)
        nursery.cancel_scope.cancel()

    async def _send(self, sink: trio.SocketStream, frame: bytes, rights: list[int]) -> None:
        if rights and self.descriptors:
            sent = await sink.socket.sendmsg([frame], ancillary_for(rights[0]))
            frame = frame[sent:]
        await sink.send_all(frame)

    @staticmethod
    async def _exactly(stream: trio.SocketStream, count: int, rights: list[int]) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece, ancillary, _, _ = await stream.socket.recvmsg(
                    count - len(data), ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except OSError as exc:
                raise trio.BrokenResourceError from exc
            rights += descriptors_of(ancillary)
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


class OpenWire(Protocol):
    async def __call__(
        self, daemon: Daemon, rule: Rule | None = None, *, descriptors: bool = False
    ) -> Wire: ...


class RunClient(Protocol):
    async def __call__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T: ...


@pytest.fixture
async def open_wire(tmp_path: Path, nursery: trio.Nursery) -> OpenWire:
    """Put a wire between clients and a server; it ends with the test."""

    async def open_one(
        daemon: Daemon, rule: Rule | None = None, *, descriptors: bool = False
    ) -> Wire:
        listener = await listen(UnixUrl(str(tmp_path / "wire")))
        assert isinstance(listener.url, UnixUrl)
        wire = Wire(listener.url, rule or (lambda frame: frame.whole), descriptors=descriptors)

        async def handle(stream: trio.SocketStream) -> None:
            await wire.serve(daemon.unix, stream)

        nursery.start_soon(trio.serve_listeners, handle, [listener.socket])
        return wire

    return open_one


@pytest.fixture(params=["trio", "asyncio"])
def run_client(request: pytest.FixtureRequest, in_asyncio: InAsyncio) -> RunClient:
    """Run a coroutine function as an application of either kind does."""

    async def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await main() if request.param == "trio" else await in_asyncio(main)

    return run
