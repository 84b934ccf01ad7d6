# mypy: disable-error-code=type-arg
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_WRITTEN: _ClassVar[Durability]
    DURABILITY_DURABLE: _ClassVar[Durability]
    DURABILITY_PUBLISHED: _ClassVar[Durability]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_BAD_FRAME: _ClassVar[ErrorCode]
    ERROR_CODE_BAD_CHECKSUM: _ClassVar[ErrorCode]
    ERROR_CODE_UNSUPPORTED: _ClassVar[ErrorCode]
    ERROR_CODE_UNSUPPORTED_VERSION: _ClassVar[ErrorCode]
    ERROR_CODE_OUT_OF_ORDER: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_LARGE: _ClassVar[ErrorCode]
    ERROR_CODE_UNAUTHORIZED: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_MANY_CONNECTIONS: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_MANY_UPLOADS: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_MANY_REQUESTS: _ClassVar[ErrorCode]
    ERROR_CODE_TOO_MANY_RANGES: _ClassVar[ErrorCode]
    ERROR_CODE_CREDIT_EXCEEDED: _ClassVar[ErrorCode]
    ERROR_CODE_BAD_NAME: _ClassVar[ErrorCode]
    ERROR_CODE_EXISTS: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_FOUND: _ClassVar[ErrorCode]
    ERROR_CODE_BUSY: _ClassVar[ErrorCode]
    ERROR_CODE_NO_SPACE: _ClassVar[ErrorCode]
    ERROR_CODE_MISALIGNED: _ClassVar[ErrorCode]
    ERROR_CODE_OUT_OF_RANGE: _ClassVar[ErrorCode]
    ERROR_CODE_CONFLICT: _ClassVar[ErrorCode]
    ERROR_CODE_INCOMPLETE: _ClassVar[ErrorCode]
    ERROR_CODE_CONTENT_MISMATCH: _ClassVar[ErrorCode]
    ERROR_CODE_FENCED: _ClassVar[ErrorCode]
    ERROR_CODE_TIMEOUT: _ClassVar[ErrorCode]
    ERROR_CODE_IO: _ClassVar[ErrorCode]
    ERROR_CODE_SHUTTING_DOWN: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]

class UploadState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPLOAD_STATE_UNSPECIFIED: _ClassVar[UploadState]
    UPLOAD_STATE_RECEIVING: _ClassVar[UploadState]
    UPLOAD_STATE_SUSPENDED: _ClassVar[UploadState]
    UPLOAD_STATE_COMMITTING: _ClassVar[UploadState]
    UPLOAD_STATE_BROKEN: _ClassVar[UploadState]
    UPLOAD_STATE_PUBLISHED: _ClassVar[UploadState]

class MemoryMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_MODE_UNSPECIFIED: _ClassVar[MemoryMode]
    MEMORY_MODE_COPY: _ClassVar[MemoryMode]
    MEMORY_MODE_SLAB: _ClassVar[MemoryMode]
DURABILITY_UNSPECIFIED: Durability
DURABILITY_WRITTEN: Durability
DURABILITY_DURABLE: Durability
DURABILITY_PUBLISHED: Durability
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_BAD_FRAME: ErrorCode
ERROR_CODE_BAD_CHECKSUM: ErrorCode
ERROR_CODE_UNSUPPORTED: ErrorCode
ERROR_CODE_UNSUPPORTED_VERSION: ErrorCode
ERROR_CODE_OUT_OF_ORDER: ErrorCode
ERROR_CODE_TOO_LARGE: ErrorCode
ERROR_CODE_UNAUTHORIZED: ErrorCode
ERROR_CODE_TOO_MANY_CONNECTIONS: ErrorCode
ERROR_CODE_TOO_MANY_UPLOADS: ErrorCode
ERROR_CODE_TOO_MANY_REQUESTS: ErrorCode
ERROR_CODE_TOO_MANY_RANGES: ErrorCode
ERROR_CODE_CREDIT_EXCEEDED: ErrorCode
ERROR_CODE_BAD_NAME: ErrorCode
ERROR_CODE_EXISTS: ErrorCode
ERROR_CODE_NOT_FOUND: ErrorCode
ERROR_CODE_BUSY: ErrorCode
ERROR_CODE_NO_SPACE: ErrorCode
ERROR_CODE_MISALIGNED: ErrorCode
ERROR_CODE_OUT_OF_RANGE: ErrorCode
ERROR_CODE_CONFLICT: ErrorCode
ERROR_CODE_INCOMPLETE: ErrorCode
ERROR_CODE_CONTENT_MISMATCH: ErrorCode
ERROR_CODE_FENCED: ErrorCode
ERROR_CODE_TIMEOUT: ErrorCode
ERROR_CODE_IO: ErrorCode
ERROR_CODE_SHUTTING_DOWN: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode
UPLOAD_STATE_UNSPECIFIED: UploadState
UPLOAD_STATE_RECEIVING: UploadState
UPLOAD_STATE_SUSPENDED: UploadState
UPLOAD_STATE_COMMITTING: UploadState
UPLOAD_STATE_BROKEN: UploadState
UPLOAD_STATE_PUBLISHED: UploadState
MEMORY_MODE_UNSPECIFIED: MemoryMode
MEMORY_MODE_COPY: MemoryMode
MEMORY_MODE_SLAB: MemoryMode

class Range(_message.Message):
    __slots__ = ("offset", "length", "crc32c")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    crc32c: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., crc32c: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("client", "features", "token")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    client: str
    features: _containers.RepeatedScalarFieldContainer[str]
    token: str
    def __init__(self, client: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., token: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("instance_id", "server", "features", "chunk_bytes_max", "alignment", "credit", "uploads_max", "idle_timeout_ms", "small_bytes_max")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_MAX_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    SMALL_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    instance_id: bytes
    server: str
    features: _containers.RepeatedScalarFieldContainer[str]
    chunk_bytes_max: int
    alignment: int
    credit: int
    uploads_max: int
    idle_timeout_ms: int
    small_bytes_max: int
    def __init__(self, instance_id: _Optional[bytes] = ..., server: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., chunk_bytes_max: _Optional[int] = ..., alignment: _Optional[int] = ..., credit: _Optional[int] = ..., uploads_max: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., small_bytes_max: _Optional[int] = ...) -> None: ...

class Create(_message.Message):
    __slots__ = ("name", "size", "overwrite", "durability", "upload_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    overwrite: bool
    durability: Durability
    upload_id: str
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., overwrite: bool = ..., durability: _Optional[_Union[Durability, str]] = ..., upload_id: _Optional[str] = ...) -> None: ...

class CreateReply(_message.Message):
    __slots__ = ("upload_id", "upload", "chunk_bytes", "epoch")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    upload: int
    chunk_bytes: int
    epoch: int
    def __init__(self, upload_id: _Optional[str] = ..., upload: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("upload_id", "epoch", "join")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    epoch: int
    join: bool
    def __init__(self, upload_id: _Optional[str] = ..., epoch: _Optional[int] = ..., join: bool = ...) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ("upload", "epoch", "durable", "chunk_bytes", "name", "size", "instance_id")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    upload: int
    epoch: int
    durable: _containers.RepeatedCompositeFieldContainer[Range]
    chunk_bytes: int
    name: str
    size: int
    instance_id: bytes
    def __init__(self, upload: _Optional[int] = ..., epoch: _Optional[int] = ..., durable: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., chunk_bytes: _Optional[int] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., instance_id: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("instance_id", "accepted", "written", "durable", "credit", "released")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    instance_id: bytes
    accepted: int
    written: int
    durable: int
    credit: int
    released: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, instance_id: _Optional[bytes] = ..., accepted: _Optional[int] = ..., written: _Optional[int] = ..., durable: _Optional[int] = ..., credit: _Optional[int] = ..., released: _Optional[_Iterable[int]] = ...) -> None: ...

class Sync(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SyncReply(_message.Message):
    __slots__ = ("instance_id", "durable")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    instance_id: bytes
    durable: int
    def __init__(self, instance_id: _Optional[bytes] = ..., durable: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("size", "crc32c", "durability")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    size: int
    crc32c: int
    durability: Durability
    def __init__(self, size: _Optional[int] = ..., crc32c: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("upload_id", "name", "size", "crc32c", "durability", "backend", "direct", "transport", "seconds", "instance_id", "unchanged")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    name: str
    size: int
    crc32c: int
    durability: Durability
    backend: str
    direct: bool
    transport: str
    seconds: float
    instance_id: bytes
    unchanged: bool
    def __init__(self, upload_id: _Optional[str] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., crc32c: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ..., backend: _Optional[str] = ..., direct: bool = ..., transport: _Optional[str] = ..., seconds: _Optional[float] = ..., instance_id: _Optional[bytes] = ..., unchanged: bool = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("upload_id",)
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    def __init__(self, upload_id: _Optional[str] = ...) -> None: ...

class AbortReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Stat(_message.Message):
    __slots__ = ("name", "upload_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    upload_id: str
    def __init__(self, name: _Optional[str] = ..., upload_id: _Optional[str] = ...) -> None: ...

class StatReply(_message.Message):
    __slots__ = ("file", "upload")
    FILE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    file: FileInfo
    upload: UploadInfo
    def __init__(self, file: _Optional[_Union[FileInfo, _Mapping]] = ..., upload: _Optional[_Union[UploadInfo, _Mapping]] = ...) -> None: ...

class FileInfo(_message.Message):
    __slots__ = ("name", "size", "modified_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    modified_ns: int
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., modified_ns: _Optional[int] = ...) -> None: ...

class UploadInfo(_message.Message):
    __slots__ = ("upload_id", "name", "state", "accepted", "written", "durable", "size")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    name: str
    state: UploadState
    accepted: int
    written: int
    durable: int
    size: int
    def __init__(self, upload_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[UploadState, str]] = ..., accepted: _Optional[int] = ..., written: _Optional[int] = ..., durable: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class List(_message.Message):
    __slots__ = ("prefix", "after", "limit", "uploads")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    after: str
    limit: int
    uploads: bool
    def __init__(self, prefix: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ..., uploads: bool = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("files", "uploads", "more")
    FILES_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[FileInfo]
    uploads: _containers.RepeatedCompositeFieldContainer[UploadInfo]
    more: bool
    def __init__(self, files: _Optional[_Iterable[_Union[FileInfo, _Mapping]]] = ..., uploads: _Optional[_Iterable[_Union[UploadInfo, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "retryable", "text", "offset", "missing")
    CODE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    retryable: bool
    text: str
    offset: int
    missing: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., retryable: bool = ..., text: _Optional[str] = ..., offset: _Optional[int] = ..., missing: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Shutdown(_message.Message):
    __slots__ = ("deadline_ms", "reason")
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    reason: str
    def __init__(self, deadline_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("mode", "descriptors", "bytes", "mapped", "read_back")
    MODE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAPPED_FIELD_NUMBER: _ClassVar[int]
    READ_BACK_FIELD_NUMBER: _ClassVar[int]
    mode: MemoryMode
    descriptors: int
    bytes: int
    mapped: bool
    read_back: bool
    def __init__(self, mode: _Optional[_Union[MemoryMode, str]] = ..., descriptors: _Optional[int] = ..., bytes: _Optional[int] = ..., mapped: bool = ..., read_back: bool = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("bytes", "slot_bytes", "descriptors")
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    slot_bytes: int
    descriptors: int
    def __init__(self, bytes: _Optional[int] = ..., slot_bytes: _Optional[int] = ..., descriptors: _Optional[int] = ...) -> None: ...

class Placed(_message.Message):
    __slots__ = ("offset", "length", "crc32c", "memory_offset", "descriptors")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    MEMORY_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    crc32c: int
    memory_offset: int
    descriptors: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., crc32c: _Optional[int] = ..., memory_offset: _Optional[int] = ..., descriptors: _Optional[int] = ...) -> None: ...

class Pages(_message.Message):
    __slots__ = ("offset", "page_crc32c")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    PAGE_CRC32C_FIELD_NUMBER: _ClassVar[int]
    offset: int
    page_crc32c: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, offset: _Optional[int] = ..., page_crc32c: _Optional[_Iterable[int]] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("name", "overwrite", "keep_equal", "durability", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    KEEP_EQUAL_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    overwrite: bool
    keep_equal: bool
    durability: Durability
    content: bytes
    def __init__(self, name: _Optional[str] = ..., overwrite: bool = ..., keep_equal: bool = ..., durability: _Optional[_Union[Durability, str]] = ..., content: _Optional[bytes] = ...) -> None: ...
