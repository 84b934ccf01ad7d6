"""Requests and replies, Checksums: cookies, order, how many at once, and what a checksum covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, holds, same
from uringd.conformance.frames import raw
from uringd.conformance.peer import described, refused
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import REQUESTS_MAX, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("RQ", "Requests and replies")
checksums = CHECKSUMS = Section("CS", "Checksums")

COOKIE_MAX = (1 << 64) - 1


@case(1)
async def cookies_come_back(target: Target) -> None:
    """A reply carries its request's cookie, whatever number it is."""
    async with target.session() as peer:
        for cookie in (1 << 63, COOKIE_MAX, 0x0123_4567_89AB_CDEF):
            frame, _ = peer.frame(FrameType.PING, pb.Ping(), cookie=cookie)
            await peer.send(frame)
            await peer.reply(cookie)


@case(2)
async def as_many_as_there_may_be(target: Target) -> None:
    """64 requests sent without waiting are each answered."""
    async with target.session() as peer:
        await _burst(peer, REQUESTS_MAX)
        await peer.alive()


@case(3, ErrorCode.TOO_MANY_REQUESTS)
async def one_too_many(target: Target) -> None:
    """65 requests sent without waiting are answered, or the 65th, if the server has 64 unanswered,
    is TOO_MANY_REQUESTS and ends the session.
    """
    async with target.session() as peer:
        frames = [peer.frame(FrameType.PING, pb.Ping())[0] for _ in range(REQUESTS_MAX + 1)]
        await peer.send(b"".join(frames))
        for _ in frames:
            event = await peer.receive()
            if event is not None and event.type is FrameType.PING:
                continue
            if event is None or event.message.code != ErrorCode.TOO_MANY_REQUESTS:
                got = "the end" if event is None else described(event)
                raise FailedError("65 replies or ERROR TOO_MANY_REQUESTS", got)
            return


@case(4, ErrorCode.OUT_OF_ORDER, vectors=("cookie-in-use",))
async def cookie_in_use(target: Target) -> None:
    """A second request with a cookie is OUT_OF_ORDER and ends the session, unless the first one
    was answered before the second came.
    """
    async with target.session() as peer:
        frame, cookie = peer.frame(FrameType.PING, pb.Ping())
        await peer.send(frame + frame)
        first = await peer.receive()
        if first is not None and not peer.watch.over:
            same("the cookie", cookie, first.cookie)
            peer.watch.requests.begin(cookie, FrameType.PING, 0)
            first = await peer.receive()
        if first is None or (peer.watch.over and first.message.code != ErrorCode.OUT_OF_ORDER):
            raise FailedError("a reply or ERROR OUT_OF_ORDER", described(first) if first else "end")


@case(5)
async def cookie_again(target: Target) -> None:
    """A cookie may be used again after its reply."""
    async with target.session() as peer:
        for _ in range(3):
            frame, cookie = peer.frame(FrameType.PING, pb.Ping(), cookie=7)
            await peer.send(frame)
            await peer.reply(cookie)


@case(6, ErrorCode.NOT_FOUND)
async def errors_repeat_the_handle(target: Target) -> None:
    """An ERROR that answers a request carries its cookie and its upload handle."""
    async with target.session() as peer:
        frame, cookie = peer.frame(FrameType.SYNC, pb.Sync(), 1 << 50)
        await peer.send(frame)
        event = await peer.answer(cookie)
        refused(event, ErrorCode.NOT_FOUND)
        same("the handle", 1 << 50, event.upload)


@case(7, ErrorCode.NOT_FOUND)
async def a_refusal_costs_the_request(target: Target) -> None:
    """A refused request costs itself only: the session and its uploads go on."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.data(upload, 0, target.blocks(1))
        await peer.refusal(FrameType.STAT, pb.Stat(upload_id="0" * 32), ErrorCode.NOT_FOUND)
        same("durable", target.alignment, await peer.sync(upload))


@case(8)
async def sync_behind_chunks(target: Target) -> None:
    """SYNC covers every chunk that was sent before it in the session."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        count = min(4, peer.watch.granted)
        frames, cookie = _chunks(peer, target, upload, count), 0
        frame, cookie = peer.frame(FrameType.SYNC, pb.Sync(), upload)
        await peer.send(frames + frame)
        same("durable", count * target.alignment, (await peer.reply(cookie)).durable)


@case(9)
async def commit_behind_chunks(target: Target) -> None:
    """COMMIT covers every chunk that was sent before it in the session."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        count = min(4, peer.watch.granted)
        chunks = _chunks(peer, target, upload, count)
        size = count * target.alignment
        frame, cookie = peer.frame(FrameType.COMMIT, pb.Commit(size=size), upload)
        await peer.send(chunks + frame)
        receipt: pb.Receipt = await peer.reply(cookie)
        same("the Receipt's crc32c", crc32c(target.blocks(count)), receipt.crc32c)


@case(10, ErrorCode.BAD_CHECKSUM)
async def errors_before_the_answer(target: Target) -> None:
    """The ERRORs about chunks that were sent before SYNC come before its answer."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        bad = peer.chunk(upload, 0, target.blocks(1), crc=1)
        frame, cookie = peer.frame(FrameType.SYNC, pb.Sync(), upload)
        await peer.send(bad + frame)
        await peer.answer(cookie)
        same("ERRORs before the answer", 1, len(peer.notices))
        await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)


@case(11, ErrorCode.NOT_FOUND)
async def abort_then_sync(target: Target) -> None:
    """Requests about one upload are handled in the stream's order: SYNC behind ABORT is late."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        first, aborting = peer.frame(FrameType.ABORT, pb.Abort(), upload)
        second, syncing = peer.frame(FrameType.SYNC, pb.Sync(), upload)
        await peer.send(first + second)
        await peer.reply(aborting)
        refused(await peer.answer(syncing), ErrorCode.NOT_FOUND)


@case(12)
async def two_uploads_interleaved(target: Target) -> None:
    """Chunks of two uploads may be mixed: each goes to the upload that its header names."""
    async with target.session() as peer:
        uploads = [(await peer.create(target.name())).upload for _ in range(2)]
        step = target.alignment
        for at, upload in ((0, uploads[0]), (0, uploads[1]), (step, uploads[0])):
            await peer.data(upload, at, target.blocks(1, seed=at + upload))
        same("durable", 2 * step, await peer.sync(uploads[0]))
        same("durable", step, await peer.sync(uploads[1]))


async def _burst(peer: Peer, count: int) -> None:
    frames = [peer.frame(FrameType.PING, pb.Ping()) for _ in range(count)]
    await peer.send(b"".join(frame for frame, _ in frames))
    for _, cookie in frames:
        await peer.reply(cookie)


def _chunks(peer: Peer, target: Target, upload: int, count: int) -> bytes:
    step, content = target.alignment, target.blocks(count)
    return b"".join(
        peer.chunk(upload, at, content[at : at + step]) for at in range(0, count * step, step)
    )


@checksums(1, ErrorCode.BAD_CHECKSUM, vectors=("wrong-payload-checksum",))
async def control_payload(target: Target) -> None:
    """A control payload that differs from payload_crc32c is BAD_CHECKSUM and ends the session."""
    async with target.connection() as peer:
        payload = pb.Hello(client="damaged", token=target.token).SerializeToString()
        await peer.send(raw(FrameType.HELLO, payload, cookie=1, payload_crc=1))
        await peer.ended(ErrorCode.BAD_CHECKSUM)


@checksums(2, ErrorCode.BAD_CHECKSUM, vectors=("empty-payload-with-checksum",))
async def empty_payload(target: Target) -> None:
    """The checksum of an empty payload is 0; another one is BAD_CHECKSUM and ends the session."""
    async with target.session() as peer:
        await peer.send(raw(FrameType.PING, cookie=1 << 40, payload_crc=1))
        await peer.ended(ErrorCode.BAD_CHECKSUM)


@checksums(3, ErrorCode.BAD_CHECKSUM, vectors=("pages-that-differ-from-their-checksum",))
async def damaged_pages(target: Target) -> None:
    """PAGES whose payload differs from payload_crc32c ends the session: with BAD_CHECKSUM where it
    is in force.
    """
    async with target.session(*(f for f in ("page-checksums",) if f in target.features)) as peer:
        upload = (await peer.create(target.name())).upload
        payload = pb.Pages(page_crc32c=[1]).SerializeToString()
        await peer.send(raw(FrameType.PAGES, payload, upload=upload, payload_crc=1))
        in_force = "page-checksums" in peer.features
        codes = [ErrorCode.BAD_CHECKSUM] + [ErrorCode.OUT_OF_ORDER] * (not in_force)
        await peer.ended(*codes)


@checksums(4, ErrorCode.BAD_CHECKSUM)
async def damaged_chunk(target: Target) -> None:
    """A chunk that differs from payload_crc32c costs only itself, and may be sent again."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        content = target.blocks(1)
        await peer.data(upload, 0, content, crc=crc32c(content) ^ 1)
        error = await peer.notice(ErrorCode.BAD_CHECKSUM, upload, 0)
        same("missing", 0, len(error.missing))
        await peer.data(upload, 0, content)
        same("durable", len(content), await peer.sync(upload))
        await peer.no_notice()


@checksums(5)
async def the_known_checksum(target: Target) -> None:
    """Checksums are CRC32C: that of the nine bytes 123456789 is 0xe3069283."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        await peer.data(upload, 0, b"123456789", crc=0xE3069283)
        receipt = await peer.commit(upload, 9, crc32c=0xE3069283)
        same("the Receipt's crc32c", 0xE3069283, receipt.crc32c)


@checksums(6)
async def combined(target: Target) -> None:
    """The checksum of the whole file is that of its bytes, in whatever order its chunks came."""
    async with target.session() as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        content, step = target.blocks(3) + b"tail", target.alignment
        for at in (2 * step, 3 * step, 0, step):
            await peer.data(upload, at, content[at : at + step])
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)
        holds(receipt.size == len(content), f"size {len(content)}", receipt.size)
