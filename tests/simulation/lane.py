"""One client connection, spoken by hand on the codec: it can do what no good client does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from uringd.errors import ConnectionLostError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    NEED_DATA,
    Connection,
    Control,
    ErrorCode,
    FrameType,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
    State,
    crc32c,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

FEATURES = ("resume", "lanes", "page-checksums")

ANSWER_S = 90.0
"""An answer that does not come for so long never comes: a RESUME waits for 60 s."""

LOST = (ConnectionLostError, trio.BrokenResourceError, trio.ClosedResourceError)


class Refused(Exception):  # noqa: N818  # what the server said
    """An ERROR instead of an answer."""

    def __init__(self, message: pb.Error) -> None:
        super().__init__(message.text)
        self.code = ErrorCode(message.code)
        self.text = message.text
        self.missing = [(part.offset, part.length) for part in message.missing]


class Lane:
    """A session: `handle` is its upload's, `notices` what it was told of single chunks."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.handle = 0
        self.credit = 0
        self.chunk_bytes = 0
        self.lost = ""
        self.broken: Refused | None = None
        self.fenced = False
        self.notices: dict[int, Refused] = {}
        self.instance_id = b""
        self.positions = (0, 0, 0)
        self.sent: list[tuple[int, bytes]] = []
        self.durable: Callable[[int], None] = lambda _: None
        self._world = world
        self._connection = Connection(Role.CLIENT)
        self._stream: trio.SocketStream | None = None
        self._answers: dict[int, Control | None] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._cookie = 0
        self._sending = trio.Lock()

    async def open(self, nursery: trio.Nursery) -> None:
        """Connect and say HELLO. Raises ConnectionLostError, Refused."""
        self._stream = await self._world.network.connect()
        nursery.start_soon(self._receive)
        reply = await self.ask(FrameType.HELLO, pb.Hello(client=self.name, features=FEATURES))
        self.credit = self.granted = reply.credit
        self.instance_id = reply.instance_id

    async def ask(self, kind: FrameType, message: Any, upload: int = 0) -> Any:
        """Ask and wait for the answer. Raises Refused, ConnectionLostError."""
        self._check_open()
        self._world.tally.requests += 1
        self._cookie += 1
        cookie = self._cookie
        self._answers[cookie] = None
        await self._send(self._connection.send_control(kind, message, cookie=cookie, upload=upload))
        await self._wait(lambda: self._answers[cookie] is not None)
        answer = self._answers.pop(cookie)
        assert answer is not None
        if answer.type is FrameType.ERROR:
            refused = Refused(answer.message)
            self._world.note(self.name, kind.name, refused.code.name)
            raise refused
        self._world.note(self.name, kind.name)
        return answer.message

    async def chunk(self, offset: int, data: bytes, *, crc: int, pages: bytes = b"") -> None:
        """Send a chunk once there is credit; `pages` are the bytes that its pages are to have."""
        await self._wait(lambda: self.credit > 0)
        self._check_open()
        self._world.tally.requests += 1
        self.credit -= 1
        head = b""
        if pages:
            checksums = [crc32c(pages[at : at + 65536]) for at in range(0, len(pages), 65536)]
            message = pb.Pages(offset=offset, page_crc32c=checksums)
            head = self._connection.send_control(FrameType.PAGES, message, upload=self.handle)
        header = self._connection.send_data_header(self.handle, offset, len(data), crc)
        await self._send(head + header + data)

    async def settle(self) -> None:
        """Wait until the server has looked at everything that was sent, and given credit back."""
        await self.ask(FrameType.PING, pb.Ping())
        await self._wait(lambda: self.credit == self.granted)

    def close(self) -> None:
        """Close without a word."""
        if self._stream is not None:
            self._stream.socket.close()
        self._lose("closed")

    def _check_open(self) -> None:
        if self.lost or self._connection.state is State.CLOSED:
            raise ConnectionLostError(self.lost)

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        self._news.unpark_all()

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            if self.lost or self._stream is None:
                raise ConnectionLostError(self.lost)
            whole = False
            try:
                with trio.move_on_after(ANSWER_S):
                    await self._stream.send_all(data)
                    whole = True
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise ConnectionLostError(str(exc)) from exc
            finally:
                if not whole:
                    self._lose("left in the middle of a frame")
            if not whole:
                raise ConnectionLostError("nothing is taken")

    async def _wait(self, condition: Any) -> None:
        with trio.move_on_after(ANSWER_S):
            while not condition():
                if self.lost:
                    raise ConnectionLostError(self.lost)
                if self.broken is not None:
                    raise self.broken
                await self._news.park()
            return
        self._lose("no answer")
        raise ConnectionLostError("no answer")

    async def _receive(self) -> None:
        assert self._stream is not None
        try:
            while not self.lost:
                event = self._connection.next_event()
                if event is NEED_DATA:
                    room = min(65536, self._connection.bytes_acceptable)
                    self._connection.receive_data(await self._stream.receive_some(room))
                elif isinstance(event, Control):
                    self._take(event)
                    self._news.unpark_all()
                else:
                    self._lose("the server closed")
        except (RemoteProtocolError, LocalProtocolError) as exc:
            torn = "in the middle" in str(exc)  # as a connection that is cut
            if not torn and not self._world.plan.damage:
                self._world.broken(f"the server sent what is no frame: {exc}")
            self._lose("no frame")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose("the connection broke")

    def _take(self, event: Control) -> None:
        if event.cookie:
            self._answers[event.cookie] = event
        elif event.type is FrameType.ACK:
            self._acknowledged(event.upload, event.message)
        elif event.type is FrameType.ERROR:
            self._refused(event.upload, Refused(event.message), event.message)

    def _acknowledged(self, handle: int, ack: pb.Ack) -> None:
        world = self._world
        self.credit += ack.credit
        if self.credit > self.granted:
            world.broken(f"{self.name} has {self.credit} credit of {self.granted}")
        if not handle or handle != self.handle:
            return
        positions = ack.accepted, ack.written, ack.durable
        if self.fenced:
            world.broken(f"{self.name} is fenced, and was told the positions {positions}")
        if not ack.accepted >= ack.written >= ack.durable:
            world.broken(f"{self.name} was told of positions out of order: {positions}")
        if ack.instance_id == self.instance_id and any(
            now < before for now, before in zip(positions, self.positions, strict=True)
        ):
            world.broken(f"{self.name} was told {positions} after {self.positions}")
        self.instance_id, self.positions = ack.instance_id, positions
        self.durable(ack.durable)

    def _refused(self, handle: int, refused: Refused, message: pb.Error) -> None:
        self._world.note(self.name, "notice", refused.code.name)
        if not handle:
            self._world.session_ended(refused)
            self._lose(refused.text)
        elif handle != self.handle:
            return
        elif message.HasField("offset"):
            self.notices[message.offset] = refused
        elif refused.code is ErrorCode.FENCED:
            self.fenced = True
            self.broken = refused
        else:
            self.broken = refused
