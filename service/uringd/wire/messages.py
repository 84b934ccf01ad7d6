"""Control payloads: which message a frame carries, and what it may say. PROTOCOL.md, "Messages".

Whatever fails here costs the connection: the peer does not speak the protocol. What a well-meaning
client can get wrong (a name, an id that belongs to nobody, a feature) is not looked at here but in
the session, which answers that one request.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError, EncodeError, Message

from uringd.v1 import uringd_pb2 as pb
from uringd.wire.codes import (
    CONTROL_BYTES_MAX,
    CREDIT_MAX,
    DATA_BYTES_MAX,
    DESCRIPTORS_MAX,
    FEATURE_BYTES_MAX,
    FEATURES_MAX,
    INSTANCE_ID_BYTES,
    LIST_ENTRIES_MAX,
    OFFSET_MAX,
    PAGES_MAX,
    PUT_BYTES_MAX,
    RANGES_MAX,
    SMALL_BYTES_MAX,
    TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
    UPLOAD_ID_CHARS,
    Durability,
    ErrorCode,
    FrameType,
    MemoryMode,
    UploadState,
    is_retryable,
)
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError

# What each side sends, asked for or not.
FROM_CLIENT: dict[FrameType, type[Message]] = {
    FrameType.HELLO: pb.Hello,
    FrameType.CREATE: pb.Create,
    FrameType.RESUME: pb.Resume,
    FrameType.SYNC: pb.Sync,
    FrameType.COMMIT: pb.Commit,
    FrameType.ABORT: pb.Abort,
    FrameType.STAT: pb.Stat,
    FrameType.LIST: pb.List,
    FrameType.PING: pb.Ping,
    FrameType.PAGES: pb.Pages,
    FrameType.ATTACH: pb.Attach,
    FrameType.PLACED: pb.Placed,
    FrameType.PUT: pb.Put,
}
FROM_SERVER: dict[FrameType, type[Message]] = {
    FrameType.HELLO: pb.HelloReply,
    FrameType.CREATE: pb.CreateReply,
    FrameType.RESUME: pb.ResumeReply,
    FrameType.ACK: pb.Ack,
    FrameType.SYNC: pb.SyncReply,
    FrameType.COMMIT: pb.Receipt,
    FrameType.ABORT: pb.AbortReply,
    FrameType.STAT: pb.StatReply,
    FrameType.LIST: pb.ListReply,
    FrameType.PING: pb.PingReply,
    FrameType.ERROR: pb.Error,
    FrameType.SHUTDOWN: pb.Shutdown,
    FrameType.ATTACH: pb.AttachReply,
    FrameType.PUT: pb.Receipt,
}
# Fields that a message means nothing without.
NEEDED: dict[type[Message], tuple[str, ...]] = {
    pb.HelloReply: ("instance_id", "chunk_bytes_max", "alignment", "credit", "uploads_max"),
    pb.CreateReply: ("upload_id", "upload", "chunk_bytes"),
    pb.Resume: ("upload_id",),
    pb.ResumeReply: ("upload", "epoch", "chunk_bytes", "instance_id"),
    pb.Ack: ("instance_id",),
    pb.SyncReply: ("instance_id",),
    pb.Receipt: ("upload_id", "durability", "instance_id"),
    pb.UploadInfo: ("upload_id", "state"),
    pb.Error: ("code",),
    pb.Range: ("length",),
    pb.Pages: ("page_crc32c",),
    pb.Attach: ("mode",),
    pb.AttachReply: ("bytes",),
    pb.Placed: ("length",),
}
_ENUMS: dict[str, frozenset[int]] = {
    "durability": frozenset(Durability),
    "state": frozenset(UploadState),
    "code": frozenset(ErrorCode),
    "mode": frozenset(MemoryMode),
}
# Numbers with a bound of their own; it is OFFSET_MAX for all others.
_NUMBERS_MAX: dict[str, int] = {
    "chunk_bytes_max": DATA_BYTES_MAX,
    "chunk_bytes": DATA_BYTES_MAX,
    "alignment": DATA_BYTES_MAX,
    "credit": CREDIT_MAX,
    "slot_bytes": DATA_BYTES_MAX,
    "descriptors": DESCRIPTORS_MAX,
    "small_bytes_max": SMALL_BYTES_MAX,
}
# What a ListReply needs besides its entries: its `more`, and each one's tag and length.
_LIST_MORE_BYTES = 2
_LIST_ENTRY_BYTES = 4
_HEXADECIMAL = frozenset("0123456789abcdef")


def serialize(frame_type: FrameType, message: Message, *, from_server: bool) -> bytes:
    """Return the payload, at most CONTROL_BYTES_MAX bytes, of a PUT at most PUT_BYTES_MAX.

    Raises LocalProtocolError where parse would refuse it.
    """
    wanted = (FROM_SERVER if from_server else FROM_CLIENT).get(frame_type)
    if wanted is None:
        raise LocalProtocolError(f"{frame_type.name} carries no message from this side")
    if not isinstance(message, wanted):
        given = type(message).__name__
        raise LocalProtocolError(f"{frame_type.name} carries a {wanted.__name__}, not a {given}")
    try:
        _check(message)
        payload = message.SerializeToString()
    except (RemoteProtocolError, EncodeError) as exc:
        raise LocalProtocolError(f"cannot send this {wanted.__name__}: {exc}") from exc
    limit = PUT_BYTES_MAX if wanted is pb.Put else CONTROL_BYTES_MAX
    if len(payload) > limit:
        raise LocalProtocolError(
            f"a {wanted.__name__} of {len(payload):,} bytes, at most {limit:,} go"
        )
    return payload


def parse(frame_type: FrameType, payload: bytes, *, from_server: bool) -> Message:
    """Return the message that a payload holds.

    The frame's header has been judged: that side does send this type.
    Raises RemoteProtocolError: BAD_FRAME, or OUT_OF_RANGE for a number above its bound.
    """
    wanted = (FROM_SERVER if from_server else FROM_CLIENT)[frame_type]
    try:
        message = wanted.FromString(payload)
    except DecodeError as exc:
        raise RemoteProtocolError(
            ErrorCode.BAD_FRAME, f"a {frame_type.name} payload is not a {wanted.__name__}"
        ) from exc
    _check(message)
    return message


def error_message(
    code: ErrorCode,
    text: str,
    *,
    offset: int | None = None,
    missing: Sequence[tuple[int, int]] = (),
) -> pb.Error:
    """Return an Error. text is one sentence for people, cut to fit; missing is (offset, length)."""
    cut = text.encode(errors="replace")[:TEXT_BYTES_MAX].decode(errors="ignore")
    return pb.Error(
        code=int(code),  # type: ignore[arg-type] # the stub wants its own enum, the runtime an int
        retryable=is_retryable(code),
        text=cut,
        offset=offset,
        missing=[pb.Range(offset=start, length=length) for start, length in missing[:RANGES_MAX]],
    )


def list_reply(
    *,
    files: Iterable[pb.FileInfo] = (),
    uploads: Iterable[pb.UploadInfo] = (),
    limit: int = 0,
) -> pb.ListReply:
    """Return a ListReply with as many entries as fit, and `more` if some did not.

    limit is List's: 0 for as many as one reply holds.
    """
    reply = pb.ListReply()
    room = CONTROL_BYTES_MAX - _LIST_MORE_BYTES
    count = min(limit, LIST_ENTRIES_MAX) or LIST_ENTRIES_MAX
    for entry in itertools.chain(files, uploads):
        room -= entry.ByteSize() + _LIST_ENTRY_BYTES
        if room < 0 or count == 0:
            reply.more = True
            break
        count -= 1
        if isinstance(entry, pb.FileInfo):
            reply.files.append(entry)
        elif isinstance(entry, pb.UploadInfo):
            reply.uploads.append(entry)
    return reply


def _check(message: Message) -> None:
    """Raise RemoteProtocolError for what a message of this class may not say."""
    for name in NEEDED.get(type(message), ()):
        if not getattr(message, name):
            _refuse(message, f"has no {name}")
    if isinstance(message, pb.Stat) and message.WhichOneof("subject") is None:
        _refuse(message, "asks for nothing")
    for field, value in message.ListFields():
        name = field.name
        if isinstance(value, int):
            if value > _NUMBERS_MAX.get(name, OFFSET_MAX):
                raise RemoteProtocolError(
                    ErrorCode.OUT_OF_RANGE, f"{type(message).__name__}: {name} is above its limit"
                )
            if name in _ENUMS and value not in _ENUMS[name]:
                _refuse(message, f"has {name} {value}, which is none")
        elif name == "released" and max(value) > OFFSET_MAX:
            _refuse(message, "releases memory past 2^63-1", ErrorCode.OUT_OF_RANGE)
        elif name in _CHECKS and not _CHECKS[name](value):
            _refuse(message, f"has a {name} that is malformed or too long")


def _refuse(message: Message, what: str, code: ErrorCode = ErrorCode.BAD_FRAME) -> None:
    raise RemoteProtocolError(code, f"{type(message).__name__} {what}")


def _is_text(text: str) -> bool:
    return len(text.encode()) <= TEXT_BYTES_MAX


def _is_upload_id(text: str) -> bool:
    return len(text) == UPLOAD_ID_CHARS and _HEXADECIMAL.issuperset(text)


def _are_features(features: Sequence[str]) -> bool:
    return len(features) <= FEATURES_MAX and all(
        0 < len(feature.encode()) <= FEATURE_BYTES_MAX for feature in features
    )


def _are_ranges(ranges: Sequence[pb.Range]) -> bool:
    position = 0
    for part in ranges:
        _check(part)
        if part.offset < position:
            return False
        position = part.offset + part.length
    return len(ranges) <= RANGES_MAX and position <= OFFSET_MAX


def _are_entries(entries: Sequence[Message]) -> bool:
    for entry in entries:
        _check(entry)
    return len(entries) <= LIST_ENTRIES_MAX


def _is_entry(entry: Message) -> bool:
    return _are_entries([entry])


# By field name, which means the same in every message that has it.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "instance_id": lambda value: len(value) == INSTANCE_ID_BYTES,
    "upload_id": _is_upload_id,
    "features": _are_features,
    "token": lambda value: len(value.encode()) <= TOKEN_BYTES_MAX,
    "client": _is_text,
    "server": _is_text,
    "text": _is_text,
    "reason": _is_text,
    "backend": _is_text,
    "transport": _is_text,
    "durable": _are_ranges,
    "missing": _are_ranges,
    "page_crc32c": lambda value: len(value) <= PAGES_MAX,
    "released": lambda value: len(value) <= RANGES_MAX,
    "files": _are_entries,
    "uploads": _are_entries,
    "file": _is_entry,
    "upload": _is_entry,
}
