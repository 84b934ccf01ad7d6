import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.wire.checksum import combine, crc32c

u32 = st.integers(0, 2**32 - 1)


def by_the_definition(data: bytes) -> int:
    """Divide bit by bit, with the polynomial as RFC 3720 has it, not as our code has it."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= int(f"{byte:08b}"[::-1], 2) << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x11EDC6F41 if remainder >> 31 else 0)
    return int(f"{remainder ^ 0xFFFFFFFF:032b}"[::-1], 2)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_castagnolis(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum == by_the_definition(data)


@given(st.binary(max_size=200))
def test_the_checksum_is_the_definitions(data: bytes) -> None:
    assert crc32c(data) == by_the_definition(data)


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_a_checksum_can_be_continued(first: bytes, second: bytes) -> None:
    assert crc32c(second, crc32c(first)) == crc32c(first + second)


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_combining_is_the_checksum_of_both(first: bytes, second: bytes) -> None:
    assert combine(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_combining_works_for_a_chunk_of_the_usual_length() -> None:
    first, second = b"head" * 1000, bytes(range(256)) * 4096
    assert combine(crc32c(first), crc32c(second), 1 << 20) == crc32c(first + second)


@given(u32, u32, u32, st.integers(0, 2**61), st.integers(0, 2**61))
def test_combining_is_associative_for_lengths_nobody_can_try(
    a: int, b: int, c: int, b_length: int, c_length: int
) -> None:
    left = combine(combine(a, b, b_length), c, c_length)
    assert left == combine(a, combine(b, c, c_length), b_length + c_length)


@given(u32)
def test_nothing_is_neutral(checksum: int) -> None:
    assert combine(checksum, 0, 0) == checksum == combine(0, checksum, 2**40)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_checked(kind: type) -> None:
    assert crc32c(kind(b"123456789")) == 0xE3069283
