"""Numbers of the wire: frame types, flags, levels, error codes and limits.

They are those of PROTOCOL.md ("Frames", "Limits", "Errors") and of protos/uringd/v1/uringd.proto;
a test holds the three against each other. Exception classes are in exceptions.py.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

# The four bytes b"URIO", read as a little-endian number.
MAGIC = 0x4F495255
# Major version, the only one in the header: all else is negotiated by features.
VERSION = 1
# One cache line, and every field naturally aligned in it.
HEADER_BYTES = 64
# Of the header: its checksum covers what stands before it.
HEADER_CRC_OFFSET = 60
# The longest control payload: holds RANGES_MAX ranges with their checksums, and a page of names.
CONTROL_BYTES_MAX = 64 * 1024
# The content of one PUT: beyond it what an upload costs besides its bytes does not count any more.
SMALL_BYTES_MAX = 1024 * 1024
# The payload of a PUT: its content, and a name with what Protocol Buffers add to them.
PUT_BYTES_MAX = SMALL_BYTES_MAX + 4096
# The longest DATA payload a server may offer: what one slot of a pool can be.
DATA_BYTES_MAX = 16 * 1024 * 1024
# The last byte a file can have room for: loff_t is signed.
OFFSET_MAX = 2**63 - 1
# Requests of one session without an answer: a client that needs more than this is not waiting.
REQUESTS_MAX = 64
# Slots of credit: more than any pool has, so a peer that names more is broken.
CREDIT_MAX = 1 << 20
# Ranges of one upload, and of one message: 1,024 x 28 bytes fit a control payload.
RANGES_MAX = 1024
# Features of one HELLO: several times what version 1 knows.
FEATURES_MAX = 32
# One feature's name, in bytes.
FEATURE_BYTES_MAX = 64
# Texts for logs and people, in bytes: one line, not a report.
TEXT_BYTES_MAX = 1024
# The token of HELLO, in bytes.
TOKEN_BYTES_MAX = 1024
# Names of files, in bytes of UTF-8: what a Linux file system takes for a component, and a path
# well below PATH_MAX so that the root fits before it.
COMPONENT_BYTES_MAX = 255
NAME_BYTES_MAX = 1024
# One life of the server: 128 random bits.
INSTANCE_ID_BYTES = 16
# 128 random bits in lower-case hexadecimal.
UPLOAD_ID_CHARS = 32
# Entries of one LIST reply; long names fill its payload before that.
LIST_ENTRIES_MAX = 1024
# What has a checksum of its own in PAGES: small against a chunk, large against a frame.
PAGE_BYTES = 64 * 1024
# Pages of the longest chunk.
PAGES_MAX = DATA_BYTES_MAX // PAGE_BYTES
# Descriptors that travel with one frame: it names one piece of memory.
DESCRIPTORS_MAX = 1


class FrameType(IntEnum):
    """What a frame is, and so what its payload holds. PROTOCOL.md, "Frames"."""

    HELLO = 1  # request: versions, features, token; the first frame of a session
    CREATE = 2  # request: begin an upload
    RESUME = 3  # request: take an upload over
    DATA = 4  # client: a chunk of an upload, raw bytes
    ACK = 5  # server: positions, and credit coming back
    SYNC = 6  # request: make durable
    COMMIT = 7  # request: publish
    ABORT = 8  # request: throw an upload away
    STAT = 9  # request: one file or upload
    LIST = 10  # request: files or uploads
    PING = 11  # request: an answer
    ERROR = 12  # server: a request, an upload or the session failed
    SHUTDOWN = 13  # server: it is leaving
    PAGES = 14  # client: the checksums of the next chunk's pages
    ATTACH = 15  # request: memory for chunks that do not pass through the stream
    PLACED = 16  # client: a chunk of an upload, which lies in shared memory
    PUT = 17  # request: a whole small file, published


class Flag(IntFlag):
    """Bits of the header's flags. PROTOCOL.md, "Header"."""

    NONE = 0
    REPLY = 1  # answers the request with the same cookie
    MORE = 2  # DATA: the sender's next frame follows at once


class Durability(IntEnum):
    """How much an acknowledgement promises. PROTOCOL.md, "Ordering and durability"."""

    UNSPECIFIED = 0  # the upload's level, or PUBLISHED
    WRITTEN = 1  # survives a crash of the server
    DURABLE = 2  # survives power loss
    PUBLISHED = 3  # durable, and so is the name


class UploadState(IntEnum):
    """Where an upload is in its life. PROTOCOL.md, "STAT"."""

    UNSPECIFIED = 0  # never sent
    RECEIVING = 1  # a session fills it
    SUSPENDED = 2  # no session holds it; it can be resumed
    COMMITTING = 3  # COMMIT is at work
    BROKEN = 4  # a write or sync failed; only ABORT is left
    PUBLISHED = 5  # COMMIT was answered, and its Receipt is kept


class MemoryMode(IntEnum):
    """Whose memory is attached. PROTOCOL.md, "Shared memory"."""

    UNSPECIFIED = 0  # never sent
    COPY = 1  # the client's; the server copies chunks out of it
    SLAB = 2  # the server's; the disk reads chunks from it


class ErrorCode(IntEnum):
    """What went wrong. The table is closed. PROTOCOL.md, "Errors"."""

    BAD_FRAME = 1  # not a frame of this protocol, or a payload that does not parse
    BAD_CHECKSUM = 2  # a header, control payload or chunk differs from its checksum
    UNSUPPORTED = 3  # a frame type or feature that this server does not have
    UNSUPPORTED_VERSION = 4  # the header's version is not spoken here
    OUT_OF_ORDER = 5  # a frame that the session or the upload does not allow now
    TOO_LARGE = 6  # a payload longer than its limit
    UNAUTHORIZED = 7  # the token is missing or wrong
    TOO_MANY_CONNECTIONS = 8  # the server has all the connections it takes
    TOO_MANY_UPLOADS = 9  # the session has all the uploads it may have at once
    TOO_MANY_REQUESTS = 10  # the session has more requests unanswered than it may
    TOO_MANY_RANGES = 11  # the upload has more separate ranges than it may
    CREDIT_EXCEEDED = 12  # DATA without credit
    BAD_NAME = 13  # a name that cannot be a file below the root
    EXISTS = 14  # the name is taken
    NOT_FOUND = 15  # no file, upload or handle like that
    BUSY = 16  # another holder has not let go of the upload yet
    NO_SPACE = 17  # the disk, a quota or the spool is full
    MISALIGNED = 18  # a chunk's offset or length is not a multiple of the alignment
    OUT_OF_RANGE = 19  # beyond the upload's size or beyond 2^63-1
    CONFLICT = 20  # other bytes, or another cut, where the upload has bytes already
    INCOMPLETE = 21  # COMMIT of an upload with holes; the error lists them
    CONTENT_MISMATCH = 22  # COMMIT's checksum is not that of the bytes received
    FENCED = 23  # a newer session holds the upload
    TIMEOUT = 24  # the peer was idle, or slower than allowed
    IO = 25  # the server could not write, sync or publish
    SHUTTING_DOWN = 26  # the server is leaving
    INTERNAL = 27  # a fault of the server itself


class Advice(NamedTuple):
    """What a client does about an error code. PROTOCOL.md, "Errors", last column."""

    retryable: bool  # the client may do next_step by itself and expect success
    next_step: str


ADVICE: dict[ErrorCode, Advice] = {
    ErrorCode.BAD_FRAME: Advice(False, "mend the client: it does not speak this protocol"),
    ErrorCode.BAD_CHECKSUM: Advice(True, "send the chunk again; a lost session: connect again"),
    ErrorCode.UNSUPPORTED: Advice(False, "do without the feature"),
    ErrorCode.UNSUPPORTED_VERSION: Advice(False, "use a client or server of the same version"),
    ErrorCode.OUT_OF_ORDER: Advice(False, "mend the client: it does not keep the order of frames"),
    ErrorCode.TOO_LARGE: Advice(False, "send payloads within the limits of HELLO and CREATE"),
    ErrorCode.UNAUTHORIZED: Advice(False, "give the token of the server's token file"),
    ErrorCode.TOO_MANY_CONNECTIONS: Advice(True, "connect again after a wait"),
    ErrorCode.TOO_MANY_UPLOADS: Advice(True, "commit or abort one, then create again"),
    ErrorCode.TOO_MANY_REQUESTS: Advice(True, "connect again and await replies before asking more"),
    ErrorCode.TOO_MANY_RANGES: Advice(True, "fill the holes, then send the chunk again"),
    ErrorCode.CREDIT_EXCEEDED: Advice(False, "mend the client: it does not wait for credit"),
    ErrorCode.BAD_NAME: Advice(False, "choose another name"),
    ErrorCode.EXISTS: Advice(False, "choose another name, or ask to overwrite"),
    ErrorCode.NOT_FOUND: Advice(False, "create the upload, or look for the right name"),
    ErrorCode.BUSY: Advice(True, "ask again after a wait"),
    ErrorCode.NO_SPACE: Advice(False, "abort; make room on the server, then upload again"),
    ErrorCode.MISALIGNED: Advice(False, "cut chunks at multiples of HELLO's alignment"),
    ErrorCode.OUT_OF_RANGE: Advice(False, "abort; create the upload with its real size"),
    ErrorCode.CONFLICT: Advice(False, "abort; upload again from a source that does not change"),
    ErrorCode.INCOMPLETE: Advice(True, "send the missing ranges, then commit again"),
    ErrorCode.CONTENT_MISMATCH: Advice(
        False, "abort; upload again from a source that does not change"
    ),
    ErrorCode.FENCED: Advice(False, "leave the upload to the newer session"),
    ErrorCode.TIMEOUT: Advice(True, "connect again; resume or upload again"),
    ErrorCode.IO: Advice(False, "abort; see the server's log, then upload again"),
    ErrorCode.SHUTTING_DOWN: Advice(True, "connect again after a wait"),
    ErrorCode.INTERNAL: Advice(False, "abort; report what the server's log says"),
}


def is_retryable(code: ErrorCode) -> bool:
    """Say whether a client may do the next step by itself and expect success."""
    return ADVICE[code].retryable


def next_step(code: ErrorCode) -> str:
    """Say in a few words what the client does next."""
    return ADVICE[code].next_step
