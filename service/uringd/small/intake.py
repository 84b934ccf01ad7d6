"""Small uploads of one session: from a request to the answer, many at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uringd.small.memory import Share
from uringd.small.put import BACKEND, Put
from uringd.upload_errors import UploadError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    SMALL_BYTES_MAX,
    BadNameError,
    Durability,
    ErrorCode,
    FrameType,
    State,
    check_name,
    error_message,
)

if TYPE_CHECKING:
    from uringd.session import Session
    from uringd.small.memory import Room
    from uringd.wire import Control

FEATURE = "small-uploads"


class SmallIntake:
    """Takes one session's small uploads. `in_flight` are those without an answer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._uploads = session.server.small
        self._share = Share()
        self._coming: Room | None = None
        self.in_flight = 0

    @property
    def transport(self) -> str:
        """How the session's bytes come."""
        return self._session.transport

    async def make_room(self, length: int) -> memoryview | None:
        """Wait until a payload of `length` bytes may be received; into this memory, if it is long.

        The memory is this small upload's until it is answered.
        """
        self._coming = await self._uploads.memory.take(self._share, length)
        return self._coming.memory

    async def take(self, event: Control) -> None:
        """Have a small upload published; the answer comes by `answered`. Raises UploadError."""
        if self._coming is None:
            await self.make_room(len(event.content))
        room, self._coming = self._coming, None
        assert room is not None
        try:
            put = self._put(event, room)
        except BaseException:
            self._uploads.memory.give(self._share, room)
            raise
        self.in_flight += 1
        self._uploads.submit(put)

    def answered(self, put: Put) -> None:
        """Send the outcome, if somebody is still there to hear it."""
        session = self._session
        self.in_flight -= 1
        self._uploads.memory.give(self._share, put.room)
        if session.connection.state in {State.OPEN, State.CLOSING}:
            if put.failure is None:
                session.answer_nowait(put.cookie, FrameType.PUT, self._receipt(put))
            else:
                message = error_message(put.failure.code, put.failure.text)
                session.answer_nowait(put.cookie, FrameType.ERROR, message)
        if not self.in_flight:
            session.small_uploads_answered()

    def end(self) -> None:
        """Give back what was kept for a payload that did not come."""
        self._session.server.receiving.pop(self._session, None)
        room, self._coming = self._coming, None
        if room is not None:
            self._uploads.memory.give(self._share, room)

    def _put(self, event: Control, room: Room) -> Put:
        message: pb.Put = event.message
        session = self._session
        if FEATURE not in session.features:
            raise UploadError(ErrorCode.UNSUPPORTED, f"{FEATURE} is not in force in this session")
        if session.server.closing:
            raise UploadError(ErrorCode.SHUTTING_DOWN, "the server is shutting down")
        content = event.content
        if len(content) > SMALL_BYTES_MAX:
            text = f"a small upload of {len(content):,} bytes, at most {SMALL_BYTES_MAX:,} go"
            raise UploadError(ErrorCode.TOO_LARGE, text)
        try:
            components = check_name(message.name)
        except BadNameError as exc:
            raise UploadError(exc.code, exc.text) from exc
        return Put(
            self,
            event.cookie,
            message.name,
            components,
            content,
            event.content_crc32c,
            message.overwrite,
            message.keep_equal,
            Durability(message.durability or Durability.PUBLISHED),
            room,
            time.monotonic(),
        )

    def _receipt(self, put: Put) -> pb.Receipt:
        return pb.Receipt(
            upload_id=put.upload_id,
            name=put.name,
            size=len(put.content),
            crc32c=put.crc32c,
            durability=int(put.durability),  # type: ignore[arg-type]  # the stub's own enum
            backend=BACKEND,
            transport=self._session.transport,
            seconds=time.monotonic() - put.started,
            instance_id=self._session.server.instance_id,
            unchanged=put.unchanged,
        )
