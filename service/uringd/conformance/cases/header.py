"""Header: each check of the 64 bytes, and the order of the checks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from uringd.conformance.case import Section
from uringd.conformance.frames import raw
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    OFFSET_MAX,
    PUT_BYTES_MAX,
    ErrorCode,
    FrameType,
)

if TYPE_CHECKING:
    from uringd.conformance.target import Target

case = SECTION = Section("HD", "Header")

BAD_FRAME, BAD_CHECKSUM = ErrorCode.BAD_FRAME, ErrorCode.BAD_CHECKSUM
TOO_LARGE, OUT_OF_RANGE = ErrorCode.TOO_LARGE, ErrorCode.OUT_OF_RANGE
UNSUPPORTED, OUT_OF_ORDER = ErrorCode.UNSUPPORTED, ErrorCode.OUT_OF_ORDER

COOKIE = 1 << 40
LONG = CONTROL_BYTES_MAX + 1
RESERVED = b"\1" + bytes(19)
PAGES = pb.Pages(page_crc32c=[0]).SerializeToString()
RESUME = pb.Resume(upload_id="0" * 32).SerializeToString()
PING = raw(FrameType.PING, cookie=COOKIE)
FLIPPED = PING[:8] + bytes([PING[8] ^ 1]) + PING[9:]

ping = partial(raw, FrameType.PING)
data = partial(raw, FrameType.DATA, b"hello")
header_only = partial(raw, FrameType.DATA)
pages = partial(raw, FrameType.PAGES, PAGES)


class Bad(NamedTuple):
    """A header that breaks a rule, and the code it is answered with."""

    number: int
    what: str
    code: ErrorCode
    frame: bytes
    vectors: tuple[str, ...] = ()


TABLE = [
    Bad(1, "a wrong magic", BAD_FRAME, ping(cookie=COOKIE, magic=0x4F495256), ("wrong-magic",)),
    Bad(
        2,
        "a request of HTTP",
        BAD_FRAME,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: an honest mistake\r\n\r\n".ljust(64),
        ("http-instead-of-frames",),
    ),
    Bad(3, "64 zeroes", BAD_FRAME, bytes(64)),
    Bad(4, "a flipped bit", BAD_CHECKSUM, FLIPPED, ("flipped-bit-in-a-header",)),
    Bad(
        5,
        "a wrong header_crc32c",
        BAD_CHECKSUM,
        ping(cookie=COOKIE, header_crc=0),
        ("wrong-header-checksum",),
    ),
    Bad(
        6,
        "the first reserved byte set",
        BAD_FRAME,
        ping(cookie=COOKIE, reserved=RESERVED),
        ("first-reserved-byte-set",),
    ),
    Bad(
        7,
        "the last reserved byte set",
        BAD_FRAME,
        ping(cookie=COOKIE, reserved=bytes(19) + b"\x80"),
        ("last-reserved-byte-set",),
    ),
    Bad(8, "an unknown flag", BAD_FRAME, ping(cookie=COOKIE, flags=4), ("unknown-flag",)),
    Bad(9, "the highest flag", BAD_FRAME, ping(cookie=COOKIE, flags=0x8000), ("highest-flag",)),
    Bad(10, "MORE on a request", BAD_FRAME, ping(cookie=COOKIE, flags=2), ("more-on-ping",)),
    Bad(11, "REPLY on DATA", BAD_FRAME, data(upload=1, flags=1), ("reply-on-data",)),
    Bad(12, "REPLY on PAGES", BAD_FRAME, pages(upload=1, flags=1), ("pages-with-reply-flag",)),
    Bad(13, "MORE on PAGES", BAD_FRAME, pages(upload=1, flags=2), ("pages-with-more-flag",)),
    Bad(14, "a request without cookie", BAD_FRAME, ping(), ("request-without-cookie",)),
    Bad(
        15,
        "RESUME without cookie",
        BAD_FRAME,
        raw(FrameType.RESUME, RESUME),
        ("resume-without-cookie",),
    ),
    Bad(16, "DATA with a cookie", BAD_FRAME, data(upload=1, cookie=9), ("data-with-cookie",)),
    Bad(17, "PAGES with a cookie", BAD_FRAME, pages(upload=1, cookie=9), ("pages-with-cookie",)),
    Bad(18, "DATA without upload", BAD_FRAME, data(), ("data-without-upload",)),
    Bad(19, "PAGES without upload", BAD_FRAME, pages(), ("pages-without-upload",)),
    Bad(
        20,
        "SYNC without upload",
        BAD_FRAME,
        raw(FrameType.SYNC, cookie=COOKIE),
        ("sync-without-upload",),
    ),
    Bad(21, "COMMIT without upload", BAD_FRAME, raw(FrameType.COMMIT, cookie=COOKIE)),
    Bad(
        22,
        "CREATE with an upload",
        BAD_FRAME,
        raw(FrameType.CREATE, b"\n\1n", cookie=COOKIE, upload=1),
        ("create-with-upload",),
    ),
    Bad(
        23,
        "RESUME with an upload",
        BAD_FRAME,
        raw(FrameType.RESUME, RESUME, cookie=COOKIE, upload=1),
        ("resume-with-upload",),
    ),
    Bad(24, "PING with an upload", BAD_FRAME, ping(cookie=COOKIE, upload=1)),
    Bad(
        25,
        "DATA without payload",
        BAD_FRAME,
        header_only(upload=1),
        ("data-without-payload",),
    ),
    Bad(
        26,
        "DATA of more than 16 MiB",
        TOO_LARGE,
        header_only(upload=1, length=DATA_BYTES_MAX + 1),
        ("data-above-every-limit",),
    ),
    Bad(27, "DATA of 4 GiB less 1", TOO_LARGE, header_only(upload=1, length=(1 << 32) - 1)),
    Bad(
        28,
        "DATA at 2^63",
        OUT_OF_RANGE,
        data(upload=1, offset=1 << 63),
        ("data-at-2-to-the-63",),
    ),
    Bad(
        29,
        "DATA that ends at 2^63",
        OUT_OF_RANGE,
        data(upload=1, offset=OFFSET_MAX - 4),
        ("data-that-ends-at-2-to-the-63",),
    ),
    Bad(
        30,
        "DATA at the highest offset",
        OUT_OF_RANGE,
        data(upload=1, offset=(1 << 64) - 1),
        ("data-at-the-highest-offset",),
    ),
    Bad(
        31,
        "a request with an offset",
        BAD_FRAME,
        ping(cookie=COOKIE, offset=1),
        ("control-with-offset",),
    ),
    Bad(
        32,
        "PAGES with an offset in the header",
        BAD_FRAME,
        pages(upload=1, offset=4096),
        ("pages-with-offset-in-the-header",),
    ),
    Bad(
        33,
        "a control payload above 64 KiB",
        TOO_LARGE,
        ping(cookie=COOKIE, length=LONG),
        ("control-above-its-limit",),
    ),
    Bad(34, "a wrong magic and a wrong checksum", BAD_FRAME, ping(magic=0, header_crc=0)),
    Bad(
        35,
        "a wrong checksum and another version",
        BAD_CHECKSUM,
        ping(version=2, header_crc=0),
        ("checksum-before-version",),
    ),
    Bad(
        36,
        "reserved bytes and an unknown type",
        BAD_FRAME,
        raw(15, reserved=RESERVED),
        ("reserved-before-type",),
    ),
    Bad(
        37,
        "an unknown type and unknown flags",
        UNSUPPORTED,
        raw(255, flags=0x8000),
        ("type-before-flags",),
    ),
    Bad(
        38,
        "an unknown flag and too long a payload",
        BAD_FRAME,
        ping(cookie=COOKIE, flags=2, length=LONG),
        ("flags-before-lengths",),
    ),
    Bad(
        39,
        "an offset and too long a payload",
        BAD_FRAME,
        ping(cookie=COOKIE, offset=1, length=LONG),
        ("offset-before-lengths",),
    ),
    Bad(
        40,
        "an offset in a frame that the state does not allow",
        BAD_FRAME,
        raw(FrameType.HELLO, cookie=COOKIE, offset=1),
    ),
    Bad(
        41,
        "a frame that the state does not allow and a payload that is no message",
        OUT_OF_ORDER,
        raw(FrameType.HELLO, b"\xff", cookie=COOKIE),
    ),
    Bad(
        48,
        "PUT with a payload above 1,028 KiB",
        TOO_LARGE,
        raw(FrameType.PUT, cookie=COOKIE, length=PUT_BYTES_MAX + 1),
        ("put-too-large",),
    ),
]


async def _is_refused(target: Target, bad: Bad) -> None:
    async with target.session() as peer:
        await peer.send(bad.frame)
        await peer.ended(bad.code)


for _bad in TABLE:
    SECTION.add(
        _bad.number,
        f"A header with {_bad.what} is {_bad.code.name} and ends the session."
        if not _bad.what.startswith(("DATA", "PAGES", "PUT", "SYNC", "COMMIT", "CREATE", "RESUME"))
        else f"{_bad.what} is {_bad.code.name} and ends the session.",
        partial(_is_refused, bad=_bad),
        codes=(_bad.code,),
        vectors=_bad.vectors,
    )


@case(42, TOO_LARGE, vectors=("data-above-what-was-agreed",))
async def above_the_agreed(target: Target) -> None:
    """DATA of more than HELLO's chunk_bytes_max is TOO_LARGE and ends the session."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.send(header_only(upload=upload, length=target.facts.chunk_bytes_max + 1))
        await peer.ended(TOO_LARGE)


@case(43, TOO_LARGE, vectors=("lengths-before-order",))
async def lengths_before_order(target: Target) -> None:
    """A payload above its limit is TOO_LARGE also where the state does not allow the frame."""
    async with target.connection() as peer:
        await peer.send(ping(cookie=COOKIE, length=LONG))
        await peer.ended(TOO_LARGE)


@case(44, ErrorCode.OUT_OF_ORDER)
async def order_before_agreed(target: Target) -> None:
    """The state is checked before chunk_bytes_max: DATA of 16 MiB before HELLO is OUT_OF_ORDER."""
    async with target.connection() as peer:
        await peer.send(header_only(upload=1, length=DATA_BYTES_MAX))
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@case(45, BAD_FRAME)
async def before_the_payload(target: Target) -> None:
    """A header is refused before its payload came: the server does not wait for it."""
    async with target.session() as peer:
        await peer.send(ping(cookie=COOKIE, reserved=RESERVED, length=CONTROL_BYTES_MAX))
        await peer.ended(BAD_FRAME)


@case(46)
async def more_is_kept(target: Target) -> None:
    """DATA with MORE, followed by its next frame at once, is a chunk like any other."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        chunk = peer.chunk(upload, 0, target.blocks(1), more=True)
        frame, cookie = peer.frame(FrameType.SYNC, pb.Sync(), upload)
        await peer.send(chunk + frame)
        await peer.reply(cookie)
        await peer.all_credit()


@case(47)
async def no_more_is_not_waited_for(target: Target) -> None:
    """DATA without MORE is written and acknowledged while the client sends nothing more."""
    async with target.session() as peer:
        upload = (await peer.create(target.name())).upload
        await peer.send(peer.chunk(upload, 0, target.blocks(1)))
        await peer.all_credit()
