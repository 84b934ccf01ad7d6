"""Transport: how a stream may be cut into pieces, and how it may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import Section, same
from uringd.conformance.frames import raw
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import HEADER_BYTES, ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("TR", "Transport")

PING = raw(FrameType.PING, cookie=1)
HELLO = raw(FrameType.HELLO, pb.Hello(client="cut short").SerializeToString(), cookie=1)


@case(1)
async def end_between_frames(target: Target) -> None:
    """The end of the stream between two frames is orderly: the server closes without an ERROR."""
    async with target.session() as peer:
        await peer.alive()
        await peer.send_eof()
        await peer.closed()


@case(2, ErrorCode.BAD_FRAME, vectors=("end-in-a-header",))
async def end_in_a_header(target: Target) -> None:
    """The end of the stream within a header is BAD_FRAME."""
    async with target.session() as peer:
        await peer.send(PING[: HEADER_BYTES - 1])
        await peer.send_eof()
        await peer.ended(ErrorCode.BAD_FRAME)


@case(3, ErrorCode.BAD_FRAME, vectors=("end-after-one-byte",))
async def end_after_one_byte(target: Target) -> None:
    """The end of the stream after the first byte of the first frame is BAD_FRAME."""
    async with target.connection() as peer:
        await peer.send(HELLO[:1])
        await peer.send_eof()
        await peer.ended(ErrorCode.BAD_FRAME)


@case(4, ErrorCode.BAD_FRAME, vectors=("end-in-a-control-payload",))
async def end_in_a_control_payload(target: Target) -> None:
    """The end of the stream within a control payload is BAD_FRAME."""
    async with target.connection() as peer:
        await peer.send(HELLO[:-1])
        await peer.send_eof()
        await peer.ended(ErrorCode.BAD_FRAME)


@case(5, ErrorCode.BAD_FRAME, vectors=("end-in-a-chunk",))
async def end_in_a_chunk(target: Target) -> None:
    """The end of the stream within a chunk is BAD_FRAME."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.send(peer.chunk(upload, 0, b"hello")[:-1])
        await peer.send_eof()
        await peer.ended(ErrorCode.BAD_FRAME)


@case(6)
async def byte_by_byte(target: Target) -> None:
    """A frame may come in pieces of any size: one of single bytes is answered like any other."""
    async with target.session() as peer:
        frame, cookie = peer.frame(FrameType.PING, pb.Ping())
        for at in range(len(frame)):
            await peer.send(frame[at : at + 1])
        await peer.reply(cookie)


@case(7)
async def a_chunk_in_pieces(target: Target) -> None:
    """A chunk may come in pieces of any size."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        frame = peer.chunk(upload, 0, target.blocks(1))
        for at in range(0, len(frame), 61):
            await peer.send(frame[at : at + 61])
        same("durable", target.alignment, await peer.sync(upload))


@case(8)
async def frames_in_one_piece(target: Target) -> None:
    """Many frames may come in one piece: each is handled."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        content = target.blocks(2)
        half = target.alignment
        frames = [peer.frame(FrameType.PING, pb.Ping())]
        chunk = peer.chunk(upload, 0, content[:half])
        frames.append(peer.frame(FrameType.SYNC, pb.Sync(), upload))
        await peer.send(frames[0][0] + chunk + frames[1][0])
        await peer.reply(frames[0][1])
        same("durable", half, (await peer.reply(frames[1][1])).durable)


@case(9)
async def end_aborts(target: Target) -> None:
    """When a session without resume ends, the server aborts its unfinished uploads."""
    async with target.session() as peer:
        upload_id = (await peer.create(target.name())).upload_id
    async with target.session() as other:
        await target.until(
            "the upload of a session that ended to be gone",
            lambda: _is_gone(other, upload_id),
        )


@case(10)
async def end_before_hello(target: Target) -> None:
    """A connection that ends before HELLO costs nobody anything."""
    async with target.connection() as peer:
        await peer.send_eof()
        await peer.closed()
    async with target.session() as other:
        await other.alive()


@case(11)
async def independent_sessions(target: Target) -> None:
    """A session that ends by an ERROR does not end another one, nor its upload."""
    async with target.session() as good, target.session() as bad:
        upload = (await good.create(target.name())).upload
        await good.data(upload, 0, target.blocks(1))
        await bad.send(bytes(HEADER_BYTES))
        await bad.ended(ErrorCode.BAD_FRAME)
        same("durable", target.alignment, await good.sync(upload))


async def _is_gone(peer: Peer, upload_id: str) -> bool:
    frame, cookie = peer.frame(FrameType.STAT, pb.Stat(upload_id=upload_id))
    await peer.send(frame)
    answer = await peer.answer(cookie)
    return bool(answer.type is FrameType.ERROR and answer.message.code == ErrorCode.NOT_FOUND)
