"""What went past the relay, and whether it may: the promises of resume, held frame by frame.

The ledger believes frames only. It does not ask the server what it has, and knows nothing of the
client's code: `uploads` is everything that was ever acknowledged, whoever heard it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Any

from uringd.wire import (
    HEADER_BYTES,
    ErrorCode,
    FrameType,
    Header,
    decode_header,
)
from uringd.wire.messages import parse

Span = tuple[int, int]
"""Bytes [begin, end) of an upload."""


class BrokenPromiseError(Exception):
    """Something happened that must never happen. The text says what, with names and numbers."""


class Spans:
    """Bytes of an upload: sorted, disjoint, adjacent ones merged."""

    def __init__(self, spans: list[Span] | None = None) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for span in spans or []:
            self.add(*span)

    def __iter__(self) -> Any:
        return iter(zip(self._begins, self._ends, strict=True))

    def copy(self) -> Spans:
        return Spans(list(self))

    def add(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        first = bisect_left(self._ends, begin)
        last = bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last], self._ends[first:last] = [begin], [end]

    def overlaps(self, begin: int, end: int) -> bool:
        at = bisect_right(self._ends, begin)
        return at < len(self._begins) and self._begins[at] < end

    def covers(self, other: Spans) -> bool:
        return all(self._holds(begin, end) for begin, end in other)

    def _holds(self, begin: int, end: int) -> bool:
        at = bisect_right(self._begins, begin) - 1
        return at >= 0 and end <= self._ends[at]

    def __str__(self) -> str:
        return ", ".join(f"[{begin:,}, {end:,})" for begin, end in self) or "nothing"


@dataclass
class Known:
    """One upload as the frames had it."""

    upload_id: str
    name: str = ""
    created: bool = False  # CREATE was answered
    receipt: bool = False  # COMMIT was answered
    durable: Spans = field(default_factory=Spans)  # acknowledged, by whatever frame
    sent_bytes: int = 0  # payload of DATA that reached the relay
    resumes: int = 0
    refusal: ErrorCode | None = None  # of the last RESUME or ABORT, None when it was answered


@dataclass(frozen=True)
class Asked:
    """A request that waits for its reply."""

    type: FrameType
    upload_id: str  # empty: none, or CREATE leaves the choice to the server
    name: str  # CREATE's
    durable: Spans  # what of the upload had been acknowledged before this was asked


class Ledger:
    """All uploads that went past."""

    def __init__(self) -> None:
        self.uploads: dict[str, Known] = {}

    def known(self, upload_id: str) -> Known:
        return self.uploads.setdefault(upload_id, Known(upload_id))

    def of_name(self, name: str) -> list[Known]:
        """All uploads that were to become a file of that name, the last one last."""
        return [known for known in self.uploads.values() if known.name == name]


class Frames:
    """One direction of one connection, cut into frames; a cut frame at the end is no fault here."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._header: Header | None = None
        self._left = 0  # bytes of the payload that is going past
        self._payload = bytearray()

    def feed(self, data: bytes) -> Any:
        """Yield (header, payload) of each control frame, and (header, None) when DATA begins."""
        view = memoryview(data)
        while view:
            if self._header is None:
                count = min(HEADER_BYTES - len(self._head), len(view))
                self._head += view[:count]
                view = view[count:]
                if len(self._head) < HEADER_BYTES:
                    return
                self._header = decode_header(self._head)
                self._head = bytearray()
                self._left = self._header.payload_length
                if self._header.type is FrameType.DATA:
                    yield self._header, None
            count = min(self._left, len(view))
            if self._header.type is not FrameType.DATA:
                self._payload += view[:count]
            view = view[count:]
            self._left -= count
            if not self._left:
                header, payload = self._header, bytes(self._payload)
                self._header, self._payload = None, bytearray()
                if header.type is not FrameType.DATA:
                    yield header, payload


class Watch:
    """One connection read along: which upload its handles mean, and what was asked and answered."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._from_client = Frames()
        self._from_server = Frames()
        self._handles: dict[int, Known] = {}
        self._resumed: dict[int, Spans] = {}  # by handle: what RESUME's reply said is there
        self._asked: dict[int, Asked] = {}

    def client_sent(self, data: bytes) -> None:
        """Take bytes on their way to the server. Raises BrokenPromiseError."""
        for header, payload in self._from_client.feed(data):
            if payload is None:
                self._data(header)
            else:
                message = parse(header.type, payload, from_server=False)
                self._request(header, message)

    def server_sent(self, data: bytes) -> None:
        """Take bytes on their way to the client. Raises BrokenPromiseError."""
        for header, payload in self._from_server.feed(data):
            message: Any = parse(header.type, payload, from_server=True)
            if header.cookie and header.cookie in self._asked:
                self._answer(self._asked.pop(header.cookie), header.type, message)
            elif header.type is FrameType.ACK and header.upload in self._handles:
                self._handles[header.upload].durable.add(0, message.durable)

    def _data(self, header: Header) -> None:
        known = self._handles.get(header.upload)
        if known is None:
            raise BrokenPromiseError(f"DATA for handle {header.upload}, which nobody was given")
        end = header.offset + header.payload_length
        known.sent_bytes += header.payload_length
        there = self._resumed.get(header.upload)
        if there is not None and there.overlaps(header.offset, end):
            text = f"{known.name}: bytes [{header.offset:,}, {end:,}) were sent again, RESUME said"
            raise BrokenPromiseError(f"{text} that {there} is durable")

    def _request(self, header: Header, message: Any) -> None:
        upload_id, name = "", ""
        if header.upload in self._handles:
            upload_id = self._handles[header.upload].upload_id
        elif header.type in {FrameType.CREATE, FrameType.RESUME, FrameType.ABORT}:
            upload_id = message.upload_id
        if header.type is FrameType.CREATE:
            name = message.name
        durable = Spans()
        if upload_id:
            known = self._ledger.known(upload_id)
            known.name = name or known.name
            durable = known.durable.copy()
        self._asked[header.cookie] = Asked(header.type, upload_id, name, durable)

    def _answer(self, asked: Asked, answer: FrameType, message: Any) -> None:
        if answer is FrameType.CREATE:
            known = self._ledger.known(message.upload_id)
            known.name = asked.name
            known.created = True
            known.refusal = None
            self._handles[message.upload] = known
            return
        if not asked.upload_id:
            return
        known = self._ledger.known(asked.upload_id)
        if asked.type in {FrameType.RESUME, FrameType.ABORT}:
            known.refusal = ErrorCode(message.code) if answer is FrameType.ERROR else None
        if answer is FrameType.RESUME:
            self._resume(known, asked, message)
        elif answer is FrameType.SYNC:
            known.durable.add(0, message.durable)
        elif answer is FrameType.COMMIT:
            known.receipt = True

    def _resume(self, known: Known, asked: Asked, message: Any) -> None:
        there = Spans([(part.offset, part.offset + part.length) for part in message.durable])
        if not there.covers(asked.durable):
            text = f"{known.name}: RESUME says {there}, acknowledged as durable was {asked.durable}"
            raise BrokenPromiseError(text)
        for begin, end in there:
            known.durable.add(begin, end)
        known.resumes += 1
        known.name = known.name or message.name
        self._handles[message.upload] = known
        self._resumed[message.upload] = there
