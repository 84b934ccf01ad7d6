"""A session: one connection's life on the server, from HELLO to the end of its holds.

Frames are handled one after another, in the order they came. Chunks go to the disk in the
background; everything else is answered before the next frame is read. What goes wrong costs, by
PROTOCOL.md, the request, the upload or the session, never another session.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.acknowledging import Acknowledgements
from uringd.descriptors import DescriptorReceiver
from uringd.greeting import admit, welcome
from uringd.handles import Handles
from uringd.intake import Intake
from uringd.moving import Moved, retrace
from uringd.others import HeldElsewhereError
from uringd.patience import Patience
from uringd.placing import MODES, Placing
from uringd.receiver import Receiver
from uringd.requests import answer
from uringd.sender import PeerGoneError, Sender
from uringd.small.intake import SmallIntake
from uringd.upload_errors import UploadError, fenced
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    RemoteProtocolError,
    Role,
    State,
    error_message,
)
from uringio.exceptions import BrokenError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from uringd.records import ReceiptRecord
    from uringd.server import Server
    from uringd.uploads import Upload

log = structlog.get_logger("uringd.session")

LAST_WORDS_TIMEOUT_S = 5.0
"""What a client may take to receive the frames that were queued when its session ended."""

DRAIN_S = 1.0
"""For what a client still sends behind our ERROR (PROTOCOL.md, "ERROR"): closed with unread bytes,
a TCP socket is reset, and the ERROR may never be read."""


class Session:
    """Serves one connection. `transport` is "tcp" or "unix", `peer` names the client in the log."""

    def __init__(
        self,
        server: Server,
        socket: trio.socket.SocketType,
        transport: str,
        peer: str,
        moved: Moved | None = None,
    ) -> None:
        settings = server.settings
        self.server = server
        self.transport = transport
        self.peer = peer
        self.features: frozenset[str] = frozenset()
        self.handles = Handles(self)
        self.placing: Placing | None = None
        self.connection = Connection(Role.SERVER, chunk_bytes_max=server.slot_bytes)
        self.small = SmallIntake(self)
        self.receiver = Receiver(socket, self.connection, self._make_room)
        self._sender = Sender(socket, self._acknowledge, settings.send_timeout_s)
        granted = server.credit if moved is None else moved.credit
        self.acks = Acknowledgements(granted, self._sender.wake)
        self._moved = moved
        self._destination: tuple[str, Moved] | None = None
        self._intake = Intake(self)
        self._socket = socket
        self._scope = trio.CancelScope()
        self._watchdog = trio.CancelScope()
        self._parting = trio.CancelScope()
        self._patience = ""
        self._is_idle = False
        self._end = "the client closed the connection"
        self._drain = False

    async def run(self) -> None:
        """Serve until the connection ends, and let go of its uploads. Never raises."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            with self._scope:
                await self._receive()
            # Unfinished uploads first: that needs nobody's patience.
            for hold in list(self.handles.holds.values()):
                await self.server.registry.let_go(hold.upload, hold, self._end)
            self.handles.holds.clear()
            if self.placing is not None:
                self.placing.close()
            self.small.end()
            self._sender.end()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_TIMEOUT_S
        if self._destination is not None and not nursery.cancel_scope.cancelled_caught:
            await self.server.others.move(self._socket.fileno(), *self._destination)
        if self._drain:
            with self._parting:
                await self.receiver.drain(DRAIN_S)

    def begin_shutdown(self) -> None:
        """Tell the client that the server is leaving, and end here if nothing is unfinished."""
        if self.server.retiring and self.connection.state is State.NEW:
            return  # another worker is there for it: it is told so when it has said HELLO
        if self.connection.state is State.OPEN:
            deadline_ms = int(self.server.settings.shutdown_timeout_s * 1000)
            message = pb.Shutdown(deadline_ms=deadline_ms, reason="the server is shutting down")
            self._sender.put_nowait(self.connection.send_control(FrameType.SHUTDOWN, message))
        self.leave_if_done()

    def small_uploads_answered(self) -> None:
        """Take note that none is unanswered: from now on the client may be idle, or be left."""
        if self._is_idle:
            self._watchdog.deadline = trio.current_time() + self.server.settings.idle_timeout_s
        self.leave_if_done()

    def leave_if_done(self) -> None:
        """End here if the server leaves and nothing of this session is unfinished."""
        if self.server.closing and not self.handles.holds and not self.small.in_flight:
            self.cancel("the server is shutting down")

    def cancel(self, reason: str) -> None:
        """End the session now."""
        self._end = reason
        self._scope.cancel()

    def give_way(self) -> None:
        """End now, for somebody else's sake: nobody knows who this is."""
        self._fail(ErrorCode.TOO_MANY_CONNECTIONS, "no HELLO was taken, and others came")
        self._parting.cancel()
        self._scope.cancel()

    def end_slow_chunk(self) -> None:
        """End the session: the slot it is receiving into is wanted by others."""
        self._patience = "a chunk came too slowly while others waited for its slot"
        self._watchdog.deadline = trio.current_time()

    def remind(self) -> None:
        """Let a client whose chunks wait for the disk know that they do; it is not idle then."""
        if self.acks.remind() and self._is_idle:
            later = trio.current_time() + self.server.settings.idle_timeout_s
            self._watchdog.deadline = max(self._watchdog.deadline, later)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has begun here: no upload, no small one, no shared memory."""
        attached = self.placing is not None and self.placing.attached
        return self.handles.none_given and not self.small.in_flight and not attached

    def progressed(self, handle: int) -> None:
        """Tell the client that more of an upload is durable."""
        self.acks.tell(handle)

    def fenced(self, handle: int) -> None:
        """Tell the client that it has lost an upload to a newer epoch."""
        self.notice_nowait(handle, fenced())
        self.handles.fence(handle)

    def ended(self, handle: int, receipt: ReceiptRecord | None, reason: str) -> None:
        """Forget an upload that was published or thrown away, here or elsewhere."""
        if self.handles.holds.pop(handle, None) is None:
            return
        if receipt is None and reason:
            text = f"the upload was thrown away: {reason}"
            self.notice_nowait(handle, UploadError(ErrorCode.NOT_FOUND, text))
        elif receipt is not None and "resume" in self.features:
            self.handles.keep_receipt(receipt, handle)

    def is_news(self, upload: Upload) -> bool:
        """Whether an upload is broken and nobody was told. Lost writes end the instance."""
        if not upload.is_broken or upload.reported:
            return False
        upload.reported = True
        if upload.lost_writes:
            self.server.renew_instance()
        return True

    def patience(self, timeout_s: float, text: str) -> Patience:
        """End the session with TIMEOUT unless the client's bytes come in time: for use by `with`.

        One scope for the session, moved on: a scope of its own for each frame costs as much as the
        frame.
        """
        self._patience = text
        return Patience(self._watchdog, timeout_s)

    async def _receive(self) -> None:
        try:
            with self._watchdog:
                if self._moved is None:
                    await self._handshake()
                else:
                    self.features = frozenset(self._moved.features)
                    self._take_descriptors()
                    retrace(self.connection, self._moved)
                if self.server.retiring:
                    self.begin_shutdown()
                while await self._next_frame():
                    pass
            if self._watchdog.cancelled_caught:
                self._fail(ErrorCode.TIMEOUT, self._patience)
        except RemoteProtocolError as exc:
            self._fail(exc.code, exc.text)
        except OSError as exc:
            self._end = f"the connection broke ({exc.strerror or exc})"
        except BrokenError as exc:  # the server ends, and says why
            self._fail(ErrorCode.SHUTTING_DOWN, str(exc))
        except Exception:  # a fault of ours costs this session, never the server
            log.exception("session failed", peer=self.peer)
            self._fail(ErrorCode.INTERNAL, "the server failed: see its log")

    async def _handshake(self) -> None:
        """Take HELLO, and welcome the client or refuse it."""
        handshake_s = self.server.settings.handshake_timeout_s
        with self.patience(handshake_s, "no HELLO came"):
            event = await self.receiver.next_event()
        if not isinstance(event, Control):
            return
        try:
            self.features = admit(self.server, event.message, self.transport)
        except UploadError as exc:
            self._end = "the token was missing or wrong"
            self._drain = True
            log.warning("session refused", peer=self.peer, reason=self._end)
            await self._refuse(event.cookie, exc)
            return
        self.server.strangers.pop(self, None)
        self._take_descriptors()
        await self._reply(event, welcome(self))

    def _take_descriptors(self) -> None:
        """Receive what shared memory needs, if any of it is in force."""
        if modes := self.features.intersection(MODES):
            receiver = DescriptorReceiver(
                self._socket, self.connection, self._make_room, may_come=modes != {"slab"}
            )
            self.receiver, self.placing = receiver, Placing(self, self._intake, receiver)

    async def _next_frame(self) -> bool:
        """Handle one frame; False when there will be no more."""
        if self.connection.state is State.CLOSED:
            return False
        idle_s = self.server.settings.idle_timeout_s
        event = self.receiver.ready_event()
        if event is None:
            self._is_idle = True
            patience_s = math.inf if self.small.in_flight else idle_s
            with self.patience(patience_s, f"nothing came for {idle_s:.0f} s"):
                event = await self.receiver.next_event()
            self._is_idle = False
        if isinstance(event, ConnectionClosed):
            return False
        if isinstance(event, Data):
            self.acks.consume(event.upload)
            await self._intake.take(event)
        else:
            await self._control(event)
        if self._destination is not None:
            self._end = "another worker holds the upload"
            return False
        if self.server.closing and not self.handles.holds and not self.small.in_flight:
            self._end = "the server is shutting down"
            return False
        return True

    async def _control(self, event: Control) -> None:
        """Handle a frame that is no DATA."""
        if event.type is FrameType.PAGES:
            if "page-checksums" not in self.features:
                raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, "page-checksums is not in force")
            self._intake.expect_pages(event.upload, event.message)
        elif event.type is FrameType.PLACED:
            if self.placing is None:
                raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, "no shared memory is in force")
            self.acks.consume(event.upload)
            await self.placing.take(event)
        elif event.type is FrameType.PUT:
            self.server.receiving.pop(self, None)
            try:
                await self.small.take(event)
            except UploadError as exc:
                await self._refuse(event.cookie, exc)
        else:
            await self._request(event)

    async def _request(self, event: Control) -> None:
        try:
            reply = await answer(self, event)
        except HeldElsewhereError as exc:
            await self._move(exc.worker, event)
        except UploadError as exc:
            hold = self.handles.holds.get(event.upload)
            if hold is not None:
                self.is_news(hold.upload)
            await self._refuse(event.cookie, exc)
        else:
            await self._reply(event, reply)

    async def _move(self, worker: str, event: Control) -> None:
        """Leave, and have another worker go on, unless the client has more here than the stream."""
        try:
            self._destination = worker, Moved.of(self, event)
        except UploadError as exc:
            await self._refuse(event.cookie, exc)
        else:
            self.receiver.wake_for_anything()

    async def _make_room(self, length: int) -> memoryview | None:
        """Wait until a small upload's payload may come. Who then sends it slowly is evicted."""
        memory = await self.small.make_room(length)
        self.server.receiving[self] = trio.current_time()
        return memory

    def _acknowledge(self) -> bytes:
        """Make the ACKs that are due."""
        if self.connection.state is State.CLOSED:
            return b""
        due = self.acks.take(self.server.instance_id, self._acknowledged)
        return b"".join(
            self.connection.send_control(FrameType.ACK, ack, upload=handle) for handle, ack in due
        )

    def _acknowledged(self, handle: int) -> Upload | None:
        hold = self.handles.holds.get(handle)
        return None if hold is None else hold.upload

    async def _reply(self, event: Control, reply: object) -> None:
        frame = self.connection.send_control(
            event.type,
            reply,  # type: ignore[arg-type]  # serialize() checks the class
            reply_to=event.cookie,
        )
        if isinstance(reply, pb.AttachReply) and reply.descriptors:
            assert self.placing is not None, "it made the reply"
            self._sender.put_nowait(frame, self.placing.descriptor_to_send())
            return
        await self._sender.put(frame)

    async def _refuse(self, cookie: int, error: UploadError) -> None:
        message = error_message(error.code, error.text, offset=error.offset, missing=error.missing)
        frame = self.connection.send_control(FrameType.ERROR, message, reply_to=cookie)
        await self._sender.put(frame)

    def answer_nowait(self, cookie: int, frame_type: FrameType, message: Message) -> None:
        """Answer a request from where nothing may wait: there are REQUESTS_MAX at the most."""
        frame = self.connection.send_control(frame_type, message, reply_to=cookie)
        self._sender.put_nowait(frame)

    async def notice(self, handle: int, error: UploadError) -> None:
        """Send an ERROR about an upload or a chunk; waits while too much is unsent."""
        await self._sender.put(self._notice_frame(handle, error))

    def notice_nowait(self, handle: int, error: UploadError) -> None:
        """Send an ERROR about an upload from where nothing may wait: one for each upload."""
        if self.connection.state in {State.OPEN, State.CLOSING}:
            self._sender.put_nowait(self._notice_frame(handle, error))

    def _notice_frame(self, handle: int, error: UploadError) -> bytes:
        message = error_message(error.code, error.text, offset=error.offset, missing=error.missing)
        return self.connection.send_control(FrameType.ERROR, message, upload=handle)

    def _fail(self, code: ErrorCode, text: str) -> None:
        """End the session with an ERROR that says why."""
        self._end = f"{code.name}: {text}"
        self._drain = True
        log.warning("session ended", peer=self.peer, code=code.name, reason=text)
        if self.connection.state is not State.CLOSED:
            message = error_message(code, text)
            self._sender.put_nowait(self.connection.send_control(FrameType.ERROR, message))

    async def _send(self) -> None:
        try:
            await self._sender.run()
        except PeerGoneError as exc:
            self.cancel(str(exc))
