"""Messages that may be sent, made from the .proto file's own descriptors.

A field or message that the protocol gains is covered by itself: what a field may hold is guessed
from its type, and `serialize` says whether the guess is legal. Only a field whose form its type
does not tell needs a line in FORMS; `example` says so where one is missing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    DATA_BYTES_MAX,
    OFFSET_MAX,
    SMALL_BYTES_MAX,
    FrameType,
    LocalProtocolError,
    serialize,
)
from uringd.wire.messages import FROM_CLIENT, FROM_SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from google.protobuf.message import Message

Field = Any
"""A FieldDescriptor; each implementation of Protocol Buffers has a class of its own."""

CHUNK_BYTES_MAX = 1 << 20
"""What the first example of HELLO's reply grants, and most chunks stay below."""
REPEATED_MAX = 4
"""Entries of a repeated field; the limits themselves are tested in test_messages.py."""

FEATURES = ("resume", "lanes", "page-checksums", "small-uploads")
"""What the example of HELLO asks for, and its reply brings into force."""

FORMS: dict[str, tuple[Any, ...]] = {
    "instance_id": (bytes(range(16)), bytes(16)),
    "upload_id": ("00112233445566778899aabbccddeeff", "f" * 32),
    "features": (*FEATURES, "unknown"),
    "chunk_bytes_max": (CHUNK_BYTES_MAX, 1, 4096, DATA_BYTES_MAX),
    "chunk_bytes": (CHUNK_BYTES_MAX, 1, 4096, DATA_BYTES_MAX),
    "small_bytes_max": (SMALL_BYTES_MAX, 0, 1),
    "name": ("directory/file", "a", "", "../outside", "é" * 100),
}
"""By field name; the first value is the example's."""

TEXTS = ("text", "", "ä\u202e\n", "x" * 64)
BYTES = (bytes(16), b"", b"\xff", bytes(4))
REALS = (0.5, 0.0, -1.0, float("inf"), 1e300)
NUMBERS = (1, 0, 2, 4096, CHUNK_BYTES_MAX, (1 << 32) - 1, OFFSET_MAX)
BITS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT64: 63,
}


def carried() -> list[tuple[FrameType, bool]]:
    """Return every type that carries a message, and whether the server is who sends it."""
    return [(t, False) for t in FROM_CLIENT] + [(t, True) for t in FROM_SERVER]


def class_of(frame_type: FrameType, *, from_server: bool) -> type[Message]:
    return (FROM_SERVER if from_server else FROM_CLIENT)[frame_type]


@functools.cache
def _example(frame_type: FrameType, from_server: bool) -> bytes:  # noqa: FBT001
    said = ""
    for message in _guesses(class_of(frame_type, from_server=from_server)):
        try:
            return serialize(frame_type, message, from_server=from_server)
        except LocalProtocolError as exc:
            said = said or str(exc)
    raise AssertionError(f"FORMS lacks a field of {frame_type.name}: {said}")


def example(frame_type: FrameType, *, from_server: bool) -> Message:
    """Return a message of that frame with every field set (of a oneof: the last)."""
    return class_of(frame_type, from_server=from_server).FromString(
        _example(frame_type, from_server)
    )


def message_of(random: Random, frame_type: FrameType, *, from_server: bool) -> Message:
    """Return any legal message of that frame."""
    message = example(frame_type, from_server=from_server)
    for _ in message.DESCRIPTOR.fields:
        message = changed(random, frame_type, message, from_server=from_server)
    return message


def changed(
    random: Random, frame_type: FrameType, message: Message, *, from_server: bool
) -> Message:
    """Return the message with one field changed or cleared, or as it was if that is not legal."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return message
    field: Field = random.choice(fields)
    other = type(message)()
    other.CopyFrom(message)
    other.ClearField(field.name)
    if random.randrange(3):
        _set(other, field, _values(random, field))
    try:
        serialize(frame_type, other, from_server=from_server)
    except LocalProtocolError:
        return message
    return other


def _guesses(message_class: type[Message]) -> Iterator[Message]:
    """Yield the message with all fields set, then with one of them otherwise, or not set."""
    yield _filled(message_class)
    for field in message_class.DESCRIPTOR.fields:
        scalar = field.message_type is None and field.enum_type is None
        for values in [*([value] for value in (_candidates(field) if scalar else ())), []]:
            message = _filled(message_class)
            message.ClearField(field.name)
            if values:
                _set(message, field, values)
            yield message


def _filled(message_class: type[Message]) -> Message:
    message = message_class()
    for field in message.DESCRIPTOR.fields:
        _set(message, field, list(FEATURES) if field.name == "features" else [_first(field)])
    return message


@functools.cache
def _is_repeated(field: Field) -> bool:
    """Say so, by what the field can do: how descriptors say it changes between versions."""
    return hasattr(getattr(GetMessageClass(field.containing_type)(), field.name), "extend")


def _set(message: Message, field: Field, values: list[Any]) -> None:
    if _is_repeated(field):
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(values[0])
    else:
        setattr(message, field.name, values[0])


def _first(field: Field) -> Any:
    if field.message_type is not None:
        return _filled(GetMessageClass(field.message_type))
    if field.enum_type is not None:
        return field.enum_type.values[1].number
    return _candidates(field)[0]


def _values(random: Random, field: Field) -> list[Any]:
    count = random.randrange(REPEATED_MAX + 1) if _is_repeated(field) else 1
    if field.message_type is pb.Range.DESCRIPTOR:
        return _ranges(random, count)
    return [_value(random, field) for _ in range(count)]


def _value(random: Random, field: Field) -> Any:
    if field.message_type is not None:
        part = _filled(GetMessageClass(field.message_type))
        for inner in field.message_type.fields:
            part.ClearField(inner.name)
            _set(part, inner, _values(random, inner))
        return part
    if field.enum_type is not None:
        return random.choice(field.enum_type.values).number
    bits = BITS.get(field.cpp_type)
    if bits is not None and random.randrange(2):
        return random.getrandbits(random.randrange(1, bits + 1))
    return random.choice(_candidates(field))


def _candidates(field: Field) -> tuple[Any, ...]:
    """Return values for a field; the first is the one that is likely to be legal."""
    if field.name in FORMS:
        return FORMS[field.name]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return (True, False)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return REALS
        case FieldDescriptor.CPPTYPE_STRING:
            return BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
    return tuple(number for number in NUMBERS if number < 1 << BITS[field.cpp_type])


def _ranges(random: Random, count: int) -> list[pb.Range]:
    """Return ranges by rising offset, none overlapping."""
    ranges, position = [], 0
    for _ in range(count):
        offset = position + random.getrandbits(random.randrange(1, 40))
        length = 1 + random.getrandbits(random.randrange(1, 40))
        crc32c = random.getrandbits(32) if random.randrange(2) else None
        ranges.append(pb.Range(offset=offset, length=length, crc32c=crc32c))
        position = offset + length
    return ranges
