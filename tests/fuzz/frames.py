"""Streams of frames, as a mutator sees them: take apart, change, and put right again.

A changed byte nearly always breaks a checksum, and then a fuzzer sees one line of the codec only.
So what was changed is sealed: magic, version and both checksums of each frame are made right, and
mostly its length. What the fields say may still be as wrong as it likes, but half of the streams
are mended: their headers get what their types need, so that later frames have their turn. Headers
are packed here, by PROTOCOL.md and not by the codec, which refuses to write what a mutator wants.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tests.fuzz.examples import carried, changed, class_of, message_of
from uringd.wire import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    HEADER_BYTES,
    MAGIC,
    OFFSET_MAX,
    VERSION,
    FrameType,
    crc32c,
    serialize,
)
from uringd.wire.codes import HEADER_CRC_OFFSET
from uringd.wire.header import REQUEST_TYPES, RULES

if TYPE_CHECKING:
    from random import Random

HEADER = Struct("<IBBHQQQII20x")
CRC = Struct("<I")
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
TYPE_AT, FLAGS_AT, COOKIE_AT, UPLOAD_AT, OFFSET_AT, LENGTH_AT, RESERVED_AT = 5, 6, 8, 16, 24, 32, 40
TYPE_MAX = max(FrameType)

EDGES = {
    # where a header's field is: its width in bytes, and values to try
    TYPE_AT: (1, (*FrameType, *FrameType, 0, TYPE_MAX + 1, 255)),
    FLAGS_AT: (2, (0, 1, 2, 3, 4, 1 << 15)),
    COOKIE_AT: (8, (0, 1, 2, 9, *FrameType, (1 << 64) - 1)),
    UPLOAD_AT: (8, (0, 1, 2, (1 << 64) - 1)),
    OFFSET_AT: (8, (0, 1, 4096, OFFSET_MAX - 1, OFFSET_MAX, 1 << 63, (1 << 64) - 1)),
    LENGTH_AT: (
        4,
        (0, 1, 5, CONTROL_BYTES_MAX, CONTROL_BYTES_MAX + 1, DATA_BYTES_MAX, DATA_BYTES_MAX + 1),
    ),
    RESERVED_AT: (1, (0, 0, 1)),
}
CHANGES = ("bytes", "field", "field", "message", "insert", "insert", "repeat", "remove", "shuffle")

Blind = Callable[[bytes, int], bytes]
"""Changes bytes without knowing what they are; the second argument is the most to return."""


def frame(
    frame_type: int, payload: bytes, *, flags: int = 0, cookie: int = 0, upload: int = 0
) -> bytes:
    """Return a frame with right checksums and whatever fields."""
    fields = (frame_type, flags, cookie, upload, 0, len(payload), crc32c(payload))
    covered = HEADER.pack(MAGIC, VERSION, *fields)
    return covered + CRC.pack(crc32c(covered)) + payload


def split(stream: bytes) -> list[bytearray]:
    """Cut a stream where a magic begins the next frame, whatever the lengths say."""
    frames, at = [], 0
    while at < len(stream):
        end = stream.find(MAGIC_BYTES, at + HEADER_BYTES)
        end = len(stream) if end < 0 else end
        frames.append(bytearray(stream[at:end]))
        at = end
    return frames


def seal(frames: list[bytearray], *, lengths: bool = True) -> bytes:
    """Put the frames right, with `lengths` also their payload_length; return them as one stream."""
    for part in frames:
        if len(part) < HEADER_BYTES:
            continue
        part[:5] = MAGIC_BYTES + bytes([VERSION])
        if lengths:
            CRC.pack_into(part, LENGTH_AT, len(part) - HEADER_BYTES)
        length = int.from_bytes(part[LENGTH_AT : LENGTH_AT + 4], "little")
        CRC.pack_into(part, LENGTH_AT + 4, crc32c(part[HEADER_BYTES : HEADER_BYTES + length]))
        CRC.pack_into(part, HEADER_CRC_OFFSET, crc32c(part[:HEADER_CRC_OFFSET]))
    return b"".join(frames)


def mend(frames: list[bytearray]) -> None:
    """Give each header what its type needs, and take away what its type forbids."""
    for part in frames:
        if len(part) < HEADER_BYTES or not 0 < part[TYPE_AT] <= TYPE_MAX:
            continue
        rule = RULES[FrameType(part[TYPE_AT])]
        part[FLAGS_AT : FLAGS_AT + 2] = bytes([part[FLAGS_AT] & rule.flags, 0])
        for at, wanted in ((COOKIE_AT, rule.cookie), (UPLOAD_AT, rule.upload)):
            if wanted is not None and wanted != any(part[at : at + 8]):
                part[at : at + 8] = (part[TYPE_AT] if wanted else 0).to_bytes(8, "little")
        if part[TYPE_AT] != FrameType.DATA:
            part[OFFSET_AT : OFFSET_AT + 8] = bytes(8)
        part[RESERVED_AT:HEADER_CRC_OFFSET] = bytes(HEADER_CRC_OFFSET - RESERVED_AT)


def mutate_frames(
    data: bytes, size_max: int, seed: int, blind: Blind, *, from_server: bool = False
) -> bytes:
    """Change a stream and seal it: most results get past every checksum.

    from_server says whose frames are put in; the side of those that are there is not looked at.
    """
    random = random_module.Random(seed)
    frames = split(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        match random.choice(CHANGES):
            case "bytes" if frames:
                _change_bytes(random, frames, blind)
            case "field" if frames:
                _change_field(random, random.choice(frames))
            case "message" if frames:
                _change_message(random, random.choice(frames), from_server=from_server)
            case "repeat" if frames:
                again = bytearray(random.choice(frames))
                frames += [bytearray(again) for _ in range(random.choice((1, 9)))]
            case "remove" if frames:
                del frames[random.randrange(len(frames))]
            case "shuffle":
                random.shuffle(frames)
            case _:
                at = random.randrange(len(frames) + 1)
                frames.insert(at, bytearray(any_frame(random, from_server=from_server)))
    if not random.randrange(16):
        return b"".join(frames)[:size_max]
    if random.randrange(2):
        mend(frames)
    return seal(frames, lengths=random.randrange(8) > 0)[:size_max]


def mutate_message(data: bytes, frame_type: FrameType, seed: int, *, from_server: bool) -> bytes:
    """Change one field of a payload; a payload that is no message becomes one."""
    random = random_module.Random(seed)
    try:
        message = class_of(frame_type, from_server=from_server).FromString(data)
    except DecodeError:
        return message_of(random, frame_type, from_server=from_server).SerializeToString()
    message = changed(random, frame_type, message, from_server=from_server)
    return message.SerializeToString()


def any_frame(random: Random, *, from_server: bool) -> bytes:
    """Return a legal frame of any type from that side, seldom HELLO, which is legal only once."""
    types = [frame_type for frame_type, side in carried() if side is from_server]
    if random.randrange(8):
        types.remove(FrameType.HELLO)
    if not from_server:
        types.append(FrameType.DATA)
    frame_type = random.choice(types)
    rule = RULES[frame_type]
    cookie = random.choice((1, 2, int(frame_type), int(frame_type)))
    options = {
        "cookie": cookie if rule.cookie or (rule.cookie is None and random.randrange(2)) else 0,
        "upload": 1 if rule.upload or (rule.upload is None and random.randrange(2)) else 0,
    }
    if frame_type is FrameType.DATA:
        flags = rule.flags if random.randrange(2) else 0
        return frame(frame_type, random.randbytes(8), flags=flags, **options)
    message = message_of(random, frame_type, from_server=from_server)
    payload = serialize(frame_type, message, from_server=from_server)
    is_reply = from_server and frame_type in REQUEST_TYPES
    return frame(frame_type, payload, flags=int(is_reply), **options)


def _change_bytes(random: Random, frames: list[bytearray], blind: Blind) -> None:
    """Let the fuzzer have its way with the payload of a frame, or with all of it."""
    part = random.choice(frames)
    keep = HEADER_BYTES if random.randrange(4) else 0
    part[keep:] = blind(bytes(part[keep:]), len(part) + 64)


def _change_field(random: Random, part: bytearray) -> None:
    """Set a field of a header to a value where rules begin or end."""
    at = random.choice(list(EDGES))
    width, values = EDGES[at]
    if len(part) >= HEADER_BYTES:
        part[at : at + width] = random.choice(values).to_bytes(width, "little")


def _change_message(random: Random, part: bytearray, *, from_server: bool) -> None:
    """Change one field of a payload, if it is of a type that this side sends."""
    if len(part) >= HEADER_BYTES and (part[TYPE_AT], from_server) in carried():
        part[HEADER_BYTES:] = mutate_message(
            bytes(part[HEADER_BYTES:]),
            FrameType(part[TYPE_AT]),
            random.getrandbits(32),
            from_server=from_server,
        )
