"""The 64 bytes before every payload. PROTOCOL.md, "Header"."""

from __future__ import annotations

import random as random_module
from typing import TYPE_CHECKING

from tests.fuzz.frames import mutate_frames
from tests.fuzz.targets.target import Target
from tests.fuzz.vectors import vectors
from uringd.wire import HEADER_BYTES, RemoteProtocolError, decode_header, encode_header

if TYPE_CHECKING:
    from tests.fuzz.frames import Blind


def run(data: bytes) -> None:
    """A header is refused, or it is what encoding it makes again, from any kind of buffer."""
    wire = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
    try:
        header = decode_header(wire)
    except RemoteProtocolError as exc:
        assert exc.text
        return
    assert encode_header(header) == wire
    assert decode_header(memoryview(bytearray(wire + b"more"))) == header


def mutate(data: bytes, size_max: int, seed: int, blind: Blind) -> bytes:
    """Change fields, seldom anything else, and make the checksum right."""
    if random_module.Random(seed).randrange(16):
        return mutate_frames(data[:HEADER_BYTES], size_max, seed, blind)[:HEADER_BYTES]
    return blind(data, size_max)


def seeds() -> dict[str, bytes]:
    return {vector.name: vector.frame[:HEADER_BYTES] for vector in vectors()}


TARGET = Target("header", run, seeds, mutate=mutate, bytes_max=HEADER_BYTES)
