from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.wire.checksum import crc32c
from uringd.wire.codes import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    HEADER_BYTES,
    OFFSET_MAX,
    ErrorCode,
    Flag,
    FrameType,
)
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError
from uringd.wire.header import REQUEST_TYPES, RULES, Header, decode_header, encode_header

PING = Header(FrameType.PING, Flag.NONE, 1, 0, 0, 0, 0)
DATA = Header(FrameType.DATA, Flag.NONE, 0, 1, 0, 4096, 0x12345678)

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    frame_type = draw(st.sampled_from(FrameType))
    rule = RULES[frame_type]
    flags = draw(st.sampled_from([Flag.NONE, Flag(rule.flags)]))
    low, high = ({None: 0, True: 1, False: 0}, {None: 2**64 - 1, True: 2**64 - 1, False: 0})
    cookie = draw(st.integers(low[rule.cookie], high[rule.cookie]))
    upload = draw(st.integers(low[rule.upload], high[rule.upload]))
    offset, length = 0, draw(st.integers(0, CONTROL_BYTES_MAX))
    if frame_type is FrameType.DATA:
        length = draw(st.integers(1, DATA_BYTES_MAX))
        offset = draw(st.integers(0, OFFSET_MAX - length))
    return Header(frame_type, flags, cookie, upload, offset, length, draw(u32))


def sealed(header: bytearray) -> bytes:
    """Correct the checksum, so that what is wrong is the field that was changed."""
    pack_into("<I", header, 60, crc32c(header[:60]))
    return bytes(header)


@given(headers())
def test_every_legal_header_survives_the_round_trip(header: Header) -> None:
    data = encode_header(header)
    assert len(data) == HEADER_BYTES
    assert decode_header(data) == header


@given(headers())
def test_a_decoded_header_has_enum_members(header: Header) -> None:
    decoded = decode_header(memoryview(encode_header(header)))
    assert type(decoded.type) is FrameType and type(decoded.flags) is Flag


def test_bytes_after_the_header_are_not_looked_at() -> None:
    assert decode_header(encode_header(PING) + b"garbage") == PING


def test_the_magic_spells_urio() -> None:
    assert encode_header(PING)[:4] == b"URIO"


@given(headers(), st.integers(0, HEADER_BYTES * 8 - 1))
def test_any_flipped_bit_is_found(header: Header, bit: int) -> None:
    data = bytearray(encode_header(header))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError) as caught:
        decode_header(data)
    wanted = ErrorCode.BAD_FRAME if bit < 32 else ErrorCode.BAD_CHECKSUM
    assert caught.value.code is wanted


@given(st.binary(min_size=64, max_size=64))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_header(noise)


@given(st.binary(min_size=56, max_size=56))
def test_noise_with_magic_and_checksum_is_decoded_or_refused(noise: bytes) -> None:
    data = sealed(bytearray(b"URIO" + noise + bytes(4)))
    try:
        header = decode_header(data)
    except RemoteProtocolError:
        return
    assert encode_header(header) == data


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [
        (0, b"GET ", ErrorCode.BAD_FRAME),
        (4, b"\x00", ErrorCode.UNSUPPORTED_VERSION),
        (4, b"\x02", ErrorCode.UNSUPPORTED_VERSION),
        (5, b"\x00", ErrorCode.UNSUPPORTED),
        (5, b"\x12", ErrorCode.UNSUPPORTED),
        (5, b"\xff", ErrorCode.UNSUPPORTED),
        (6, b"\x02\x00", ErrorCode.BAD_FRAME),
        (6, b"\x04\x00", ErrorCode.BAD_FRAME),
        (6, b"\x00\x80", ErrorCode.BAD_FRAME),
        (8, bytes(8), ErrorCode.BAD_FRAME),
        (16, b"\x01", ErrorCode.BAD_FRAME),
        (24, b"\x01", ErrorCode.BAD_FRAME),
        (32, (CONTROL_BYTES_MAX + 1).to_bytes(4, "little"), ErrorCode.TOO_LARGE),
        *((at, b"\x01", ErrorCode.BAD_FRAME) for at in range(40, 60)),
    ],
)
def test_a_malformed_header_has_its_code(at: int, value: bytes, code: ErrorCode) -> None:
    data = bytearray(encode_header(PING))
    data[at : at + len(value)] = value
    with pytest.raises(RemoteProtocolError) as caught:
        decode_header(sealed(data))
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"cookie": 1}, ErrorCode.BAD_FRAME),
        ({"upload": 0}, ErrorCode.BAD_FRAME),
        ({"flags": Flag.REPLY}, ErrorCode.BAD_FRAME),
        ({"payload_length": 0}, ErrorCode.BAD_FRAME),
        ({"payload_length": DATA_BYTES_MAX + 1}, ErrorCode.TOO_LARGE),
        ({"offset": OFFSET_MAX - 4095}, ErrorCode.OUT_OF_RANGE),
        ({"offset": 2**63}, ErrorCode.OUT_OF_RANGE),
        ({"offset": 2**64 - 1}, ErrorCode.OUT_OF_RANGE),
    ],
)
def test_a_malformed_data_header_is_neither_sent_nor_taken(
    change: dict[str, int], code: ErrorCode
) -> None:
    header = DATA._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        encode_header(header)
    data = bytearray(encode_header(DATA))
    pack_into("<HQQQI", data, 6, *header[1:6])
    with pytest.raises(RemoteProtocolError) as caught:
        decode_header(sealed(data))
    assert caught.value.code is code


@pytest.mark.parametrize("change", [{"cookie": 2**64}, {"cookie": -1}, {"payload_crc32c": 2**32}])
def test_a_field_that_does_not_fit_is_our_fault(change: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_header(PING._replace(**change))  # type: ignore[arg-type]


def test_only_requests_can_be_answered() -> None:
    assert {
        FrameType.DATA,
        FrameType.ACK,
        FrameType.ERROR,
        FrameType.SHUTDOWN,
        FrameType.PAGES,
        FrameType.PLACED,
    } == set(FrameType) - REQUEST_TYPES
    assert PING.is_request and not PING.is_reply and not DATA.is_request
    assert PING._replace(flags=Flag.REPLY).is_reply
