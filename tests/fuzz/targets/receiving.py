"""One stream of bytes, received by a Connection in several ways that must all come to the same.

The reference takes as much as the connection takes at once. The others are cut byte by byte, as
`bytes_wanted` says with payloads going past the codec, by chance, or are not cut at all but sent
again: whatever one side takes, the other side can send, and it arrives as it was.
"""

from __future__ import annotations

import pickle
import random as random_module
from enum import IntFlag
from functools import cache, partial
from typing import TYPE_CHECKING

from tests.fuzz.examples import example
from uringd.wire import (
    BUFFER_BYTES_MAX,
    NEED_DATA,
    REQUESTS_MAX,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    Event,
    FrameType,
    RemoteProtocolError,
    Role,
    State,
    error_message,
)
from uringd.wire.header import REQUEST_TYPES, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES_MAX = 1 << 20
SCRATCH = memoryview(bytearray(BUFFER_BYTES_MAX))


class Setting(IntFlag):
    """How a session stands when the stream begins."""

    NONE = 0
    OPEN = 1  # HELLO is answered; a client has asked one request of each type
    ANSWER = 2  # a server answers what it is asked; a client asks again what was answered
    CLOSING = 4  # SHUTDOWN is sent (with OPEN)
    END = 8  # the stream ends after these bytes
    CLIENT = 16  # which side receives, where the target leaves it open


def role_of(setting: Setting) -> Role:
    return Role.CLIENT if setting & Setting.CLIENT else Role.SERVER


def cross(frame: bytes, receiver: Connection) -> None:
    receiver.receive_data(frame)
    assert isinstance(receiver.next_event(), Control)


def request(client: Connection, frame_type: FrameType, upload: int | None = None) -> bytes:
    """Ask; the type is the cookie, so that an answer is easily hit upon."""
    if upload is None:
        upload = 1 if RULES[frame_type].upload else 0
    message = example(frame_type, from_server=False)
    return client.send_control(frame_type, message, cookie=frame_type, upload=upload)


@cache
def opened(role: Role, setting: Setting) -> tuple[bytes, bytes]:
    """Return a connection and its peer as Setting says, pickled: a copy is made for each input."""
    client = Connection(Role.CLIENT)
    server = Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES_MAX)
    if role is Role.CLIENT or setting & Setting.OPEN:
        cross(request(client, FrameType.HELLO), server)
    if setting & Setting.OPEN:
        reply = example(FrameType.HELLO, from_server=True)
        cross(server.send_control(FrameType.HELLO, reply, reply_to=FrameType.HELLO), client)
        if role is Role.CLIENT:
            for frame_type in sorted(REQUEST_TYPES - {FrameType.HELLO}):
                cross(request(client, frame_type), server)
        if setting & Setting.CLOSING:
            leave = example(FrameType.SHUTDOWN, from_server=True)
            cross(server.send_control(FrameType.SHUTDOWN, leave), client)
    ends = (client, server) if role is Role.CLIENT else (server, client)
    return pickle.dumps(ends[0]), pickle.dumps(ends[1])


class Receiving:
    """A connection that is fed; events, with the payloads of chunks, and how it came out."""

    def __init__(self, role: Role, setting: Setting) -> None:
        self.setting = setting
        self.connection: Connection = pickle.loads(opened(role, setting)[0])
        self.events: list[Event] = []
        self.payloads: list[bytearray] = []
        self.failure: RemoteProtocolError | None = None

    @property
    def outcome(self) -> tuple[object, ...]:
        """What must not depend on how the stream was cut."""
        connection = self.connection
        failure = self.failure and (self.failure.code, self.failure.text)
        last = (connection.state, connection.payload_remaining, connection.chunk_bytes_max)
        return (self.events, self.payloads, failure, last, len(connection._requests))

    def feed(self, stream: bytes, pieces: Iterator[int]) -> None:
        """Receive the stream in pieces, as many bytes as each says and the connection takes."""
        at = 0
        while at < len(stream) and not self.is_over():
            count = min(next(pieces), self.connection.bytes_acceptable)
            assert count > 0, "a connection that wants no bytes has an event"
            self.connection.receive_data(stream[at : at + count])
            at += count
            self.take()
        self.finish()

    def finish(self) -> None:
        """End the stream where the setting says so; look whether what is over stays over."""
        connection = self.connection
        if self.setting & Setting.END and not self.is_over():
            connection.receive_data(b"")
            self.take()
            assert self.is_over(), "a stream that ended is closed or cut off"
        assert len(connection._buffer) <= BUFFER_BYTES_MAX
        assert len(connection._requests) <= REQUESTS_MAX
        if self.is_over():
            self.stay_over()

    def is_over(self) -> bool:
        return self.failure is not None or self.connection.state is State.CLOSED

    def stay_over(self) -> None:
        """Bytes are thrown away, the failure stays, and a server can still say why."""
        connection, before = self.connection, len(self.connection._buffer)
        connection.receive_data(b"more")
        assert (connection.bytes_wanted, len(connection._buffer)) == (0, before)
        if self.failure is None:
            assert isinstance(connection.next_event(), ConnectionClosed)
            return
        try:
            connection.next_event()
        except RemoteProtocolError as exc:
            assert exc is self.failure
        else:
            raise AssertionError("a failure was forgotten")
        if connection.role is Role.SERVER:
            message = error_message(self.failure.code, self.failure.text)
            assert connection.send_control(FrameType.ERROR, message)
            assert connection.state is State.CLOSED

    def take(self) -> None:
        """Take all events and payload bytes there are."""
        connection = self.connection
        while True:
            count = connection.read_payload_into(SCRATCH)
            if count:
                self.payloads[-1] += SCRATCH[:count]
            if connection.payload_remaining and not connection._at_end:
                return
            try:
                event = connection.next_event()
            except RemoteProtocolError as exc:
                self.failure = exc
                return
            if event is NEED_DATA:
                assert connection.bytes_wanted > 0, "bytes are wanted where there is no event"
                return
            if isinstance(event, ConnectionClosed):
                return
            self.events.append(event)
            if isinstance(event, Data):
                self.payloads.append(bytearray())
                self.on_chunk(event)
            else:
                self.on_control(event)

    def on_chunk(self, event: Data) -> None:
        """Do nothing about a chunk's header."""

    def on_control(self, event: Control) -> bytes:
        """Answer, or ask again, where the setting says so; return what was sent."""
        connection = self.connection
        if not self.setting & Setting.ANSWER:
            return b""
        if connection.role is Role.SERVER:
            if not event.cookie:
                return b""  # a notice
            message = example(event.type, from_server=True)
            return connection.send_control(event.type, message, reply_to=event.cookie)
        is_open = connection.state in (State.OPEN, State.CLOSING)
        if not event.cookie or not is_open or event.cookie == FrameType.HELLO:
            return b""
        return request(connection, FrameType(event.cookie), event.upload)


class Direct(Receiving):
    """Receives what is wanted and no more; payloads go past the codec."""

    def feed(self, stream: bytes, pieces: Iterator[int]) -> None:
        del pieces
        at = 0
        connection = self.connection
        while at < len(stream) and not self.is_over():
            if connection.payload_remaining:
                part = stream[at : at + connection.payload_remaining]
                connection.payload_received(len(part))
                self.payloads[-1] += part
            else:
                part = stream[at : at + connection.bytes_wanted]
                assert part, "bytes are wanted where there is no event"
                connection.receive_data(part)
            at += len(part)
            self.take()
        self.finish()


class Resending(Receiving):
    """Lets the peer send again what arrives, to a connection that stands as this one did."""

    def __init__(self, role: Role, setting: Setting) -> None:
        super().__init__(role, setting)
        self.peer: Connection = pickle.loads(opened(role, setting)[1])
        self.echo = Receiving(role, setting)

    def on_chunk(self, event: Data) -> None:
        echo = self.echo.connection
        echo.receive_data(
            self.peer.send_data_header(
                event.upload, event.offset, event.length, event.crc32c, more=event.more
            )
        )
        assert echo.next_event() == event, "what was received can be sent"
        echo.payload_received(event.length)

    def on_control(self, event: Control) -> bytes:
        from_server = self.peer.role is Role.SERVER
        frame = self.peer.send_control(
            event.type,
            event.message,
            cookie=0 if from_server else event.cookie,
            reply_to=event.cookie if from_server else 0,
            upload=event.upload,
        )
        self.echo.connection.receive_data(frame)
        arrived = self.echo.connection.next_event()
        assert arrived == event, "what was received can be sent"
        answer = super().on_control(event)
        assert self.echo.on_control(event) == answer
        if answer:
            cross(answer, self.peer)
        return answer


def whole() -> Iterator[int]:
    while True:
        yield BUFFER_BYTES_MAX


def single_bytes() -> Iterator[int]:
    while True:
        yield 1


def by_chance(seed: int) -> Iterator[int]:
    random = random_module.Random(seed)
    while True:
        yield random.choice((1, 7, 60, 63, 64, 65, 200, 1000))


Way = tuple[type[Receiving], "Callable[[], Iterator[int]]"]
WAYS: tuple[Way, ...] = ((Receiving, single_bytes), (Direct, whole), (Resending, whole))
"""Beside the whole stream at once; a cut that is none of these numbers is the seed of chance."""


def check(role: Role, setting: Setting, cut: int, stream: bytes) -> None:
    """Receive a stream whole and cut in one other way; the outcome must be the same."""
    kind, pieces = WAYS[cut] if cut < len(WAYS) else (Receiving, partial(by_chance, cut))
    reference = Receiving(role, setting)
    reference.feed(stream, whole())
    other = kind(role, setting)
    other.feed(stream, pieces())
    assert other.outcome == reference.outcome, "the outcome depends on how the stream is cut"
