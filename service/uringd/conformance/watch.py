"""What holds for every frame of a server, whatever a case is about.

The codec has looked at the frame by itself: header, checksums, bounds of fields. Here it is held
against what was said before in this session. PROTOCOL.md, "Requests and replies", "ACK", "ERROR".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from uringd.conformance.case import FailedError, holds
from uringd.wire import Control, ErrorCode, FrameType, is_retryable
from uringd.wire.requests import OpenRequests

if TYPE_CHECKING:
    from uringd.v1 import uringd_pb2 as pb


class Positions(NamedTuple):
    """An ACK's three positions."""

    accepted: int
    written: int
    durable: int


def code_of(message: pb.Error) -> ErrorCode:
    """Return an ERROR's code, which the codec has found to be one of the table."""
    return ErrorCode(message.code)


class Watch:
    """The memory of one session: what was asked, sent and acknowledged so far."""

    def __init__(self) -> None:
        self.requests = OpenRequests()
        self.granted = 0
        self.chunks_sent = 0
        self.credit_returned = 0
        self.positions: dict[int, Positions] = {}
        self._instances: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self.over = False

    @property
    def credit(self) -> int:
        """Slots that may be filled now."""
        return self.granted - self.chunks_sent + self.credit_returned

    def judge(self, event: Control) -> None:
        """Take a frame. Raises FailedError where a server must not send it now."""
        holds(not self.over, "nothing after the ERROR that ended the session", event.type.name)
        if event.type is FrameType.ERROR:
            self._error(event)
        if event.cookie:
            self._reply(event)
        elif event.type is FrameType.ACK:
            self._ack(event.upload, event.message)

    def _error(self, event: Control) -> None:
        message: pb.Error = event.message
        code = code_of(message)
        if message.retryable != is_retryable(code):
            raise FailedError(f"retryable as the table of codes has it for {code.name}", "another")
        if not event.cookie and not event.upload:
            self.over = True
        if code in {ErrorCode.NOT_FOUND, ErrorCode.FENCED} and event.upload:
            self._ended.add(event.upload)

    def _reply(self, event: Control) -> None:
        problem = self.requests.problem_with_reply(event.cookie, event.type, event.upload)
        if problem is not None:
            got = f"{event.type.name}: {problem[1]}"
            raise FailedError("a reply to an unanswered request", got)
        self.requests.end(event.cookie)
        if event.type in {FrameType.COMMIT, FrameType.ABORT}:
            self._ended.add(event.upload)

    def _ack(self, upload: int, ack: pb.Ack) -> None:
        self.credit_returned += ack.credit
        holds(
            self.credit_returned <= self.chunks_sent,
            f"at most {self.chunks_sent} slots returned, as many as chunks were sent",
            self.credit_returned,
        )
        if not upload or upload in self._ended:
            return  # its positions mean nothing
        now = Positions(ack.accepted, ack.written, ack.durable)
        holds(now.accepted >= now.written >= now.durable, "accepted >= written >= durable", now)
        before = self.positions.get(upload)
        if before is not None and self._instances[upload] == ack.instance_id:
            down = any(new < old for new, old in zip(now, before, strict=True))
            holds(not down, f"no position of ACK below {before}", now)
        self.positions[upload] = now
        self._instances[upload] = ack.instance_id
