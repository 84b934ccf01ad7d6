"""Names: each rule, in CREATE and in STAT."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uringd.conformance.case import Section, same
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.conformance.target import Target

case = SECTION = Section("NA", "Names")

BAD = [
    (1, "that is empty", ""),
    (2, "that begins with a slash", "/a"),
    (3, "that ends with a slash", "a/"),
    (4, "that is a slash", "/"),
    (5, "with an empty component", "a//b"),
    (6, "that is `.`", "."),
    (7, "with a component `.`", "a/./b"),
    (8, "that is `..`", ".."),
    (9, "with a component `..`", "a/../b"),
    (10, "that leads out of the root", "../etc/passwd"),
    (11, "with U+0000", "a\0b"),
    (12, "with U+0001", "a\x01"),
    (13, "with a line feed", "a\nb"),
    (14, "with U+001F", "\x1fa"),
    (15, "with U+007F", "a\x7f"),
    (16, "with U+0080", "a\x80b"),
    (17, "with U+009F", "a/b\x9f"),
    (18, "with a component of 256 bytes", "n" * 256),
    (19, "with a component of 256 bytes in 128 characters", "\u00fc" * 128),
    (20, "of 1,025 bytes", "/".join(["n" * 204] * 5) + "x"),
    (21, "whose first component is `.uringd`", ".uringd/spool/x"),
    (22, "that is `.uringd`", ".uringd"),
    (23, "whose first component is `.URINGD`", ".URINGD/x"),
    (24, "whose first component is `.uRiNgD`", ".uRiNgD/x"),
]
"""Numbers, what is wrong, and a name."""

assert len(BAD[19][2]) == 1025

GOOD = [
    (40, "with a component of 255 bytes", "{prefix}/" + "n" * 255),
    (41, "with U+00A0, the first behind the control characters", "{prefix}/a\u00a0b"),
    (42, "with a deeper component `.uringd`", "{prefix}/.uringd/b"),
    (43, "whose first component only begins with `.uringd`", ".uringd-{prefix}"),
    (44, "with a component `...`", "{prefix}/..."),
    (45, "with blanks, quotes and backslashes", "{prefix}/ a\\b'\"* "),
    (46, "in any script", "{prefix}/\u6587\u4ef6/\U0001f4be"),
]
"""The same; these begin an upload, and none is published."""


async def _is_bad(target: Target, name: str) -> None:
    async with target.session() as peer:
        await peer.refusal(FrameType.CREATE, pb.Create(name=name), ErrorCode.BAD_NAME)
        await peer.refusal(FrameType.STAT, pb.Stat(name=name), ErrorCode.BAD_NAME)


async def _is_good(target: Target, name: str) -> None:
    async with target.session() as peer:
        await peer.create(name.replace("{prefix}", target.prefix))


for _number, _what, _name in BAD:
    SECTION.add(
        _number,
        f"CREATE and STAT of a name {_what} are BAD_NAME, which costs the request only.",
        partial(_is_bad, name=_name),
        codes=(ErrorCode.BAD_NAME,),
    )

for _number, _what, _name in GOOD:
    SECTION.add(_number, f"CREATE takes a name {_what}.", partial(_is_good, name=_name))


@case(30, ErrorCode.BAD_NAME)
async def through_a_file(target: Target) -> None:
    """A name that would pass through something that is not a directory is BAD_NAME."""
    await _is_bad(target, await target.published() + "/below")


@case(31, ErrorCode.BAD_NAME)
async def unknown_upload_not_made(target: Target) -> None:
    """A bad name is no reason to end the session: the next CREATE is answered."""
    async with target.session() as peer:
        await peer.refusal(FrameType.CREATE, pb.Create(name=".."), ErrorCode.BAD_NAME)
        await peer.create(target.name())


@case(47)
async def the_longest(target: Target) -> None:
    """CREATE takes a name of 1,024 bytes."""
    parts = [target.prefix, *["n" * 200] * 4]
    name = "/".join(parts)
    name += "/" + "x" * (1024 - len(name) - 1)
    same("bytes", 1024, len(name))
    async with target.session() as peer:
        await peer.create(name)


@case(48, ErrorCode.NOT_FOUND)
async def nothing_is_normalized(target: Target) -> None:
    """Names are compared byte by byte: another case is another name."""
    name = await target.published()
    async with target.session() as peer:
        other = name.replace("published", "PUBLISHED")
        await peer.refusal(FrameType.STAT, pb.Stat(name=other), ErrorCode.NOT_FOUND)
        await peer.create(other)
