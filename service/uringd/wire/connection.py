"""One side of a session, without I/O: bytes in, events out; messages in, bytes out.

Payloads of DATA do not pass through here. A caller that wants one copy only, from the socket into
the memory that is written to disk, reads exactly `bytes_wanted` bytes, gets a Data event, receives
`payload_remaining` bytes where it wants them, and says so with `payload_received`. A caller that
reads more than that loses nothing: what was buffered comes out by `read_payload_into`. The payload
of a PUT can be received into the memory where it stays, `put_memory`, or like that of all others.

    wanted -> receive_data -> next_event -> Control
                                         -> Data -> (read_payload_into | payload_received)*
           -> put_memory -> put_received -> next_event -> Control
"""

from google.protobuf.message import Message

from uringd.v1.uringd_pb2 import HelloReply, Put
from uringd.wire import checksum
from uringd.wire.codes import (
    DATA_BYTES_MAX,
    HEADER_BYTES,
    PUT_BYTES_MAX,
    ErrorCode,
    Flag,
    FrameType,
)
from uringd.wire.coming_put import ComingPut
from uringd.wire.content import APART_BYTES_MIN, HEAD_BYTES, content_head, split
from uringd.wire.events import NEED_DATA, ConnectionClosed, Control, Data, Event, Need
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError
from uringd.wire.header import Header, decode_header, encode_header
from uringd.wire.messages import parse, serialize
from uringd.wire.requests import OpenRequests
from uringd.wire.state import Kind, Role, State, kind_of, next_state, refusal

# Received and not yet taken: one control frame, and the header behind it. A peer can make a session
# hold no more.
BUFFER_BYTES_MAX = HEADER_BYTES + PUT_BYTES_MAX + HEADER_BYTES


class Connection:
    """The protocol state of one connection, for either side.

    chunk_bytes_max is the longest DATA payload this side takes or sends, in bytes; HELLO's reply
    lowers it on both sides to what it says. Methods that take bytes of the peer raise
    RemoteProtocolError; from then on nothing is received, and a server still sends its ERROR.
    LocalProtocolError means that this side misused the connection; nothing has changed. After
    ConnectionClosed nothing can be sent.
    """

    def __init__(self, role: Role, *, chunk_bytes_max: int = DATA_BYTES_MAX) -> None:
        if not 0 < chunk_bytes_max <= DATA_BYTES_MAX:
            raise LocalProtocolError(f"chunk_bytes_max is 1 to {DATA_BYTES_MAX:,} bytes")
        self.role = role
        self.chunk_bytes_max = chunk_bytes_max
        self.payload_remaining = 0
        self._state = State.NEW
        self._buffer = bytearray()
        self._at_end = False
        self._failure: RemoteProtocolError | None = None
        # That of a control frame whose payload is not there yet.
        self._header: Header | None = None
        self._put: ComingPut | None = None
        self._requests = OpenRequests()

    @property
    def state(self) -> State:
        """Where the session is in its life."""
        return self._state

    @property
    def bytes_wanted(self) -> int:
        """Bytes still needed for the next event: of a header, or of a control payload.

        0 when next_event has something to say, and while a DATA payload is being received.
        """
        if self.payload_remaining or self._at_end or self._failure is not None:
            return 0
        if self._state is State.CLOSED:
            return 0
        if self._put is not None:
            return self._put.remaining
        complete = HEADER_BYTES if self._header is None else self._header.payload_length
        return max(0, complete - len(self._buffer))

    @property
    def awaited_put_bytes(self) -> int:
        """Length of the payload that is to come of a PUT whose header is here, else 0.

        A server that has no room for it yet does not receive it yet.
        """
        header = self._header
        return header.payload_length if header is not None and header.is_put else 0

    @property
    def put_head_wanted(self) -> int:
        """Bytes of the awaited PUT to be received before `put_memory` can find its content."""
        if self._put is not None:
            return 0
        return max(0, min(HEAD_BYTES, self.awaited_put_bytes) - len(self._buffer))

    @property
    def bytes_acceptable(self) -> int:
        """Most bytes that receive_data takes now."""
        return BUFFER_BYTES_MAX - len(self._buffer)

    @property
    def unread(self) -> bytes:
        """What was received and not taken yet."""
        return bytes(self._buffer)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that arrived, in any pieces; b"" says that no more will.

        Raises LocalProtocolError for more than bytes_acceptable, for bytes after the end, or for
        those of a PUT that belong into `put_memory`. After the session was closed by an ERROR, what
        still arrives is thrown away.
        """
        if self._state is State.CLOSED or self._failure is not None:
            return
        if not data:
            self._at_end = True
            return
        if self._at_end:
            raise LocalProtocolError("bytes received after the end of the stream")
        if self._put is not None and self._put.remaining:
            raise LocalProtocolError(f"{self.bytes_wanted:,} bytes of a PUT go to its memory")
        if len(data) > BUFFER_BYTES_MAX - len(self._buffer):
            raise LocalProtocolError(
                f"{len(data):,} bytes received, {self.bytes_acceptable:,} can be taken: "
                "take events and payloads first"
            )
        self._buffer += data

    def put_memory(self, memory: memoryview | None = None) -> memoryview:
        """Return memory for what is still to come of the payload of the awaited PUT.

        Fill it from its begin, and say so with `put_received`. The first call for a PUT may bring
        the `memory` in which the event's content is to begin; it is used if the content is found
        (`put_head_wanted`) and fits. Otherwise memory of `awaited_put_bytes` is made; raises
        LocalProtocolError where that is 0.
        """
        if self._put is None:
            length = self.awaited_put_bytes
            if not length:
                raise LocalProtocolError("no payload of a PUT is awaited")
            self._put = ComingPut(self._buffer, length, memory)
        return self._put.rest

    def put_received(self, count: int) -> None:
        """Say that count bytes are in `put_memory`. Raises LocalProtocolError for too many."""
        remaining = 0 if self._put is None else self._put.remaining
        if self._put is None or not 0 <= count <= remaining:
            raise LocalProtocolError(f"{count:,} bytes of a PUT received, {remaining:,} remain")
        self._put.received(count)

    def next_event(self) -> Event | Need:
        """Return what arrived next, NEED_DATA if it is not whole yet.

        Raises LocalProtocolError while a DATA payload is unread, RemoteProtocolError for what the
        peer did wrong, which includes ending in the middle of a frame; it is raised again by each
        later call.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_event()
        except RemoteProtocolError as exc:
            self._failure = exc
            raise

    def read_payload_into(self, view: memoryview) -> int:
        """Move payload bytes that are buffered into view; return how many, at most its length."""
        count = min(len(view), self.payload_remaining, len(self._buffer))
        view[:count] = self._buffer[:count]
        del self._buffer[:count]
        self.payload_remaining -= count
        return count

    def payload_received(self, count: int) -> None:
        """Say that count payload bytes went from the socket to the caller's memory directly.

        Raises LocalProtocolError for more than remain, or when earlier ones are still buffered.
        """
        if not 0 <= count <= self.payload_remaining:
            raise LocalProtocolError(
                f"{count:,} payload bytes received, {self.payload_remaining:,} remain"
            )
        if count and self._buffer:
            raise LocalProtocolError("payload bytes are buffered: read_payload_into first")
        self.payload_remaining -= count

    def send_control(
        self,
        frame_type: FrameType,
        message: Message,
        *,
        cookie: int = 0,
        reply_to: int = 0,
        upload: int = 0,
    ) -> bytes:
        """Return the bytes of a control frame, and count it as sent.

        A request has its own cookie, which no other unanswered request has. A reply, or the ERROR
        that answers a request, names that one's cookie as reply_to and repeats its upload handle by
        itself. An ERROR with neither reply_to nor upload ends the session.
        Raises LocalProtocolError.
        """
        if cookie and self.role is Role.SERVER:
            raise LocalProtocolError("a server asks nothing: reply_to names what it answers")
        upload = upload or self._requests.upload_of(reply_to)
        is_reply = bool(reply_to) and frame_type is not FrameType.ERROR
        kind = kind_of(frame_type, is_reply=is_reply, cookie=cookie or reply_to, upload=upload)
        state = self._allowed(frame_type, kind)
        payload = serialize(frame_type, message, from_server=self.role is Role.SERVER)
        header = Header(
            frame_type,
            Flag.REPLY if is_reply else Flag.NONE,
            cookie or reply_to,
            upload,
            0,
            len(payload),
            checksum.crc32c(payload),
        )
        return self._sent(header, kind, state, message) + payload

    def send_put(self, message: Put, content: bytes | memoryview, *, cookie: int) -> bytes:
        """Return a PUT's frame up to its content, which the caller sends next.

        `message` is without the content; otherwise as `send_control`.
        """
        state = self._allowed(FrameType.PUT, Kind.REQUEST)
        payload = serialize(FrameType.PUT, message, from_server=self.role is Role.SERVER)
        payload += content_head(len(content))
        crc = checksum.crc32c(content, checksum.crc32c(payload))
        length = len(payload) + len(content)
        header = Header(FrameType.PUT, Flag.NONE, cookie, 0, 0, length, crc)
        return self._sent(header, Kind.REQUEST, state, message) + payload

    def send_data_header(
        self, upload: int, offset: int, length: int, crc32c: int, *, more: bool = False
    ) -> bytes:
        """Return the header of a chunk; the caller sends its length bytes of payload next.

        more promises that another frame follows the payload at once. Raises LocalProtocolError.
        """
        self._allowed(FrameType.DATA, Kind.NOTICE)
        if length > self.chunk_bytes_max:
            raise LocalProtocolError(
                f"a chunk of {length:,} bytes, {self.chunk_bytes_max:,} were agreed"
            )
        flags = Flag.MORE if more else Flag.NONE
        return encode_header(Header(FrameType.DATA, flags, 0, upload, offset, length, crc32c))

    def _next_event(self) -> Event | Need:
        if self.payload_remaining:
            if self._at_end and len(self._buffer) < self.payload_remaining:
                raise self._cut_off()
            raise LocalProtocolError(f"{self.payload_remaining:,} bytes of payload are unread")
        if self._state is State.CLOSED:
            return ConnectionClosed()
        buffer = self._buffer
        if self._header is None:
            if len(buffer) < HEADER_BYTES:
                return self._nothing_yet()
            header = decode_header(buffer)
            del buffer[:HEADER_BYTES]
            self._begin(header)
            if header.type is FrameType.DATA:
                self.payload_remaining = header.payload_length
                _, flags, _, upload, offset, length, crc = header
                return Data(upload, offset, length, crc, flags == Flag.MORE)
            self._header = header
        header = self._header
        put = self._put
        missing = header.payload_length - len(buffer) if put is None else put.remaining
        if missing > 0:
            return self._nothing_yet()
        self._header = None
        return self._finish_buffered(header) if self._put is None else self._finish_put(header)

    def _finish_buffered(self, header: Header) -> Control:
        """Take the control frame whose payload is buffered."""
        buffer = self._buffer
        with memoryview(buffer) as view:
            payload = bytes(view[: header.payload_length])
        del buffer[: header.payload_length]
        self._check_payload(header, checksum.crc32c(payload))
        content: bytes | memoryview | None = None
        rest: bytes | memoryview = payload
        if header.is_put and len(payload) >= APART_BYTES_MIN:
            rest, content = split(payload)
        return self._finish(header, bytes(rest), content)

    def _finish_put(self, header: Header) -> Control:
        """Take the PUT that was received into memory."""
        put, self._put = self._put, None
        assert put is not None
        self._check_payload(header, put.crc32c)
        if put.head is not None:
            return self._finish(header, put.head, put.view, put.content_crc32c)
        payload, content = split(put.view)
        return self._finish(header, bytes(payload), content)

    def _check_payload(self, header: Header, crc32c: int) -> None:
        if crc32c != header.payload_crc32c:
            text = f"a {header.type.name} payload differs from its checksum"
            raise RemoteProtocolError(ErrorCode.BAD_CHECKSUM, text)

    def _nothing_yet(self) -> ConnectionClosed | Need:
        if not self._at_end:
            return NEED_DATA
        if self._buffer or self._header is not None:
            raise self._cut_off()
        self._close()
        return ConnectionClosed()

    def _cut_off(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            ErrorCode.BAD_FRAME, "the connection ended in the middle of a frame"
        )

    def _begin(self, header: Header) -> State:
        """Judge a frame by its header, before its payload is there; return the state after it."""
        frame_type, _, cookie, upload, _, length, _ = header
        kind = kind_of(frame_type, is_reply=header.is_reply, cookie=cookie, upload=upload)
        state = next_state(self.role.peer, self._state, frame_type, kind)
        if state is None:
            text = refusal(self.role.peer, self._state, frame_type, kind)
            raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, text)
        if frame_type is FrameType.DATA:
            if length > self.chunk_bytes_max:
                raise RemoteProtocolError(
                    ErrorCode.TOO_LARGE,
                    f"a chunk of {length:,} bytes, at most {self.chunk_bytes_max:,} go",
                )
            return state
        problem = self._cookie_problem(kind, header)
        if problem is not None:
            raise RemoteProtocolError(*problem)
        return state

    def _finish(
        self,
        header: Header,
        payload: bytes,
        content: bytes | memoryview | None,
        content_crc32c: int | None = None,
    ) -> Control:
        message = parse(header.type, payload, from_server=self.role is Role.CLIENT)
        # Judged again: what we sent since the header came may have changed the state.
        self._done(header, self._begin(header), message)
        if content is None:
            content = message.content if isinstance(message, Put) else b""
        if content_crc32c is None:
            content_crc32c = checksum.crc32c(content)
        frame_type, _, cookie, upload, _, _, _ = header
        return Control(
            frame_type, header.is_reply, cookie, upload, message, content, content_crc32c
        )

    def _sent(self, header: Header, kind: Kind, state: State, message: Message) -> bytes:
        """Return a control frame's header, and count the frame as sent."""
        problem = self._cookie_problem(kind, header)
        if problem is not None:
            raise LocalProtocolError(problem[1])
        encoded = encode_header(header)
        self._done(header, state, message)
        return encoded

    def _done(self, header: Header, state: State, message: Message) -> None:
        """Keep what a control frame, sent or received, changes."""
        self._state = state
        if header.is_request:
            self._requests.begin(header.cookie, header.type, header.upload)
        elif header.cookie:
            self._requests.end(header.cookie)
        if isinstance(message, HelloReply):
            self.chunk_bytes_max = min(self.chunk_bytes_max, message.chunk_bytes_max)
        if state is State.CLOSED:
            self._close()

    def _close(self) -> None:
        self._state = State.CLOSED
        self._buffer.clear()
        self._put = None
        self._requests.clear()

    def _allowed(self, frame_type: FrameType, kind: Kind) -> State:
        state = next_state(self.role, self._state, frame_type, kind)
        if state is None:
            raise LocalProtocolError(refusal(self.role, self._state, frame_type, kind))
        return state

    def _cookie_problem(self, kind: Kind, header: Header) -> tuple[ErrorCode, str] | None:
        if kind is Kind.REQUEST:
            return self._requests.problem_with_request(header.cookie)
        if kind is Kind.REPLY:
            return self._requests.problem_with_reply(header.cookie, header.type, header.upload)
        return None
