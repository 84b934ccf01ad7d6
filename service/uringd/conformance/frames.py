"""Frames that the codec would not make: any value in any field of a header."""

from __future__ import annotations

import struct

from uringd.wire import MAGIC, VERSION, crc32c

_COVERED = struct.Struct("<IBBHQQQII20s")
_CRC = struct.Struct("<I")


def raw(
    number: int,
    payload: bytes = b"",
    *,
    magic: int = MAGIC,
    version: int = VERSION,
    flags: int = 0,
    cookie: int = 0,
    upload: int = 0,
    offset: int = 0,
    length: int | None = None,
    payload_crc: int | None = None,
    reserved: bytes = bytes(20),
    header_crc: int | None = None,
) -> bytes:
    """Return a frame of type `number`. What is not given is right, the checksums included."""
    covered = _COVERED.pack(
        magic,
        version,
        number,
        flags,
        cookie,
        upload,
        offset,
        len(payload) if length is None else length,
        crc32c(payload) if payload_crc is None else payload_crc,
        reserved,
    )
    return covered + _CRC.pack(crc32c(covered) if header_crc is None else header_crc) + payload
