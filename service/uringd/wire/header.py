"""The 64 bytes before every payload. PROTOCOL.md, "Header".

Both directions go through one set of rules, `_problem`, so that nothing is sent that would be
refused. This is the only code of the protocol that runs for every chunk: a header is a named tuple,
and numbers become enum members by indexing, because both are several times cheaper than the usual
way (a frozen dataclass; calling the enum).
"""

from struct import Struct, error
from typing import NamedTuple

from uringd.wire.checksum import crc32c
from uringd.wire.codes import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    MAGIC,
    OFFSET_MAX,
    PUT_BYTES_MAX,
    VERSION,
    ErrorCode,
    Flag,
    FrameType,
)
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError

_WIRE = Struct("<IBBHQQQII20sI")
_COVERED = Struct("<IBBHQQQII20x")
_CRC = Struct("<I")
_RESERVED = bytes(20)
_TYPES = {int(frame_type): frame_type for frame_type in FrameType}
_REPLY = int(Flag.REPLY)
_MORE = int(Flag.MORE)
_FLAGS = tuple(Flag(bits) for bits in range(4))

# Header's fields, before its numbers are known to be members of their enums.
_Fields = tuple[int, int, int, int, int, int, int]

assert _WIRE.size == HEADER_BYTES
assert _COVERED.size == HEADER_CRC_OFFSET


class _Rule(NamedTuple):
    # A plain int: ~ of a Flag has the known bits only, and would let unknown ones pass.
    flags: int  # bits that may be set
    cookie: bool | None  # must be set, must be 0, or either
    upload: bool | None


_REQUEST = _Rule(_REPLY, cookie=True, upload=False)
_UPLOAD_REQUEST = _Rule(_REPLY, cookie=True, upload=True)

RULES: dict[FrameType, _Rule] = {
    FrameType.HELLO: _REQUEST,
    FrameType.CREATE: _REQUEST,
    FrameType.RESUME: _REQUEST,
    FrameType.DATA: _Rule(_MORE, cookie=False, upload=True),
    FrameType.ACK: _Rule(0, cookie=False, upload=None),
    FrameType.SYNC: _UPLOAD_REQUEST,
    FrameType.COMMIT: _UPLOAD_REQUEST,
    FrameType.ABORT: _Rule(_REPLY, cookie=True, upload=None),
    FrameType.STAT: _REQUEST,
    FrameType.LIST: _REQUEST,
    FrameType.PING: _REQUEST,
    FrameType.ERROR: _Rule(0, cookie=None, upload=None),
    FrameType.SHUTDOWN: _Rule(0, cookie=False, upload=False),
    FrameType.PAGES: _Rule(0, cookie=False, upload=True),
    FrameType.ATTACH: _REQUEST,
    FrameType.PLACED: _Rule(0, cookie=False, upload=True),
    FrameType.PUT: _REQUEST,
}
# By number: for the header of every frame, and cheaper than by members of the enum.
_RULES = {int(frame_type): rule for frame_type, rule in RULES.items()}


class Header(NamedTuple):
    """One header's fields, without the ones that have only one legal value."""

    type: FrameType
    flags: Flag  # Flag.NONE, REPLY or MORE
    cookie: int  # u64; 0 where the frame neither asks nor answers
    upload: int  # u64; 0 where the frame is not about an upload
    offset: int  # byte position of a DATA payload, else 0
    payload_length: int  # bytes
    payload_crc32c: int  # of the payload; 0 where there is none

    @property
    def is_reply(self) -> bool:
        """Whether the frame answers the request with the same cookie."""
        return self.flags == Flag.REPLY

    @property
    def is_request(self) -> bool:
        """Whether the frame asks for a reply."""
        return self.flags == Flag.NONE and self.type in REQUEST_TYPES

    @property
    def is_put(self) -> bool:
        """Whether the frame brings a whole small file."""
        return self.type is FrameType.PUT and self.flags == Flag.NONE


# The types that ask; the client sends them, the server answers with REPLY set.
REQUEST_TYPES = frozenset(t for t, rule in RULES.items() if rule.flags == _REPLY)


def _problem(fields: _Fields) -> tuple[ErrorCode, str] | None:  # noqa: PLR0911 - one each rule
    """Say which rule a header's fields break, if one."""
    number, flags, cookie, upload, offset, length, _ = fields
    rule = _RULES.get(number)
    if rule is None:
        return ErrorCode.UNSUPPORTED, f"there is no frame type {number}"
    if flags & ~rule.flags:
        return ErrorCode.BAD_FRAME, f"{FrameType(number).name} cannot have flags {flags:#06x}"
    if rule.cookie is not None and rule.cookie != bool(cookie):
        return ErrorCode.BAD_FRAME, _presence(number, "cookie", wanted=rule.cookie)
    if rule.upload is not None and rule.upload != bool(upload):
        return ErrorCode.BAD_FRAME, _presence(number, "upload handle", wanted=rule.upload)
    if number == FrameType.DATA:
        return _data_problem(offset, length)
    if offset:
        return ErrorCode.BAD_FRAME, f"{FrameType(number).name} cannot have an offset"
    is_put = number == FrameType.PUT and not flags
    if length > (PUT_BYTES_MAX if is_put else CONTROL_BYTES_MAX):
        return ErrorCode.TOO_LARGE, f"a control payload of {length:,} bytes, above the limit"
    return None


def _data_problem(offset: int, length: int) -> tuple[ErrorCode, str] | None:
    if not length:
        return ErrorCode.BAD_FRAME, "DATA without a payload"
    if length > DATA_BYTES_MAX:
        return ErrorCode.TOO_LARGE, f"a DATA payload of {length:,} bytes, above every limit"
    if offset + length > OFFSET_MAX:
        return ErrorCode.OUT_OF_RANGE, f"DATA ends at {offset + length:,}, past 2^63-1"
    return None


def _presence(number: int, field: str, *, wanted: bool) -> str:
    return f"{FrameType(number).name} {'needs' if wanted else 'cannot have'} a {field}"


def encode_header(header: Header) -> bytes:
    """Return the 64 bytes of a header.

    Raises LocalProtocolError where decode_header would refuse them, or a field does not fit.
    """
    problem = _problem(header)
    if problem is not None:
        raise LocalProtocolError(problem[1])
    try:
        covered = _COVERED.pack(MAGIC, VERSION, *header)
    except error as exc:
        raise LocalProtocolError(f"a field of {header} does not fit: {exc}") from exc
    return covered + _CRC.pack(crc32c(covered))


def decode_header(view: bytes | bytearray | memoryview) -> Header:
    """Return the header that the first 64 bytes of view hold.

    Raises RemoteProtocolError with the code of PROTOCOL.md, "Header": the connection is lost, for
    nothing says where the next frame would begin.
    """
    (
        magic,
        version,
        number,
        flags,
        cookie,
        upload,
        offset,
        length,
        payload_crc32c,
        reserved,
        header_crc32c,
    ) = _WIRE.unpack_from(view)
    if magic != MAGIC:
        raise RemoteProtocolError(
            ErrorCode.BAD_FRAME, f"a frame begins with b'URIO', not with {bytes(view[:4])!r}"
        )
    # Before any other field is believed, the version included: its place is the same in all.
    if crc32c(view[:HEADER_CRC_OFFSET]) != header_crc32c:
        raise RemoteProtocolError(ErrorCode.BAD_CHECKSUM, "a header differs from its checksum")
    if version != VERSION:
        raise RemoteProtocolError(
            ErrorCode.UNSUPPORTED_VERSION, f"version {version} is not spoken here, {VERSION} is"
        )
    if reserved != _RESERVED:
        raise RemoteProtocolError(ErrorCode.BAD_FRAME, "reserved bytes of a header are not zero")
    problem = _problem((number, flags, cookie, upload, offset, length, payload_crc32c))
    if problem is not None:
        raise RemoteProtocolError(*problem)
    return Header(_TYPES[number], _FLAGS[flags], cookie, upload, offset, length, payload_crc32c)
