"""CRC32C (Castagnoli) of bytes, and of bytes put together. PROTOCOL.md, "Checksums".

A CRC is the remainder of the message, read as a polynomial over GF(2), modulo P of degree 32. So
the checksum of A followed by B needs A's checksum moved up by B's bits, a multiplication by
x^(8 * len(B)) modulo P, and B's checksum added to it: no byte of A or B is looked at again. The
start value and the final complement cancel out. Bits are reflected, as in the checksum itself: the
coefficient of x^0 is the highest bit.
"""

from functools import lru_cache

from crc32c import crc32c as _crc32c

# P without its x^32, reflected.
_POLYNOMIAL = 0x82F63B78
_ONE = 0x80000000
# Lengths whose table is kept, at 5 KiB each: an upload uses few (its chunks', its tail's).
_LENGTHS_KEPT = 256


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC32C of data, going on from value.

    Takes any contiguous buffer; from 32 KiB on, other threads run meanwhile.
    """
    return _crc32c(data, value)


def combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC32C of A + B from those of A and B and the length of B in bytes."""
    table = _table(second_length)
    return (
        table[first & 15]
        ^ table[16 | first >> 4 & 15]
        ^ table[32 | first >> 8 & 15]
        ^ table[48 | first >> 12 & 15]
        ^ table[64 | first >> 16 & 15]
        ^ table[80 | first >> 20 & 15]
        ^ table[96 | first >> 24 & 15]
        ^ table[112 | first >> 28]
        ^ second
    )


def _multiply(a: int, b: int) -> int:
    """Return a * b modulo P."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> list[int]:
    """Return x^8, x^16, x^32 ... modulo P: one for each bit of a length below 2^63."""
    square = _ONE >> 8
    squares = []
    for _ in range(63):
        squares.append(square)
        square = _multiply(square, square)
    return squares


_SQUARES = _squares()


@lru_cache(maxsize=_LENGTHS_KEPT)
def _table(length: int) -> tuple[int, ...]:
    """Return x^(8 * length) times each value of each of the eight nibbles, modulo P.

    Multiplying by a constant is linear, so a product is the sum of its nibbles' products; chunks of
    an upload are of one length, so the constant is nearly always the same.
    """
    power = _ONE
    for bit, square in enumerate(_SQUARES):
        if length >> bit & 1:
            power = _multiply(power, square)
    bits = []
    for _ in range(32):
        # From the highest bit, x^0, down: each is x times the one before.
        bits.append(power)
        power = (power >> 1) ^ _POLYNOMIAL if power & 1 else power >> 1
    bits.reverse()
    table = []
    for low in range(0, 32, 4):
        nibble = [0]
        for bit in bits[low : low + 4]:
            nibble += [product ^ bit for product in nibble]
        table += nibble
    return tuple(table)
