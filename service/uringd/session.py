"""A session: one connection's life on the server, from HELLO to the end of its uploads.

Frames are handled one after another, in the order they came. Chunks go to the disk in the
background; everything else is answered before the next frame is read. What goes wrong costs, by
PROTOCOL.md, the request, the upload or the session, never another session.
"""

from __future__ import annotations

import hmac
import math
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from uringd import __version__
from uringd.config import ALIGNMENT_BYTES
from uringd.receiver import Receiver
from uringd.requests import answer
from uringd.sender import PeerGoneError, Sender
from uringd.upload_errors import UploadError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    ReceiveCredit,
    RemoteProtocolError,
    Role,
    State,
    crc32c,
    error_message,
)

if TYPE_CHECKING:
    from uringd.server import Server
    from uringd.uploads import Upload
    from uringio.lowlevel import Slot

log = structlog.get_logger("uringd.session")

ACK_SHARE = 4
"""An acknowledgement is sent when this part of the client's credit has come back: a quarter, so
that three quarters of it are on their way."""

LAST_WORDS_TIMEOUT_S = 5.0
"""What a client may take to receive the frames that were queued when its session ended."""


class Session:
    """Serves one connection. `transport` is "tcp" or "unix", `peer` names the client in the log."""

    def __init__(
        self, server: Server, socket: trio.socket.SocketType, transport: str, peer: str
    ) -> None:
        settings = server.settings
        self.server = server
        self.transport = transport
        self.peer = peer
        self.uploads: dict[int, Upload] = {}
        self.connection = Connection(Role.SERVER, chunk_bytes_max=server.slot_bytes)
        self._receiver = Receiver(socket, self.connection)
        self._sender = Sender(socket, self._acknowledge, settings.send_timeout_s)
        self._credit = ReceiveCredit(server.credit)
        self._returned: dict[int, int] = {}
        self._returned_slots = 0
        self._next_handle = 1
        self._scope = trio.CancelScope()
        self._watchdog = trio.CancelScope()
        self._patience = ""
        self._end = "the client closed the connection"
        self._drain = False

    async def run(self) -> None:
        """Serve until the connection ends. Its unfinished uploads are aborted. Never raises."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            with self._scope:
                await self._receive()
            # Unfinished uploads first: their removal needs nobody's patience.
            await self._abort_uploads()
            self._sender.end()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_TIMEOUT_S
        if self._drain:
            await self._receiver.drain(LAST_WORDS_TIMEOUT_S)

    def begin_shutdown(self) -> None:
        """Tell the client that the server is leaving, and end here if nothing is unfinished."""
        if self.connection.state is State.OPEN:
            deadline_ms = int(self.server.settings.shutdown_timeout_s * 1000)
            message = pb.Shutdown(deadline_ms=deadline_ms, reason="the server is shutting down")
            self._sender.put_nowait(self.connection.send_control(FrameType.SHUTDOWN, message))
        if not self.uploads:
            self.cancel("the server is shutting down")

    def cancel(self, reason: str) -> None:
        """End the session now."""
        self._end = reason
        self._scope.cancel()

    def end_slow_chunk(self) -> None:
        """End the session: the slot it is receiving into is wanted by others."""
        self._expect_within(0, "a chunk came too slowly while others waited for its slot")

    def add_upload(self, upload: Upload) -> int:
        """Give an upload its handle in this session."""
        handle = self._next_handle
        self._next_handle += 1
        self.uploads[handle] = upload
        self.server.uploads[upload.id] = (self, handle)
        return handle

    async def abort_upload(self, handle: int, reason: str) -> None:
        """Throw an upload away; the log says "failed" and why if its own failure came first."""
        upload = self.uploads[handle]
        failure = upload.failure
        await upload.abort()
        if handle not in self.uploads:
            return  # somebody else's abort was faster
        if failure is not None:
            self.drop_upload(handle, "failed", reason=failure.text)
        else:
            self.drop_upload(handle, "aborted", reason=reason)

    def drop_upload(self, handle: int, outcome: str, **facts: object) -> None:
        """Forget an upload that has ended, and say so in the log: one event for each."""
        upload = self.uploads.pop(handle)
        del self.server.uploads[upload.id]
        seconds = self.server.clock() - upload.started
        log.info(
            "upload",
            outcome=outcome,
            upload_id=upload.id,
            name=upload.name,
            peer=self.peer,
            transport=self.transport,
            accepted_bytes=upload.accepted,
            seconds=round(seconds, 3),
            mib_s=round(upload.accepted / 2**20 / seconds, 1) if seconds > 0 else None,
            backend=self.server.backend,
            direct=upload.direct,
            **facts,
        )

    async def _receive(self) -> None:
        try:
            with self._watchdog:
                await self._handshake()
                while await self._next_frame():
                    pass
            if self._watchdog.cancelled_caught:
                self._fail(ErrorCode.TIMEOUT, self._patience)
        except RemoteProtocolError as exc:
            self._fail(exc.code, exc.text)
        except OSError as exc:
            self._end = f"the connection broke ({exc.strerror or exc})"
        except Exception:  # a fault of ours costs this session, never the server
            log.exception("session failed", peer=self.peer)
            self._fail(ErrorCode.INTERNAL, "the server failed: see its log")

    async def _handshake(self) -> None:
        """Take HELLO, and hold its token against ours."""
        settings = self.server.settings
        event = await self._next_event(settings.handshake_timeout_s, "no HELLO came")
        if not isinstance(event, Control):
            return
        hello: pb.Hello = event.message
        ours, theirs = settings.token.encode(), hello.token.encode()
        if ours and not hmac.compare_digest(theirs, ours):
            self._end = "the token was missing or wrong"
            self._drain = True
            log.warning("session refused", peer=self.peer, reason=self._end)
            text = "the token is missing or wrong: give the server's --token-file"
            await self._refuse(event, UploadError(ErrorCode.UNAUTHORIZED, text))
            return
        reply = pb.HelloReply(
            instance_id=self.server.instance_id,
            server=f"uringd/{__version__}",
            features=[],
            chunk_bytes_max=self.server.slot_bytes,
            alignment=ALIGNMENT_BYTES,
            credit=self._credit.granted,
            uploads_max=settings.uploads_per_connection_max,
            idle_timeout_ms=int(settings.idle_timeout_s * 1000),
        )
        await self._reply(event, reply)

    async def _next_frame(self) -> bool:
        """Handle one frame; False when there will be no more."""
        if self.connection.state is State.CLOSED:
            return False
        idle_s = self.server.settings.idle_timeout_s
        event = await self._next_event(idle_s, f"nothing came for {idle_s:.0f} s")
        if isinstance(event, ConnectionClosed):
            return False
        if isinstance(event, Data):
            await self._chunk(event)
        else:
            await self._request(event)
        if self.server.closing and not self.uploads:
            self._end = "the server is shutting down"
            return False
        return True

    async def _next_event(self, timeout_s: float, text: str) -> Control | Data | ConnectionClosed:
        self._expect_within(timeout_s, text)
        event = await self._receiver.next_event()
        self._watchdog.deadline = math.inf
        return event

    def _expect_within(self, timeout_s: float, text: str) -> None:
        """End the session with TIMEOUT unless the client's bytes come in time.

        One scope for the session, moved on: a scope of its own for each frame costs as much as the
        frame.
        """
        self._patience = text
        self._watchdog.deadline = trio.current_time() + timeout_s

    async def _request(self, event: Control) -> None:
        try:
            reply = await answer(self, event)
        except UploadError as exc:
            self._is_news(event.upload)
            await self._refuse(event, exc)
        else:
            await self._reply(event, reply)

    async def _chunk(self, event: Data) -> None:
        """Receive a chunk into a slot, verify it, and hand it to its upload."""
        self._credit.consume()
        settings = self.server.settings
        limit_s = settings.speed_grace_s + event.length / settings.speed_min_bytes_s
        upload, refusal = self._judge_chunk(event)
        if upload is None:
            # A slot is for bytes that go to the disk: these are thrown away as they come.
            self._expect_within(limit_s, "a chunk came too slowly")
            await self._receiver.discard_payload()
            self._watchdog.deadline = math.inf
            self._return_credit(event.upload)
            if refusal is not None:
                await self._notice(event.upload, refusal)
            return
        slot = await self.server.acquire_slot()
        self._expect_within(limit_s, "a chunk came too slowly")
        try:
            taken = await self._receive_chunk(slot, event, upload)
        except BaseException:
            self.server.ring.slots.release(slot)
            raise
        if not taken:
            self._slot_free(event.upload, slot)

    def _judge_chunk(self, event: Data) -> tuple[Upload | None, UploadError | None]:
        """Find the upload that wants a chunk, or else what to say of it (None: nothing)."""
        upload = self.uploads.get(event.upload)
        if upload is None:
            text = f"no upload has the handle {event.upload} here"
            return None, UploadError(ErrorCode.NOT_FOUND, text)
        if upload.is_broken:
            return None, None
        try:
            upload.check_chunk(event.offset, event.length)
        except UploadError as exc:
            return None, exc
        return upload, None

    async def _receive_chunk(self, slot: Slot, event: Data, upload: Upload) -> bool:
        """Whether the upload took the slot over. Raises only what costs the session."""
        view = slot.memory[: event.length]
        self.server.receiving[self] = trio.current_time()
        try:
            await self._receiver.receive_payload(view)
        finally:
            del self.server.receiving[self]
        self._watchdog.deadline = math.inf
        if upload.is_broken:
            return False
        try:
            if crc32c(view) != event.crc32c:
                text = f"the chunk at {event.offset} differs from its checksum"
                raise UploadError(ErrorCode.BAD_CHECKSUM, text, offset=event.offset)
            free = partial(self._slot_free, event.upload)
            await upload.write(slot, event.offset, event.length, event.crc32c, free)
        except UploadError as exc:
            self._is_news(event.upload)
            await self._notice(event.upload, exc)
            return False
        return True

    def _slot_free(self, handle: int, slot: Slot) -> None:
        """Give a slot back, and its credit with the next acknowledgement."""
        self.server.ring.slots.release(slot)
        self._return_credit(handle)

    def _return_credit(self, handle: int) -> None:
        self._credit.release()
        self._returned[handle] = self._returned.get(handle, 0) + 1
        self._returned_slots += 1
        upload = self.uploads.get(handle)
        if self._is_news(handle) and upload is not None and upload.failure is not None:
            self._notice_nowait(handle, upload.failure)
        # Few frames for many chunks: but not while the client has no credit at all, and at the
        # latest with the last one, for the client may wait for all of them.
        kept_back, used = self._returned_slots, self._credit.used
        has_none = used + kept_back >= self._credit.granted
        if kept_back >= self._credit.granted // ACK_SHARE or has_none or not used:
            self._sender.wake()

    def _is_news(self, handle: int) -> bool:
        """Whether an upload is broken and nobody was told. Lost writes end the instance."""
        upload = self.uploads.get(handle)
        if upload is None or not upload.is_broken or upload.reported:
            return False
        upload.reported = True
        if upload.lost_writes:
            self.server.renew_instance()
        return True

    def _acknowledge(self) -> bytes:
        """Make the ACKs that are due: one for each upload that has news."""
        if self.connection.state is State.CLOSED:
            return b""
        frames = []
        for handle, credit in self._returned.items():
            ack = pb.Ack(instance_id=self.server.instance_id, credit=credit)
            upload = self.uploads.get(handle)
            if upload is not None:
                ack.accepted, ack.written = upload.accepted, upload.written
                ack.durable = upload.durable
            frames.append(self.connection.send_control(FrameType.ACK, ack, upload=handle))
        self._returned.clear()
        self._returned_slots = 0
        return b"".join(frames)

    async def _reply(self, event: Control, reply: object) -> None:
        frame = self.connection.send_control(
            event.type,
            reply,  # type: ignore[arg-type]  # serialize() checks the class
            reply_to=event.cookie,
        )
        await self._sender.put(frame)

    async def _refuse(self, event: Control, error: UploadError) -> None:
        message = error_message(error.code, error.text, offset=error.offset, missing=error.missing)
        frame = self.connection.send_control(FrameType.ERROR, message, reply_to=event.cookie)
        await self._sender.put(frame)

    async def _notice(self, handle: int, error: UploadError) -> None:
        await self._sender.put(self._notice_frame(handle, error))

    def _notice_nowait(self, handle: int, error: UploadError) -> None:
        if self.connection.state is not State.CLOSED:
            self._sender.put_nowait(self._notice_frame(handle, error))

    def _notice_frame(self, handle: int, error: UploadError) -> bytes:
        message = error_message(error.code, error.text, offset=error.offset)
        return self.connection.send_control(FrameType.ERROR, message, upload=handle)

    def _fail(self, code: ErrorCode, text: str) -> None:
        """End the session with an ERROR that says why."""
        self._end = f"{code.name}: {text}"
        self._drain = True
        log.warning("session ended", peer=self.peer, code=code.name, reason=text)
        if self.connection.state is not State.CLOSED:
            message = error_message(code, text)
            self._sender.put_nowait(self.connection.send_control(FrameType.ERROR, message))

    async def _abort_uploads(self) -> None:
        for handle in list(self.uploads):
            await self.abort_upload(handle, self._end)

    async def _send(self) -> None:
        try:
            await self._sender.run()
        except PeerGoneError as exc:
            self.cancel(str(exc))
