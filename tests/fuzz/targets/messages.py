"""Control payloads: every message of both sides. PROTOCOL.md, "Messages".

The first byte is the frame's type, its highest bit the server's side; the rest is the payload.
"""

from __future__ import annotations

import random as random_module
from typing import TYPE_CHECKING

from tests.fuzz.examples import carried, example
from tests.fuzz.frames import mutate_message
from tests.fuzz.targets.target import Target
from tests.fuzz.vectors import vectors
from uringd.wire import (
    CONTROL_BYTES_MAX,
    HEADER_BYTES,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    parse,
    serialize,
)

if TYPE_CHECKING:
    from tests.fuzz.frames import Blind

FROM_SERVER = 0x80
KINDS = {frame_type | FROM_SERVER * side: (frame_type, side) for frame_type, side in carried()}


def run(data: bytes) -> None:
    """A payload is refused, or it is a message that this side may send and that arrives equal."""
    if not data or data[0] not in KINDS:
        return
    frame_type, from_server = KINDS[data[0]]
    try:
        message = parse(frame_type, data[1:], from_server=from_server)
    except RemoteProtocolError as exc:
        assert exc.code in (ErrorCode.BAD_FRAME, ErrorCode.OUT_OF_RANGE)
        return
    payload = serialize(frame_type, message, from_server=from_server)
    assert len(payload) <= CONTROL_BYTES_MAX
    assert parse(frame_type, payload, from_server=from_server) == message


def mutate(data: bytes, size_max: int, seed: int, blind: Blind) -> bytes:
    """Change a field, or bytes, or take another message."""
    random = random_module.Random(seed)
    if not data or data[0] not in KINDS or not random.randrange(32):
        data = bytes([random.choice(list(KINDS))]) + data[1:]
    if random.randrange(2):
        return data[:1] + blind(data[1:], size_max - 1)
    frame_type, from_server = KINDS[data[0]]
    changed = mutate_message(data[1:], frame_type, seed, from_server=from_server)
    return data[:1] + changed[: size_max - 1]


def seeds() -> dict[str, bytes]:
    found = {
        f"{frame_type.name.lower()}-{'reply' if side else 'request'}": bytes([first])
        + example(frame_type, from_server=side).SerializeToString()
        for first, (frame_type, side) in KINDS.items()
    }
    for vector in vectors():
        first = vector.frame[5] | FROM_SERVER * vector.from_server if len(vector.frame) > 5 else 0
        if first in KINDS and vector.frame[5] != FrameType.DATA:
            found[vector.name] = bytes([first]) + vector.frame[HEADER_BYTES:]
    return found


TARGET = Target("messages", run, seeds, mutate=mutate)
