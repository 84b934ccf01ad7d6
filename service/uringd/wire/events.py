"""What a Connection says has arrived. PROTOCOL.md, "Frames"."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from uringd.wire.codes import FrameType


class Need(Enum):
    """Instead of an event: there is none yet."""

    DATA = "receive more bytes"


NEED_DATA: Final = Need.DATA


@dataclass(frozen=True, slots=True)
class Control:
    """A whole control frame; its checksum and the bounds of its fields hold."""

    type: FrameType
    is_reply: bool
    cookie: int
    upload: int  # the header's handle; in a reply, that of the request
    message: Any  # the class that wire.messages has for the type and the sending side
    content: bytes | memoryview = b""  # a PUT's, which its message lacks where it is long
    content_crc32c: int = 0  # of the content


@dataclass(frozen=True, slots=True)
class Data:
    """The header of a chunk. Its payload comes next and is the caller's to read and to check."""

    upload: int
    offset: int  # byte position in the upload
    length: int  # bytes of payload, at least 1
    crc32c: int  # of the payload
    more: bool  # another frame follows at once


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The session has ended between two frames: end of stream, or an ERROR that ends it."""


Event = Control | Data | ConnectionClosed
