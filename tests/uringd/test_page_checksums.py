"""A damaged chunk costs its bad pages only. PROTOCOL.md, "Page checksums"."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import CREDIT
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import PAGE_BYTES, Connection, ErrorCode, FrameType, Role, crc32c
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

CHUNK_BYTES = 8 * PAGE_BYTES


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    async with serving(slot_bytes=CHUNK_BYTES) as running:
        yield running


def page_checksums(data: bytes) -> list[int]:
    return [crc32c(data[start : start + PAGE_BYTES]) for start in range(0, len(data), PAGE_BYTES)]


def damaged(data: bytes, pages: list[int]) -> bytes:
    copy = bytearray(data)
    for page in pages:
        copy[page * PAGE_BYTES + 5] ^= 0xFF
    return bytes(copy)


async def send_pages(peer: Peer, handle: int, offset: int, checksums: list[int]) -> None:
    message = pb.Pages(offset=offset, page_crc32c=checksums)
    await peer.send(peer.connection.send_control(FrameType.PAGES, message, upload=handle))


@pytest.mark.parametrize("bad", [[0], [7], [0, 1, 5], [3, 4], [1, 3, 5, 7], [8]])
async def test_a_mismatch_names_the_bad_pages_and_keeps_the_good_ones(
    daemon: Daemon, open_peer: OpenPeer, content: Content, bad: list[int]
) -> None:
    length = CHUNK_BYTES if 8 not in bad else CHUNK_BYTES // 2 + 100
    bad = [page if page != 8 else 4 for page in bad]
    data = content(length)
    async with open_peer(daemon.unix, "page-checksums") as peer:
        handle = await peer.create("file", size=length)
        await send_pages(peer, handle, 0, page_checksums(data))
        await peer.data(handle, 0, damaged(data, bad), checksum=crc32c(data))
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.BAD_CHECKSUM, 0)
        covered = [
            page
            for offset, size in error.missing
            for page in range(offset // PAGE_BYTES, -(-(offset + size) // PAGE_BYTES))
        ]
        assert covered == bad
        incomplete = await peer.refusal(FrameType.COMMIT, pb.Commit(size=length), handle)
        assert incomplete.missing == error.missing
        for offset, size in error.missing:
            await peer.data(handle, offset, data[offset : offset + size])
        await peer.commit(handle, length, crc32c=crc32c(data))
    assert (daemon.root / "file").read_bytes() == data


async def test_pages_of_a_good_chunk_change_nothing(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(CHUNK_BYTES)
    async with open_peer(daemon.unix, "page-checksums") as peer:
        handle = await peer.create("file")
        await send_pages(peer, handle, 0, page_checksums(data))
        await peer.data(handle, 0, data)
        await peer.commit(handle, CHUNK_BYTES, crc32c=crc32c(data))
        assert not peer.notices


@pytest.mark.parametrize("wrong", ["offset", "count", "handle", "later", "all", "none"])
async def test_pages_that_are_not_the_chunks_mean_nothing(
    daemon: Daemon, open_peer: OpenPeer, content: Content, wrong: str
) -> None:
    data = content(CHUNK_BYTES)
    checksums = page_checksums(data)
    async with open_peer(daemon.unix, "page-checksums") as peer:
        handle = await peer.create("file")
        await peer.create("other")
        about = handle + 1 if wrong == "handle" else handle
        at = 4096 if wrong == "offset" else 0
        if wrong == "count":
            checksums = checksums[:-1]
        bad = {"all": list(range(8)), "none": []}.get(wrong, [0])
        await send_pages(peer, about, at, checksums)
        if wrong == "later":
            await peer.data(handle, CHUNK_BYTES, data)
        crc = crc32c(data) ^ (wrong == "none")
        await peer.data(handle, 0, damaged(data, bad), checksum=crc)
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.BAD_CHECKSUM, 0)
        assert error.missing == ()
        await peer.wait_credit(CREDIT)


@pytest.mark.parametrize("taken", ["by another client", "and let go of"])
async def test_a_fenced_session_writes_no_page_more(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    taken: str,
) -> None:
    """Nor any into a file that has got the descriptor of the one it was mending."""
    data, other = content(CHUNK_BYTES), bytes(CHUNK_BYTES)
    features = ("resume", "page-checksums")
    async with (
        serving(slow_ring, slot_bytes=CHUNK_BYTES) as daemon,
        open_peer(daemon.unix, *features) as old,
        open_peer(daemon.unix, "resume") as victim,
    ):
        created = await old.ask(FrameType.CREATE, pb.Create(name="file"))
        filling = daemon.uploads[created.upload_id].filling
        await send_pages(old, created.upload, 0, page_checksums(data))
        slow_ring.hold(Opcode.WRITE)
        await old.data(created.upload, 0, damaged(data, [1, 3, 5, 7]), checksum=crc32c(data))
        await until(lambda: bool(slow_ring.in_flight))
        async with open_peer(daemon.unix, "resume") as new:
            asked = new.request(FrameType.RESUME, pb.Resume(upload_id=created.upload_id))
            await new.send(asked)
            upload = daemon.uploads[created.upload_id]
            await until(lambda: upload.epoch == 2)
            slow_ring.let_go()
            reply = (await new.answer()).message
            assert [(part.offset, part.length) for part in reply.durable] == [(0, PAGE_BYTES)]
            if taken == "by another client":
                await new.data(reply.upload, PAGE_BYTES, other[PAGE_BYTES:])
                await new.commit(reply.upload, CHUNK_BYTES)
        if taken == "and let go of":
            await until(lambda: not daemon.uploads)
            assert filling.closed
            handle = await victim.create("victim")
            await victim.data(handle, 0, other)
            await victim.commit(handle, CHUNK_BYTES)
            assert (daemon.root / "victim").read_bytes() == other
        else:
            expected = data[:PAGE_BYTES] + other[PAGE_BYTES:]
            assert (daemon.root / "file").read_bytes() == expected
        await old.wait_credit(CREDIT)


async def test_good_pages_that_conflict_are_refused_like_any_chunk(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(CHUNK_BYTES)
    async with open_peer(daemon.unix, "page-checksums") as peer:
        handle = await peer.create("file")
        await peer.data(handle, 4 * PAGE_BYTES, bytes(PAGE_BYTES))
        await send_pages(peer, handle, 0, page_checksums(data))
        await peer.data(handle, 0, damaged(data, [0]), checksum=crc32c(data))
        _, error = await peer.notice()
        assert error.code == ErrorCode.CONFLICT
        await peer.wait_credit(CREDIT)


async def test_pages_without_the_feature_end_the_session(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create("file")
        await send_pages(peer, handle, 0, [0])
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER


def test_the_codec_takes_pages_from_a_client_only() -> None:
    server = Connection(Role.SERVER)
    assert server.role is Role.SERVER
    with pytest.raises(Exception, match="PAGES"):
        server.send_control(FrameType.PAGES, pb.Pages(page_crc32c=[1]), upload=1)
