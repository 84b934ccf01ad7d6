"""Messages: what a payload may hold. Each is the whole session's fault, not the request's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from uringd.conformance.case import Section, same
from uringd.conformance.frames import raw
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    FEATURES_MAX,
    PAGES_MAX,
    TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
    ErrorCode,
    FrameType,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from uringd.conformance.target import Target

case = SECTION = Section("MS", "Messages")

BAD_FRAME, OUT_OF_RANGE = ErrorCode.BAD_FRAME, ErrorCode.OUT_OF_RANGE
ID = "00112233445566778899aabbccddeeff"
TOO_FAR = 1 << 63
FEATURE_BYTES_MAX = 64
UNKNOWN_LEVEL = 4


class Bad(NamedTuple):
    """A payload that breaks a rule, and the code it is answered with."""

    number: int
    what: str
    code: ErrorCode
    frame_type: FrameType
    payload: Message | bytes
    vectors: tuple[str, ...] = ()
    upload: int = 0


def _level(message: Message, field: int) -> bytes:
    """Add a durability that there is not."""
    return message.SerializeToString() + bytes([field << 3, UNKNOWN_LEVEL])


_HELLO = [
    Bad(
        1,
        "Hello with a client of 1,025 bytes",
        BAD_FRAME,
        FrameType.HELLO,
        pb.Hello(client="c" * (TEXT_BYTES_MAX + 1)),
        ("client-of-1025-bytes",),
    ),
    Bad(
        2,
        "Hello with a token of 1,025 bytes",
        BAD_FRAME,
        FrameType.HELLO,
        pb.Hello(token="t" * (TOKEN_BYTES_MAX + 1)),
        ("token-of-1025-bytes",),
    ),
    Bad(
        3,
        "Hello with 33 features",
        BAD_FRAME,
        FrameType.HELLO,
        pb.Hello(features=["f"] * (FEATURES_MAX + 1)),
        ("too-many-features",),
    ),
    Bad(
        4,
        "Hello with an empty feature",
        BAD_FRAME,
        FrameType.HELLO,
        pb.Hello(features=[""]),
        ("empty-feature",),
    ),
    Bad(
        5,
        "Hello with a feature of 65 bytes",
        BAD_FRAME,
        FrameType.HELLO,
        pb.Hello(features=["f" * (FEATURE_BYTES_MAX + 1)]),
        ("feature-of-65-bytes",),
    ),
    Bad(6, "Hello that does not parse", BAD_FRAME, FrameType.HELLO, b"\n\5ab"),
    Bad(7, "Hello whose client is not UTF-8", BAD_FRAME, FrameType.HELLO, b"\n\2\xff\xfe"),
]

_REQUESTS = [
    Bad(
        10,
        "A payload that is no message",
        BAD_FRAME,
        FrameType.CREATE,
        b"\xff\xff\xff",
        ("payload-is-no-message",),
    ),
    Bad(
        11,
        "A message that is cut short",
        BAD_FRAME,
        FrameType.CREATE,
        b"\n\x0cgreeting",
        ("payload-cut-short",),
    ),
    Bad(
        12,
        "A name that is not UTF-8",
        BAD_FRAME,
        FrameType.CREATE,
        b"\n\2\xc3\x28",
        ("string-is-not-utf-8",),
    ),
    Bad(
        13,
        "Create with a durability that there is not",
        BAD_FRAME,
        FrameType.CREATE,
        _level(pb.Create(name="n"), 4),
        ("unknown-durability",),
    ),
    Bad(
        14,
        "Create with a size of 2^63",
        OUT_OF_RANGE,
        FrameType.CREATE,
        pb.Create(name="n", size=TOO_FAR),
        ("size-of-2-to-the-63",),
    ),
    Bad(
        15,
        "Create with an upload id of 31 digits",
        BAD_FRAME,
        FrameType.CREATE,
        pb.Create(name="n", upload_id=ID[:-1]),
        ("create-with-an-upload-id-too-short",),
    ),
    Bad(
        16,
        "Create with an upload id in upper case",
        BAD_FRAME,
        FrameType.CREATE,
        pb.Create(name="n", upload_id=ID.upper()),
        ("create-with-an-upload-id-in-upper-case",),
    ),
    Bad(
        17,
        "Resume without upload id",
        BAD_FRAME,
        FrameType.RESUME,
        pb.Resume(epoch=1),
        ("resume-of-nothing",),
    ),
    Bad(
        18,
        "Resume with an upload id of 33 digits",
        BAD_FRAME,
        FrameType.RESUME,
        pb.Resume(upload_id=ID + "0"),
        ("upload-id-too-long",),
    ),
    Bad(
        19,
        "Resume with an epoch of 2^63",
        OUT_OF_RANGE,
        FrameType.RESUME,
        pb.Resume(upload_id=ID, epoch=TOO_FAR),
        ("epoch-of-2-to-the-63",),
    ),
    Bad(
        20,
        "Stat with an upload id of 31 digits",
        BAD_FRAME,
        FrameType.STAT,
        pb.Stat(upload_id=ID[:-1]),
        ("upload-id-too-short",),
    ),
    Bad(
        21,
        "Stat with an upload id in upper case",
        BAD_FRAME,
        FrameType.STAT,
        pb.Stat(upload_id=ID.upper()),
        ("upload-id-in-upper-case",),
    ),
    Bad(22, "Stat of nothing", BAD_FRAME, FrameType.STAT, b"", ("stat-of-nothing",)),
    Bad(
        23,
        "Abort with an upload id that is not hexadecimal",
        BAD_FRAME,
        FrameType.ABORT,
        pb.Abort(upload_id="g" * 32),
        ("upload-id-not-hexadecimal",),
    ),
    Bad(
        24,
        "Commit with a size of 2^63",
        OUT_OF_RANGE,
        FrameType.COMMIT,
        pb.Commit(size=TOO_FAR),
        ("commit-of-2-to-the-63",),
        upload=1,
    ),
    Bad(
        25,
        "Commit with a durability that there is not",
        BAD_FRAME,
        FrameType.COMMIT,
        _level(pb.Commit(size=5), 3),
        ("commit-with-an-unknown-durability",),
        upload=1,
    ),
    Bad(
        35,
        "Attach without a mode",
        BAD_FRAME,
        FrameType.ATTACH,
        pb.Attach(bytes=4096, descriptors=1),
        ("attach-without-a-mode",),
    ),
    Bad(
        36,
        "Attach of an unknown mode",
        BAD_FRAME,
        FrameType.ATTACH,
        b"\x08\3",
        ("attach-of-an-unknown-mode",),
    ),
    Bad(
        37,
        "Attach with two descriptors",
        OUT_OF_RANGE,
        FrameType.ATTACH,
        pb.Attach(mode=pb.MEMORY_MODE_COPY, bytes=4096, descriptors=2),
        ("attach-with-two-descriptors",),
    ),
]

_PAGES = [
    Bad(
        30,
        "Pages without a checksum",
        BAD_FRAME,
        FrameType.PAGES,
        pb.Pages(offset=4096),
        ("pages-of-nothing",),
    ),
    Bad(
        31,
        "PAGES without payload",
        BAD_FRAME,
        FrameType.PAGES,
        b"",
        ("pages-with-an-empty-payload",),
    ),
    Bad(
        32,
        "Pages of 257 checksums",
        BAD_FRAME,
        FrameType.PAGES,
        pb.Pages(page_crc32c=range(PAGES_MAX + 1)),
        ("pages-of-257",),
    ),
    Bad(
        33,
        "Pages with an offset of 2^63",
        OUT_OF_RANGE,
        FrameType.PAGES,
        pb.Pages(offset=TOO_FAR, page_crc32c=[1]),
        ("pages-at-2-to-the-63",),
    ),
    Bad(
        34,
        "Pages with a checksum cut short",
        BAD_FRAME,
        FrameType.PAGES,
        b"\x12\3\0\0\0",
        ("pages-that-are-no-message",),
    ),
]

_PLACED = [
    Bad(
        38,
        "Placed without a length",
        BAD_FRAME,
        FrameType.PLACED,
        pb.Placed(offset=4096),
        ("placed-without-a-length",),
    ),
    Bad(
        39,
        "Placed with two descriptors",
        OUT_OF_RANGE,
        FrameType.PLACED,
        pb.Placed(length=4096, descriptors=2),
        ("placed-with-two-descriptors",),
    ),
    Bad(
        43,
        "Placed at an offset of 2^63",
        OUT_OF_RANGE,
        FrameType.PLACED,
        pb.Placed(offset=TOO_FAR, length=4096),
        ("placed-at-2-to-the-63",),
    ),
]


def _bytes(payload: Message | bytes) -> bytes:
    return payload if isinstance(payload, bytes) else payload.SerializeToString()


async def _hello_is_refused(target: Target, bad: Bad) -> None:
    async with target.connection() as peer:
        await peer.send(raw(bad.frame_type, _bytes(bad.payload), cookie=1))
        await peer.ended(bad.code)


async def _request_is_refused(target: Target, bad: Bad) -> None:
    async with target.session() as peer:
        payload = _bytes(bad.payload)
        await peer.send(raw(bad.frame_type, payload, cookie=1 << 40, upload=bad.upload))
        await peer.ended(bad.code)


async def _pages_are_refused(target: Target, bad: Bad) -> None:
    async with target.session("page-checksums") as peer:
        upload = (await peer.create(target.name())).upload
        await peer.send(raw(bad.frame_type, _bytes(bad.payload), upload=upload))
        await peer.ended(bad.code)


async def _placed_is_refused(target: Target, bad: Bad) -> None:
    async with target.session() as peer:
        await peer.send(raw(bad.frame_type, _bytes(bad.payload), upload=1))
        await peer.ended(bad.code)


for _table, _look, _needs in (
    (_HELLO, _hello_is_refused, ()),
    (_REQUESTS, _request_is_refused, ()),
    (_PAGES, _pages_are_refused, ("page-checksums",)),
    (_PLACED, _placed_is_refused, ()),
):
    for _bad in _table:
        SECTION.add(
            _bad.number,
            f"{_bad.what} is {_bad.code.name} and ends the session.",
            partial(_look, bad=_bad),
            needs=_needs,
            codes=(_bad.code,),
            vectors=_bad.vectors,
        )


@case(40)
async def at_the_limits(target: Target) -> None:
    """Hello may have a client of 1,024 bytes and 32 features of 64 bytes each."""
    async with target.connection() as peer:
        features = [f"{number:064}" for number in range(FEATURES_MAX)]
        message = pb.Hello(client="c" * TEXT_BYTES_MAX, features=features, token=target.token)
        reply: pb.HelloReply = await peer.ask(FrameType.HELLO, message)
        same("the features in force", [], list(reply.features))


@case(41, ErrorCode.UNAUTHORIZED)
async def the_longest_token(target: Target) -> None:
    """A token of 1,024 bytes is no malformed one: it is right, wrong or not asked for."""
    async with target.connection() as peer:
        frame, cookie = peer.frame(FrameType.HELLO, pb.Hello(token="t" * TOKEN_BYTES_MAX))
        await peer.send(frame)
        event = await peer.answer(cookie)
        code = event.message.code if event.type is FrameType.ERROR else ErrorCode.UNAUTHORIZED
        same("the answer's code, if it is an ERROR", ErrorCode.UNAUTHORIZED, ErrorCode(code))


@case(42, needs=("page-checksums",))
async def pages_at_the_limit(target: Target) -> None:
    """Pages may have 256 checksums, and an offset of 2^63-1."""
    async with target.session("page-checksums") as peer:
        upload = (await peer.create(target.name())).upload
        message = pb.Pages(offset=TOO_FAR - 1, page_crc32c=range(PAGES_MAX))
        await peer.send(raw(FrameType.PAGES, message.SerializeToString(), upload=upload))
        await peer.no_notice()
