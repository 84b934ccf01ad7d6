"""ERROR, Limits, Versioning: last words, the greatest frames, and what a newer client may send."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, holds, same
from uringd.conformance.frames import raw
from uringd.conformance.peer import refused
from uringd.conformance.watch import code_of
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    CONTROL_BYTES_MAX,
    OFFSET_MAX,
    TEXT_BYTES_MAX,
    ErrorCode,
    FrameType,
    is_retryable,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("ER", "ERROR")
codes = CODES = Section("EC", "Errors")
limits = LIMITS = Section("LM", "Limits")
versions = VERSIONS = Section("VE", "Versioning")

UNREAD_BYTES = 1 << 20
"""Sent behind a bad frame: more than the sockets of the two sides hold by themselves."""

UNKNOWN = b"\x78\x01" + b"\x82\x01\x03new" + b"\x8d\x01\1\2\3\4"
"""Fields 15, 16 and 17: a number, a string, and four bytes."""


@case(1, ErrorCode.NOT_FOUND)
async def about_a_request(target: Target) -> None:
    """An ERROR about a request has its cookie, and is all the answer there is."""
    async with target.session() as peer:
        frame, cookie = peer.frame(FrameType.STAT, pb.Stat(name=target.name()))
        await peer.send(frame)
        event = await peer.answer(cookie)
        refused(event, ErrorCode.NOT_FOUND)
        same("the handle", 0, event.upload)
        await peer.no_notice()


@case(2, ErrorCode.MISALIGNED, ErrorCode.NOT_FOUND)
async def about_a_chunk(target: Target) -> None:
    """An ERROR about a chunk has the upload's handle, no cookie, and the chunk's offset."""
    offset = 3 * target.alignment
    async with target.session() as peer:
        await peer.data(1 << 50, offset, target.blocks(1))
        await peer.notice(ErrorCode.NOT_FOUND, 1 << 50, offset)
        await peer.alive()


@case(3, ErrorCode.BAD_FRAME)
async def about_the_session(target: Target) -> None:
    """An ERROR about the session has neither cookie nor handle, and the stream ends behind it."""
    async with target.session() as peer:
        await peer.send(bytes(64))
        await peer.ended(ErrorCode.BAD_FRAME)


@case(4, ErrorCode.BAD_FRAME)
async def last_words_are_heard(target: Target) -> None:
    """The ERROR that ends a session arrives also where the client goes on sending: the server
    reads and throws away what still comes.
    """
    async with target.session() as peer:
        await peer.send(bytes(64) + bytes(UNREAD_BYTES))
        await peer.ended(ErrorCode.BAD_FRAME)


@case(5, ErrorCode.BAD_NAME)
async def text_for_people(target: Target) -> None:
    """`text` says in one sentence what is wrong, in at most 1,024 bytes, however long the name."""
    async with target.session() as peer:
        message = pb.Create(name="../" * 1000)
        error = await peer.refusal(FrameType.CREATE, message, ErrorCode.BAD_NAME)
        length = len(error.text.encode())
        holds(1 <= length <= TEXT_BYTES_MAX, "1 to 1,024 bytes of text", length)


@codes(1, ErrorCode.BAD_NAME, ErrorCode.BAD_CHECKSUM)
async def retryable(target: Target) -> None:
    """`retryable` is as the table has it for the code: not for BAD_NAME, for BAD_CHECKSUM."""
    async with target.session() as peer:
        message = pb.Create(name="..")
        error = await peer.refusal(FrameType.CREATE, message, ErrorCode.BAD_NAME)
        same("retryable", is_retryable(ErrorCode.BAD_NAME), error.retryable)
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, b"hello", crc=1)
        error = await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)
        same("retryable", is_retryable(ErrorCode.BAD_CHECKSUM), error.retryable)


@codes(2, ErrorCode.INTERNAL, ErrorCode.IO)
async def no_fault_of_the_server(target: Target) -> None:
    """Nothing that a client sends is answered with INTERNAL or IO: these are the server's."""
    async with target.session() as peer:
        upload = (await peer.create(target.name(), size=5)).upload
        await peer.data(1 << 50, 0, b"x")
        await peer.data(upload, OFFSET_MAX - 5, b"x")
        await peer.data(upload, 0, b"hello", crc=1)
        strange: list[tuple[FrameType, Message | bytes, int]] = [
            (FrameType.CREATE, pb.Create(name="\0"), 0),
            (FrameType.CREATE, pb.Create(name="n", size=OFFSET_MAX), 0),
            (FrameType.STAT, pb.Stat(name="a/" * 500 + "b"), 0),
            (FrameType.LIST, pb.List(prefix="\0", after="\U0010ffff", limit=1), 0),
            (FrameType.COMMIT, pb.Commit(size=OFFSET_MAX), upload),
            (FrameType.SYNC, b"", (1 << 64) - 1),
        ]
        for frame_type, message, handle in strange:
            await _no_fault(peer, frame_type, message, handle)
        for event in peer.notices:
            _is_no_fault(event.message)


async def _no_fault(
    peer: Peer, frame_type: FrameType, message: Message | bytes, upload: int
) -> None:
    frame, cookie = peer.frame(frame_type, message, upload)
    await peer.send(frame)
    event = await peer.answer(cookie)
    if event.type is FrameType.ERROR:
        _is_no_fault(event.message)


def _is_no_fault(error: pb.Error) -> None:
    if code_of(error) in {ErrorCode.INTERNAL, ErrorCode.IO}:
        raise FailedError("an ERROR that says what the client did", code_of(error).name)


@limits(1)
async def the_longest_control_payload(target: Target) -> None:
    """A control payload may have 65,536 bytes."""
    async with target.session() as peer:
        size = CONTROL_BYTES_MAX - 5  # besides a tag of two bytes and a length of three
        payload = b"\x82\x01" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
        payload += bytes(size)
        same("bytes", CONTROL_BYTES_MAX, len(payload))
        await peer.ask(FrameType.PING, payload)


@limits(2, ErrorCode.TOO_LARGE)
async def one_byte_more(target: Target) -> None:
    """A control payload of 65,537 bytes is TOO_LARGE and ends the session."""
    async with target.session() as peer:
        await peer.send(raw(FrameType.PING, bytes(CONTROL_BYTES_MAX + 1), cookie=1 << 40))
        await peer.ended(ErrorCode.TOO_LARGE)


@limits(3)
async def an_empty_payload(target: Target) -> None:
    """A message without any field is a payload of no bytes."""
    async with target.session() as peer:
        await peer.ask(FrameType.PING, b"")
        await peer.ask(FrameType.LIST, b"")


@limits(4)
async def the_largest_size(target: Target) -> None:
    """COMMIT may say a size of 2^63-1: it is a number like any other, and INCOMPLETE."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        same("missing", [(0, OFFSET_MAX)], await peer.incomplete(upload, OFFSET_MAX))


async def _version_is_refused(target: Target, version: int, first: bool) -> None:  # noqa: FBT001
    async with target.connection() if first else target.session() as peer:
        await peer.send(raw(FrameType.HELLO, version=version, cookie=1))
        await peer.ended(ErrorCode.UNSUPPORTED_VERSION)


for _number, _version, _first in ((1, 0, True), (2, 2, True), (3, 255, True), (4, 2, False)):
    versions.add(
        _number,
        f"A {'first' if _first else 'later'} header of version {_version} is answered in version "
        "1's layout with UNSUPPORTED_VERSION, and the session ends.",
        partial(_version_is_refused, version=_version, first=_first),
        codes=(ErrorCode.UNSUPPORTED_VERSION,),
        vectors=(f"version-{_version}",) if _first and _version < 255 else (),
    )


@versions(5, ErrorCode.UNSUPPORTED_VERSION, vectors=("version-2-before-all-else",))
async def version_before_all_else(target: Target) -> None:
    """Of a header of version 2 only magic, version and checksum are looked at."""
    async with target.connection() as peer:
        await peer.send(raw(15, version=2, flags=0xFFFF, reserved=b"\1" * 20))
        await peer.ended(ErrorCode.UNSUPPORTED_VERSION)


@versions(6)
async def unknown_fields_of_hello(target: Target) -> None:
    """Unknown fields of Hello are ignored."""
    async with target.connection() as peer:
        message = pb.Hello(client="newer", token=target.token).SerializeToString()
        await peer.ask(FrameType.HELLO, message + UNKNOWN)


@versions(7)
async def unknown_fields_of_requests(target: Target) -> None:
    """Unknown fields of requests are ignored."""
    async with target.session() as peer:
        create = pb.Create(name=target.scratch, overwrite=True).SerializeToString()
        reply: pb.CreateReply = await peer.ask(FrameType.CREATE, create + UNKNOWN)
        await peer.data(reply.upload, 0, b"hello")
        await peer.ask(FrameType.SYNC, UNKNOWN, reply.upload)
        stat = pb.Stat(upload_id=reply.upload_id).SerializeToString()
        await peer.ask(FrameType.STAT, stat + UNKNOWN)
        await peer.ask(FrameType.LIST, UNKNOWN)
        await peer.ask(FrameType.PING, UNKNOWN)
        await peer.ask(FrameType.ABORT, UNKNOWN, reply.upload)


@versions(8)
async def unknown_fields_of_commit(target: Target) -> None:
    """Unknown fields of Commit are ignored."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        message = pb.Commit(size=0).SerializeToString()
        await peer.ask(FrameType.COMMIT, message + UNKNOWN, upload)
