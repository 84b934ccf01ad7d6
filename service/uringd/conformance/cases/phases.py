"""Phases and Frames: what may be sent when, and by whom."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, SkippedError
from uringd.conformance.frames import raw
from uringd.conformance.peer import described
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Control, ErrorCode, Flag, FrameType

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("PH", "Phases")
frames = FRAMES = Section("FR", "Frames")

HANDSHAKE_S = 10.0
"""When a server should end a session without HELLO, PROTOCOL.md, "Phases"."""

GRACE_S = 5.0
"""What it may take on top of that."""

ACK = pb.Ack(instance_id=bytes(16), credit=1).SerializeToString()
PAGES = pb.Pages(page_crc32c=[0]).SerializeToString()
ERROR = pb.Error(code=pb.ERROR_CODE_INTERNAL).SerializeToString()


async def _first_frame(target: Target, frame: bytes) -> None:
    async with target.connection() as peer:
        await peer.send(frame)
        await peer.ended(ErrorCode.OUT_OF_ORDER)


async def _later_frame(target: Target, frame: bytes, code: ErrorCode) -> None:
    async with target.session() as peer:
        await peer.send(frame)
        await peer.ended(code)


@case(1, ErrorCode.OUT_OF_ORDER, vectors=("ping-before-hello",))
async def ping_first(target: Target) -> None:
    """A request before HELLO is OUT_OF_ORDER and ends the session."""
    await _first_frame(target, raw(FrameType.PING, cookie=1))


@case(2, ErrorCode.OUT_OF_ORDER, vectors=("data-before-hello",))
async def data_first(target: Target) -> None:
    """DATA before HELLO is OUT_OF_ORDER and ends the session."""
    await _first_frame(target, raw(FrameType.DATA, b"hello", upload=1))


@case(3, ErrorCode.OUT_OF_ORDER, vectors=("pages-before-hello",))
async def pages_first(target: Target) -> None:
    """PAGES before HELLO is OUT_OF_ORDER and ends the session."""
    await _first_frame(target, raw(FrameType.PAGES, PAGES, upload=1))


@case(4, ErrorCode.OUT_OF_ORDER)
async def create_first(target: Target) -> None:
    """CREATE before HELLO is OUT_OF_ORDER and ends the session."""
    message = pb.Create(name=target.name()).SerializeToString()
    await _first_frame(target, raw(FrameType.CREATE, message, cookie=1))


@case(5, ErrorCode.OUT_OF_ORDER, vectors=("ping-before-the-reply",))
async def ping_too_early(target: Target) -> None:
    """A request behind HELLO, before its reply, is OUT_OF_ORDER or comes late enough to be
    answered; HELLO is answered first.
    """
    async with target.connection() as peer:
        hello = pb.Hello(client="hasty", token=target.token)
        first, greeting = peer.frame(FrameType.HELLO, hello)
        second, ping = peer.frame(FrameType.PING, pb.Ping())
        await peer.send(first + second)
        event = await peer.receive()
        if event is None or event.cookie != greeting or event.type is not FrameType.HELLO:
            _allow_end(event)
            return
        event = await peer.receive()
        if event is None or event.cookie != ping:
            _allow_end(event)


@case(6, ErrorCode.OUT_OF_ORDER)
async def nothing_after_the_end(target: Target) -> None:
    """Nothing follows the ERROR that ends a session: a frame behind the bad one has no answer."""
    async with target.session() as peer:
        bad = raw(FrameType.HELLO, cookie=1 << 32)
        await peer.send(bad + raw(FrameType.PING, cookie=1 << 33))
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@case(7, ErrorCode.TIMEOUT)
async def no_hello(target: Target) -> None:
    """A session that does not send HELLO within 10 seconds is ended with TIMEOUT."""
    if target.timeout_s < HANDSHAKE_S + GRACE_S:
        raise SkippedError(f"it takes 10 s: give --timeout {HANDSHAKE_S + GRACE_S:.0f}")
    async with target.connection() as peer:
        await peer.ended(ErrorCode.TIMEOUT)


@case(8, ErrorCode.TIMEOUT)
async def idle(target: Target) -> None:
    """A session that sends nothing for as long as HELLO's reply allows is ended with TIMEOUT."""
    allowed_s = target.facts.idle_timeout_ms / 1000
    if not 0 < allowed_s < target.timeout_s - GRACE_S:
        raise SkippedError(f"this server allows {allowed_s:.0f} s: give a longer --timeout")
    async with target.session() as peer:
        began = time.monotonic()
        await peer.ended(ErrorCode.TIMEOUT)
        took_s = time.monotonic() - began
        if took_s < allowed_s / 2:
            raise FailedError(f"{allowed_s} s of patience", f"the end after {took_s:.1f} s")


def _allow_end(event: Control | None) -> None:
    """The one other thing that may come is the session's end."""
    if event is None or event.message.code != ErrorCode.OUT_OF_ORDER or event.upload:
        raise FailedError("a reply or ERROR OUT_OF_ORDER", described(event) if event else "the end")


for _number, _name in ((1, 0), (2, 18), (3, 255)):

    async def _unknown(target: Target, number: int = _name) -> None:
        await _later_frame(target, raw(number, cookie=1 << 32), ErrorCode.UNSUPPORTED)

    frames.add(
        _number,
        f"A frame of type {_name}, which there is not, is UNSUPPORTED and ends the session.",
        _unknown,
        codes=(ErrorCode.UNSUPPORTED,),
        vectors=(f"type-{_name}",) if _name != 255 else (),
    )


@frames(4, ErrorCode.OUT_OF_ORDER, vectors=("client-sends-ack",))
async def client_sends_ack(target: Target) -> None:
    """ACK from a client is OUT_OF_ORDER and ends the session."""
    await _later_frame(target, raw(FrameType.ACK, ACK, upload=1), ErrorCode.OUT_OF_ORDER)


@frames(5, ErrorCode.OUT_OF_ORDER, vectors=("client-sends-error",))
async def client_sends_error(target: Target) -> None:
    """ERROR from a client is OUT_OF_ORDER and ends the session."""
    await _later_frame(target, raw(FrameType.ERROR, ERROR), ErrorCode.OUT_OF_ORDER)


@frames(6, ErrorCode.OUT_OF_ORDER)
async def client_sends_shutdown(target: Target) -> None:
    """SHUTDOWN from a client is OUT_OF_ORDER and ends the session."""
    await _later_frame(target, raw(FrameType.SHUTDOWN), ErrorCode.OUT_OF_ORDER)


@frames(7, ErrorCode.OUT_OF_ORDER, vectors=("client-sends-a-reply",))
async def client_sends_a_reply(target: Target) -> None:
    """A reply from a client is OUT_OF_ORDER and ends the session."""
    frame = raw(FrameType.PING, flags=Flag.REPLY, cookie=1 << 32)
    await _later_frame(target, frame, ErrorCode.OUT_OF_ORDER)


@frames(8)
async def one_reply_each(target: Target) -> None:
    """A request asks for exactly one reply, and a notice for none."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, b"hello")
        await peer.ask(FrameType.LIST, pb.List(prefix=target.prefix))
        await peer.ask(FrameType.SYNC, pb.Sync(), upload)
        await peer.ask(FrameType.ABORT, pb.Abort(), upload)
        await _quiet(peer)


async def _quiet(peer: Peer) -> None:
    """Nothing but replies and acknowledgements; a second reply is caught by whoever reads it."""
    await peer.all_credit()
    await peer.no_notice()
