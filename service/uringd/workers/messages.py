"""What workers say to each other: one question, one answer, each a packet of JSON.

The others are processes of the same server and user; still every field's type is checked, for a
worker of another version may be there while all are restarted.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PACKET_BYTES_MAX = 64 << 10
"""A packet fits a Unix socket's default buffer (208 KiB) several times."""

DESCRIBED_MAX = 256
"""Uploads that one question asks about: about 200 bytes each in the answer."""


Row = list[Any]
"""Of one upload: its id, then ROW_NUMBERS numbers."""

ROW_NUMBERS = 5


class MessageError(Exception):
    """A packet is no message of ours."""


@dataclass(frozen=True, slots=True)
class Find:
    """Whether a worker holds an upload."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """Fence an upload's sessions, make it durable, close it. `epoch` as in RESUME."""

    upload_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Throw an upload away."""

    upload_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Describe:
    """Say what is known of those of the uploads that are held."""

    upload_ids: list[str]


@dataclass(frozen=True, slots=True)
class Move:
    """Go on with a connection, whose socket comes along. As `uringd.moving.Moved`, in JSON."""

    transport: str
    peer: str
    features: list[str]
    credit: int
    chunk_bytes_max: int
    upload_id: str
    epoch: int
    cookie: int
    unread: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer to every question.

    `held`: the upload is, or was, here, and what was asked for is done. `epoch`: its new one.
    `code` and `text`: what was asked for is refused with this error. `described`: a row for each
    upload, (upload_id, state, accepted, written, durable, size or -1).
    """

    held: bool = False
    epoch: int = 0
    code: int = 0
    text: str = ""
    described: list[Row] = dataclasses.field(default_factory=list)


Question = Find | LetGo | Abort | Describe | Move

_CLASSES: dict[str, type[Any]] = {
    each.__name__: each for each in (Find, LetGo, Abort, Describe, Move, Answer)
}


def encode(message: Question | Answer) -> bytes:
    """Make a packet. Raises MessageError if it is too long."""
    packet = json.dumps([type(message).__name__, dataclasses.asdict(message)]).encode()
    if len(packet) > PACKET_BYTES_MAX:
        raise MessageError(f"a message of {len(packet):,} bytes, {PACKET_BYTES_MAX:,} go")
    return packet


def decode(packet: bytes) -> Any:
    """Take a packet apart. Raises MessageError."""
    try:
        name, values = json.loads(packet)
        message = _CLASSES[name](**values)
    except (ValueError, KeyError, TypeError) as exc:
        raise MessageError(f"no message: {exc}") from exc
    for field in dataclasses.fields(message):
        value: Any = getattr(message, field.name)
        kind = str(field.type)
        if not _KINDS[kind](value):
            raise MessageError(f"{name}.{field.name} is {value!r}")
    return message


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_row, value))


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [str] + [int] * ROW_NUMBERS


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "bool": lambda value: type(value) is bool,
    "list[str]": _is_ids,
    "list[Row]": _is_rows,
}
"""By a field's type as it is written."""
