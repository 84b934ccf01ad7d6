"""The uringd protocol without I/O: bytes <-> events, state, credit.

protos/PROTOCOL.md is normative. Imports nothing but the standard library, the checksum module and
Protocol Buffers.
"""

from uringd.wire.checksum import combine, crc32c
from uringd.wire.codes import (
    ADVICE,
    COMPONENT_BYTES_MAX,
    CONTROL_BYTES_MAX,
    CREDIT_MAX,
    DATA_BYTES_MAX,
    DESCRIPTORS_MAX,
    FEATURES_MAX,
    HEADER_BYTES,
    INSTANCE_ID_BYTES,
    LIST_ENTRIES_MAX,
    MAGIC,
    NAME_BYTES_MAX,
    OFFSET_MAX,
    PAGE_BYTES,
    PAGES_MAX,
    RANGES_MAX,
    REQUESTS_MAX,
    TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
    UPLOAD_ID_CHARS,
    VERSION,
    Durability,
    ErrorCode,
    Flag,
    FrameType,
    MemoryMode,
    UploadState,
    is_retryable,
    next_step,
)
from uringd.wire.connection import BUFFER_BYTES_MAX, Connection
from uringd.wire.credit import ReceiveCredit, SendCredit
from uringd.wire.events import NEED_DATA, ConnectionClosed, Control, Data, Event, Need
from uringd.wire.exceptions import (
    BadNameError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from uringd.wire.header import Header, decode_header, encode_header
from uringd.wire.messages import error_message, list_reply, parse, serialize
from uringd.wire.names import PRIVATE_NAME, check_name
from uringd.wire.ranges import ByteRange, Verdict, WrittenRanges
from uringd.wire.state import Role, State

__all__ = [
    "ADVICE",
    "BUFFER_BYTES_MAX",
    "COMPONENT_BYTES_MAX",
    "CONTROL_BYTES_MAX",
    "CREDIT_MAX",
    "DATA_BYTES_MAX",
    "DESCRIPTORS_MAX",
    "FEATURES_MAX",
    "HEADER_BYTES",
    "INSTANCE_ID_BYTES",
    "LIST_ENTRIES_MAX",
    "MAGIC",
    "NAME_BYTES_MAX",
    "NEED_DATA",
    "OFFSET_MAX",
    "PAGES_MAX",
    "PAGE_BYTES",
    "PRIVATE_NAME",
    "RANGES_MAX",
    "REQUESTS_MAX",
    "TEXT_BYTES_MAX",
    "TOKEN_BYTES_MAX",
    "UPLOAD_ID_CHARS",
    "VERSION",
    "BadNameError",
    "ByteRange",
    "Connection",
    "ConnectionClosed",
    "Control",
    "Data",
    "Durability",
    "ErrorCode",
    "Event",
    "Flag",
    "FrameType",
    "Header",
    "LocalProtocolError",
    "MemoryMode",
    "Need",
    "ProtocolError",
    "ReceiveCredit",
    "RemoteProtocolError",
    "Role",
    "SendCredit",
    "State",
    "UploadState",
    "Verdict",
    "WrittenRanges",
    "check_name",
    "combine",
    "crc32c",
    "decode_header",
    "encode_header",
    "error_message",
    "is_retryable",
    "list_reply",
    "next_step",
    "parse",
    "serialize",
]
