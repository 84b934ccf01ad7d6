"""Page checksums: a damaged chunk costs its bad pages only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import Section, SkippedError, same
from uringd.conformance.frames import raw
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import PAGE_BYTES, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("PG", "PAGES")
pages = PAGES = Section("PC", "Page checksums")

BAD_CHECKSUM = ErrorCode.BAD_CHECKSUM
FEATURE = "page-checksums"
NEEDS = (FEATURE,)
COUNT = 4
"""Pages of a chunk, where the server's chunks are long enough."""


def _content(target: Target, count: int = COUNT) -> bytes:
    """Make a chunk of so many pages; skip where a page is no piece that can be sent again."""
    if count * PAGE_BYTES > target.facts.chunk_bytes_max:
        raise SkippedError(f"this server's chunks are shorter than {count} pages")
    if PAGE_BYTES % target.alignment:
        raise SkippedError("a page is no multiple of this server's alignment")
    return target.blocks(count * PAGE_BYTES // target.alignment)


def _checksums(content: bytes) -> list[int]:
    return [crc32c(content[at : at + PAGE_BYTES]) for at in range(0, len(content), PAGE_BYTES)]


def _damaged(content: bytes, *bad: int) -> bytes:
    """Flip a bit in each of the pages."""
    copy = bytearray(content)
    for page in bad:
        copy[page * PAGE_BYTES + 1] ^= 1
    return bytes(copy)


async def _announce(peer: Peer, upload: int, offset: int, checksums: Sequence[int]) -> None:
    message = pb.Pages(offset=offset, page_crc32c=checksums)
    await peer.send(raw(FrameType.PAGES, message.SerializeToString(), upload=upload))


async def _bad_pages(peer: Peer, upload: int, offset: int = 0) -> list[tuple[int, int]]:
    """Wait for BAD_CHECKSUM about a chunk; the pages it names, adjacent ones as one range."""
    error = await peer.notice(BAD_CHECKSUM, upload, offset)
    merged: list[tuple[int, int]] = []
    for part in error.missing:
        if merged and sum(merged[-1]) == part.offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + part.length)
        else:
            merged.append((part.offset, part.length))
    return merged


def _page(number: int, count: int = 1) -> tuple[int, int]:
    return number * PAGE_BYTES, count * PAGE_BYTES


@case(1, ErrorCode.OUT_OF_ORDER)
async def not_in_force(target: Target) -> None:
    """Where `page-checksums` is not in force PAGES is OUT_OF_ORDER, which ends the session."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, 0, [1])
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@case(2, needs=NEEDS)
async def of_no_upload(target: Target) -> None:
    """PAGES for a handle that there is not means nothing, and is no error."""
    async with target.session(FEATURE) as peer:
        await _announce(peer, 1 << 50, 0, [1])
        await peer.no_notice()


@case(3, needs=NEEDS)
async def no_credit(target: Target) -> None:
    """PAGES uses no credit, and none comes back for it."""
    content = target.blocks(1)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        for _ in range(100):
            await _announce(peer, upload, 0, _checksums(content))
        count, step = peer.watch.granted, target.alignment
        frames = (peer.chunk(upload, n * step, content) for n in range(count))
        await peer.send(b"".join(frames))
        await peer.all_credit()
        await peer.no_notice()


@case(4, needs=NEEDS)
async def more_and_pages(target: Target) -> None:
    """PAGES and its chunk may come in one piece with what follows."""
    content = target.blocks(1)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        message = pb.Pages(page_crc32c=_checksums(content))
        first = raw(FrameType.PAGES, message.SerializeToString(), upload=upload)
        sync, cookie = peer.frame(FrameType.SYNC, pb.Sync(), upload)
        await peer.send(first + peer.chunk(upload, 0, content, more=True) + sync)
        same("durable", len(content), (await peer.reply(cookie)).durable)


@pages(1, needs=NEEDS)
async def nothing_is_bad(target: Target) -> None:
    """A chunk that agrees with its checksum is taken, with PAGES before it as without."""
    content = _content(target, 1)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, content)
        same("durable", len(content), await peer.sync(upload))
        await peer.no_notice()


@pages(2, BAD_CHECKSUM, needs=NEEDS)
async def one_bad_page(target: Target) -> None:
    """Of a damaged chunk exactly the bad page is named, in the chunk's BAD_CHECKSUM."""
    await _damage(target, bad=(2,), named=[_page(2)])


@pages(3, BAD_CHECKSUM, needs=NEEDS)
async def the_first_page(target: Target) -> None:
    """The first page of a chunk may be the bad one."""
    await _damage(target, bad=(0,), named=[_page(0)])


@pages(4, BAD_CHECKSUM, needs=NEEDS)
async def the_last_page(target: Target) -> None:
    """The last page of a chunk may be the bad one."""
    await _damage(target, bad=(3,), named=[_page(3)])


@pages(5, BAD_CHECKSUM, needs=NEEDS)
async def two_bad_pages(target: Target) -> None:
    """Of two bad pages each is named, and the good one between them is not."""
    await _damage(target, bad=(0, 2), named=[_page(0), _page(2)])


@pages(6, BAD_CHECKSUM, needs=NEEDS)
async def adjacent_bad_pages(target: Target) -> None:
    """Two bad pages side by side are both named."""
    await _damage(target, bad=(1, 2), named=[_page(1, 2)])


@pages(7, BAD_CHECKSUM, ErrorCode.INCOMPLETE, needs=NEEDS)
async def good_pages_are_kept(target: Target) -> None:
    """Good pages are kept: only the bad ones are missing, and with them the file is whole."""
    content = _content(target)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, _damaged(content, 1, 3), crc=crc32c(content))
        named = await _bad_pages(peer, upload)
        same("missing", named, await peer.incomplete(upload, len(content)))
        for offset, length in named:
            await peer.data(upload, offset, content[offset : offset + length])
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)


@pages(8, BAD_CHECKSUM, needs=NEEDS)
async def no_page_agrees(target: Target) -> None:
    """Where no page agrees the whole chunk is refused, without `missing`."""
    content = _content(target, 2)
    await _whole(target, content, _damaged(content, 0, 1), _checksums(content))


@pages(9, BAD_CHECKSUM, needs=NEEDS)
async def no_page_differs(target: Target) -> None:
    """Where no page differs, only the chunk's checksum, the whole chunk is refused."""
    content = _content(target, 2)
    await _whole(target, _damaged(content, 0), content, _checksums(content))


@pages(10, BAD_CHECKSUM, needs=NEEDS)
async def another_offset(target: Target) -> None:
    """PAGES for another offset means nothing: the damaged chunk is refused whole."""
    content = _content(target, 2)
    await _whole(target, content, _damaged(content, 0), _checksums(content), PAGE_BYTES)


@pages(11, BAD_CHECKSUM, needs=NEEDS)
async def another_count(target: Target) -> None:
    """PAGES with another number of pages than the chunk has means nothing."""
    content = _content(target, 2)
    await _whole(target, content, _damaged(content, 0), [*_checksums(content), 1])
    await _whole(target, content, _damaged(content, 0), _checksums(content)[:1])


@pages(12, BAD_CHECKSUM, needs=NEEDS)
async def another_upload(target: Target) -> None:
    """PAGES for another upload means nothing."""
    content = _content(target, 2)
    async with target.session(FEATURE) as peer:
        first, second = [(await peer.create(target.name())).upload for _ in range(2)]
        await _announce(peer, first, 0, _checksums(content))
        await peer.data(second, 0, _damaged(content, 0), crc=crc32c(content))
        same("pages named", [], await _bad_pages(peer, second))


@pages(13, BAD_CHECKSUM, needs=NEEDS)
async def the_next_chunk_only(target: Target) -> None:
    """PAGES counts for the next DATA frame of the session only, whichever that is."""
    content = _content(target, 2)
    async with target.session(FEATURE) as peer:
        first, second = [(await peer.create(target.name())).upload for _ in range(2)]
        await _announce(peer, first, 0, _checksums(content))
        await peer.data(second, 0, b"tail")
        await peer.data(first, 0, _damaged(content, 0), crc=crc32c(content))
        same("pages named", [], await _bad_pages(peer, first))


@pages(14, BAD_CHECKSUM, needs=NEEDS)
async def the_last_counts(target: Target) -> None:
    """Only the last PAGES of a session counts."""
    content = _content(target, 2)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, 0, [1, 2])
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, _damaged(content, 1), crc=crc32c(content))
        same("pages named", [_page(1)], await _bad_pages(peer, upload))


@pages(15, BAD_CHECKSUM, needs=NEEDS)
async def a_shorter_last_page(target: Target) -> None:
    """The last page of a tail may be shorter than 64 KiB, and is named with its length."""
    if target.facts.chunk_bytes_max < PAGE_BYTES + 5:
        raise SkippedError("this server's chunks are no longer than a page")
    content = _content(target, 1) + b"short"
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.scratch, overwrite=True)).upload
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, _damaged(content, 1), crc=crc32c(content))
        same("pages named", [(PAGE_BYTES, 5)], await _bad_pages(peer, upload))
        await peer.data(upload, PAGE_BYTES, b"short")
        receipt = await peer.commit(upload, len(content))
        same("the Receipt's crc32c", crc32c(content), receipt.crc32c)


@pages(16, BAD_CHECKSUM, needs=NEEDS)
async def elsewhere_than_at_0(target: Target) -> None:
    """Pages are counted from the chunk's begin, wherever it lies in the upload."""
    content, at = _content(target, 2), 3 * target.alignment
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, at, _checksums(content))
        await peer.data(upload, at, _damaged(content, 1), crc=crc32c(content))
        named = await _bad_pages(peer, upload, at)
        same("pages named", [(at + PAGE_BYTES, PAGE_BYTES)], named)


@pages(17, BAD_CHECKSUM, needs=NEEDS)
async def one_credit(target: Target) -> None:
    """A chunk of which some pages are taken uses one credit, and it comes back."""
    content = _content(target, 2)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        for number in range(2 * peer.watch.granted):
            at = number * len(content)
            await _announce(peer, upload, at, _checksums(content))
            await peer.data(upload, at, _damaged(content, number % 2), crc=crc32c(content))
        await peer.all_credit()
        same("refusals", 2 * peer.watch.granted, len(peer.notices))


@pages(18, BAD_CHECKSUM, ErrorCode.CONFLICT, needs=NEEDS)
async def the_whole_again(target: Target) -> None:
    """The whole chunk again, where good pages were taken as chunks, is another cut: CONFLICT."""
    content = _content(target, 2)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, _damaged(content, 1), crc=crc32c(content))
        same("pages named", [_page(1)], await _bad_pages(peer, upload))
        await peer.data(upload, 0, content)
        await peer.notice(ErrorCode.CONFLICT, upload, 0)


async def _damage(target: Target, bad: tuple[int, ...], named: list[tuple[int, int]]) -> None:
    """Send a chunk with bad pages; exactly those are named, and the others are there."""
    content = _content(target)
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, 0, _checksums(content))
        await peer.data(upload, 0, _damaged(content, *bad), crc=crc32c(content))
        same("pages named", named, await _bad_pages(peer, upload))
        same("missing", named, await peer.incomplete(upload, len(content)))
        await peer.all_credit()


async def _whole(
    target: Target, content: bytes, sent: bytes, checksums: Sequence[int], offset: int = 0
) -> None:
    """Send a damaged chunk that is refused whole, and then as it is."""
    async with target.session(FEATURE) as peer:
        upload = (await peer.create(target.name())).upload
        await _announce(peer, upload, offset, checksums)
        await peer.data(upload, 0, sent, crc=crc32c(content))
        same("pages named", [], await _bad_pages(peer, upload))
        await peer.data(upload, 0, content)
        same("durable", len(content), await peer.sync(upload))
        await peer.no_notice()
