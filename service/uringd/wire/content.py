"""The content of a PUT, apart from its message: nobody copies it into the message or out of it.

Protocol Buffers copy a field that they write and one that they read, and that is a good part of
what a small file costs. On the wire `Put.content` is a tag, a length and the bytes, and it is the
field with the highest number. So a message is written without it, and the content behind that; and
a payload that ends with it is read as two parts. One that does not is legal too: the parser's.
Where the content begins, the payload's first bytes say: so it can be received into memory of its
own, beginning with that.
"""

from uringd.wire.codes import PUT_BYTES_MAX

APART_BYTES_MIN = 16 * 1024
"""Payloads below this are parsed whole: to copy them costs less than to look for the content."""

HEAD_BYTES = 2048
"""Of a payload: enough to find its content behind a name of any length that may be."""

# Put.content: field 15, of length-delimited bytes.
_VARINT, _BYTES = 0, 2
_CONTENT_TAG = 15 << 3 | _BYTES
# Fields before the content that are walked over: Put has four.
_FIELDS_MAX = 8
_VARINT_BYTES_MAX = 5
_NOWHERE = PUT_BYTES_MAX << 1


def content_head(length: int) -> bytes:
    """Return the tag and the length that stand before a content of `length` bytes."""
    head = bytearray((_CONTENT_TAG,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def split(payload: bytes | memoryview) -> tuple[bytes | memoryview, memoryview | None]:
    """Return a PUT's payload without its content, and the content.

    None for the content, and the payload whole, if that does not end with it, or not evidently so.
    """
    view = memoryview(payload)
    found = find_content(view, len(view))
    return (payload, None) if found is None else (view[: found[0]], view[found[1] :])


def find_content(head: bytes | memoryview, length: int) -> tuple[int, int] | None:
    """Say where the message ends and where the content begins, by the `head` of a payload.

    `length` is that of the whole payload. None if it does not evidently end with its content.
    """
    view = memoryview(head)
    at = 0
    for _ in range(_FIELDS_MAX):
        begin = at
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind not in {_VARINT, _BYTES}:
            break
        number, at = _varint(view, at)
        if kind == _BYTES:
            if tag == _CONTENT_TAG:
                return (begin, at) if at + number == length else None
            at += number
    return None


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number, and where it ends: beyond every payload if it is cut off, or too long."""
    number = 0
    for index, byte in enumerate(view[at : at + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * index
        if byte <= 0x7F:
            return number, at + index + 1
    return _NOWHERE, _NOWHERE
