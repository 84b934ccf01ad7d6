"""A real server in this process, clients that speak by hand, and servers that follow a script.

What runs here is the product: real rings, real sockets, real files. The one fake is a ring that
ships with uringio (`SimulatedRing`), where a test needs a disk that fails or takes its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import shutil
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
import trio

import uringio
from uringd.accepting import accept_forever
from uringd.config import Settings
from uringd.listeners import listen
from uringd.server import Server, open_server
from uringd.urls import TcpUrl, UnixUrl, Url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    ErrorCode,
    FrameType,
    Role,
    crc32c,
)
from uringio.lowlevel import Opcode, Operation, RingLike
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.conftest import MakeFileSystem
    from uringd.uploads import Upload

SLOT_BYTES = 64 << 10
SLOTS = 16
CREDIT = 8

PATIENCE_S = 30
"""What an answer may take. Nothing waits for this on the good way."""

STUCK_S = 60
"""A test that takes longer hangs: it fails instead, and what runs behind it may fail with it."""

PLAIN = {Opcode.WRITE_FIXED: Opcode.WRITE, Opcode.READ_FIXED: Opcode.READ}

T = TypeVar("T")


class SlowRing(SimulatedRing):
    """A disk that takes its time: operations that `held` picks wait until it picks them no more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.held: Callable[[Operation], bool] = lambda _: False

    def hold(self, opcode: Opcode) -> None:
        """Hold every operation of a (plain) opcode from now on."""
        self.held = lambda operation: PLAIN.get(operation.opcode, operation.opcode) is opcode

    def let_go(self) -> None:
        self.held = lambda _: False

    def _step(self, chain: Any) -> Any:
        if self.held(chain.operations[chain.done]):
            chain.delay = 1
            return []
        return super()._step(chain)


@dataclass(frozen=True)
class Refusal:
    """What an ERROR says."""

    code: ErrorCode
    retryable: bool
    text: str
    offset: int | None
    missing: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, message: pb.Error) -> Refusal:
        return cls(
            ErrorCode(message.code),
            message.retryable,
            message.text,
            message.offset if message.HasField("offset") else None,
            tuple((part.offset, part.length) for part in message.missing),
        )


@dataclass
class Daemon:
    """A server in this process: how to reach it, and what it holds."""

    server: Server
    urls: list[Url]

    @property
    def unix(self) -> UnixUrl:
        [url] = [url for url in self.urls if isinstance(url, UnixUrl)]
        return url

    @property
    def tcp(self) -> TcpUrl:
        [url] = [url for url in self.urls if isinstance(url, TcpUrl)]
        return url

    @property
    def root(self) -> Path:
        return self.server.root.path

    @property
    def spool(self) -> list[str]:
        """Names of the spool files there are."""
        return os.listdir(self.server.root.spool_fd)

    @property
    def published(self) -> list[str]:
        """Names of everything below ROOT but the private directory."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*"))
        return sorted(str(path) for path in found if path.parts[0] != ".uringd")

    @property
    def uploads(self) -> dict[str, Upload]:
        """Uploads that sessions hold, by upload id."""
        return self.server.registry.open

    @property
    def free_slots(self) -> int:
        return self.server.ring.statistics().free_slots


class Peer:
    """A client that does what a test says, right or wrong, and remembers what the server said."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT)
        self.credit = 0
        self.acks: list[tuple[int, pb.Ack]] = []
        self.notices: deque[tuple[int, Refusal]] = deque()
        self.shutdowns: list[pb.Shutdown] = []
        self._cookie = 0

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hello(self, token: str = "", features: tuple[str, ...] = ()) -> pb.HelloReply:
        message = pb.Hello(client="test", token=token, features=features)
        reply: pb.HelloReply = await self.ask(FrameType.HELLO, message)
        self.credit = reply.credit
        return reply

    def request(self, frame_type: FrameType, message: Any, upload: int = 0) -> bytes:
        """Make a request's frame; `answer` takes what comes of it."""
        self._cookie += 1
        return self.connection.send_control(frame_type, message, cookie=self._cookie, upload=upload)

    async def ask(self, frame_type: FrameType, message: Any, upload: int = 0) -> Any:
        """Send a request and return its reply."""
        await self.send(self.request(frame_type, message, upload))
        event = await self.answer()
        assert event.type is frame_type, event.message
        return event.message

    async def refusal(self, frame_type: FrameType, message: Any, upload: int = 0) -> Refusal:
        """Send a request and return the ERROR that answers it."""
        await self.send(self.request(frame_type, message, upload))
        event = await self.answer()
        assert event.type is FrameType.ERROR, f"{frame_type.name} was not refused"
        return Refusal.of(event.message)

    async def answer(self) -> Control:
        """Wait for a reply, or for the ERROR in its place."""
        while True:
            event = await self.next_event()
            assert isinstance(event, Control), "the server closed instead of answering"
            if event.cookie:
                return event
            assert event.upload or event.type is not FrameType.ERROR, event.message

    async def create(self, name: str = "file", **options: Any) -> int:
        """Begin an upload; the result is its handle."""
        reply: pb.CreateReply = await self.ask(FrameType.CREATE, pb.Create(name=name, **options))
        return reply.upload

    async def resume(self, upload_id: str, epoch: int = 0, *, join: bool = False) -> pb.ResumeReply:
        """Take an upload over, or join its lanes."""
        message = pb.Resume(upload_id=upload_id, epoch=epoch, join=join)
        reply: pb.ResumeReply = await self.ask(FrameType.RESUME, message)
        return reply

    async def data(
        self, upload: int, offset: int, payload: bytes, checksum: int | None = None
    ) -> None:
        """Send a chunk, if there is credit or not."""
        crc = crc32c(payload) if checksum is None else checksum
        header = self.connection.send_data_header(upload, offset, len(payload), crc)
        self.credit -= 1
        await self.send(header + payload)

    async def upload(self, name: str, payload: bytes, **options: Any) -> pb.Receipt:
        """Do a whole upload."""
        handle = await self.create(name, **options)
        for offset in range(0, len(payload), SLOT_BYTES):
            await self.wait_credit()
            await self.data(handle, offset, payload[offset : offset + SLOT_BYTES])
        return await self.commit(handle, len(payload))

    async def fill(self, upload: int, payload: bytes, start: int = 0) -> None:
        """Send a payload's bytes from `start` on, and wait until all are acknowledged."""
        for offset in range(start, len(payload), SLOT_BYTES):
            await self.wait_credit()
            await self.data(upload, offset, payload[offset : offset + SLOT_BYTES])
        await self.wait_credit(CREDIT)

    async def commit(self, upload: int, size: int, **options: Any) -> pb.Receipt:
        receipt: pb.Receipt = await self.ask(
            FrameType.COMMIT, pb.Commit(size=size, **options), upload
        )
        return receipt

    async def wait_credit(self, count: int = 1) -> None:
        while self.credit < count:
            await self.next_event()

    async def notice(self) -> tuple[int, Refusal]:
        """Wait for an ERROR about an upload or a chunk: its handle and what it says."""
        while not self.notices:
            event = await self.next_event()
            assert isinstance(event, Control), "the server closed"
        return self.notices.popleft()

    async def last_words(self) -> Refusal | None:
        """Wait for the end of the session: the ERROR that ended it, None when it just closed."""
        error = await self.last_error()
        if error is not None:
            with trio.fail_after(PATIENCE_S):
                assert await self.stream.receive_some(1) == b"", "nothing follows the end"
        return error

    async def last_error(self) -> Refusal | None:
        """Wait for the ERROR that ends the session, None when it just closed."""
        while True:
            event = await self.next_event()
            if isinstance(event, ConnectionClosed):
                return None
            if event.type is FrameType.ERROR and not event.cookie and not event.upload:
                return Refusal.of(event.message)

    async def next_event(self) -> Control | ConnectionClosed:
        while True:
            event = self.connection.next_event()
            if event is not NEED_DATA:
                break
            with trio.fail_after(PATIENCE_S):
                data = await self.stream.receive_some(self.connection.bytes_wanted)
            self.connection.receive_data(data)
        assert isinstance(event, Control | ConnectionClosed)
        if isinstance(event, Control):
            self._note(event)
        return event

    def _note(self, event: Control) -> None:
        if event.type is FrameType.ACK:
            self.credit += event.message.credit
            self.acks.append((event.upload, event.message))
        elif event.type is FrameType.ERROR and not event.cookie and event.upload:
            self.notices.append((event.upload, Refusal.of(event.message)))
        elif event.type is FrameType.SHUTDOWN:
            self.shutdowns.append(event.message)


class ScriptedServer:
    """A server that does what a test says: one connection's side of it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.SERVER, chunk_bytes_max=SLOT_BYTES)

    async def greet(self, credit: int = 1) -> None:
        """Take HELLO and answer it."""
        asked = await self.expect(FrameType.HELLO)
        reply = pb.HelloReply(
            instance_id=bytes(range(16)),
            chunk_bytes_max=SLOT_BYTES,
            alignment=4096,
            credit=credit,
            uploads_max=1,
            idle_timeout_ms=60_000,
        )
        await self.reply(asked, reply)

    async def begin(self) -> None:
        """Take CREATE and answer it: the handle is 1."""
        asked = await self.expect(FrameType.CREATE)
        reply = pb.CreateReply(upload_id="0123456789abcdef" * 2, upload=1, chunk_bytes=SLOT_BYTES)
        await self.reply(asked, reply)

    async def expect(self, frame_type: FrameType) -> Control:
        event = await self.next_event()
        assert isinstance(event, Control) and event.type is frame_type, event
        return event

    async def chunk(self) -> tuple[int, bytes]:
        """Take a chunk: its offset and its bytes."""
        event = await self.next_event()
        assert isinstance(event, Data), event
        return event.offset, await self.payload(event)

    async def payload(self, event: Data) -> bytes:
        """Take the bytes of a chunk whose header has come."""
        payload = bytearray(event.length)
        done = self.connection.read_payload_into(memoryview(payload))
        while done < len(payload):
            data = await self._receive(len(payload) - done)
            assert data, "the client closed in the middle of a chunk"
            payload[done : done + len(data)] = data
            self.connection.payload_received(len(data))
            done += len(data)
        return bytes(payload)

    async def reply(self, asked: Control, message: Any) -> None:
        frame_type = FrameType.ERROR if isinstance(message, pb.Error) else asked.type
        await self.send(self.connection.send_control(frame_type, message, reply_to=asked.cookie))

    async def acknowledge(self, written: int) -> None:
        """Return one chunk's credit."""
        ack = pb.Ack(instance_id=bytes(range(16)), accepted=written, written=written, credit=1)
        await self.send(self.connection.send_control(FrameType.ACK, ack, upload=1))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def next_event(self) -> Control | Data | ConnectionClosed:
        while True:
            event = self.connection.next_event()
            if event is not NEED_DATA:
                assert isinstance(event, Control | Data | ConnectionClosed)
                return event
            self.connection.receive_data(await self._receive(self.connection.bytes_wanted))

    async def _receive(self, count: int) -> bytes:
        with trio.fail_after(PATIENCE_S):
            return bytes(await self.stream.receive_some(count))


Script = Callable[[ScriptedServer], Awaitable[None]]


class Serving(Protocol):
    def __call__(
        self, ring: RingLike | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[Daemon]: ...


class OpenPeer(Protocol):
    def __call__(
        self, url: Url, *features: str, hello: bool = True
    ) -> AbstractAsyncContextManager[Peer]: ...


class Until(Protocol):
    async def __call__(self, condition: Callable[[], bool]) -> None: ...


class InAsyncio(Protocol):
    async def __call__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T: ...


@pytest.fixture(autouse=True)
def limit_time() -> Iterator[None]:
    """Fail a test that hangs, also one whose clock stands still."""

    def give_up(_signum: int, _frame: object) -> None:
        raise TimeoutError(f"the test hangs: it took longer than {STUCK_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(STUCK_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def until() -> Until:
    """Let other tasks run until a condition holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await trio.lowlevel.checkpoint()

    return wait


@pytest.fixture
def content() -> Callable[[int], bytes]:
    """Make bytes of a length: the same each time, and no two blocks alike."""
    return lambda length: random.Random(length).randbytes(length)


@pytest.fixture
def slow_ring() -> SlowRing:
    return SlowRing(0)


@pytest.fixture
def open_peer() -> OpenPeer:
    """Connect a peer, past HELLO (with features) unless told otherwise."""

    @contextlib.asynccontextmanager
    async def connect(url: Url, *features: str, hello: bool = True) -> AsyncIterator[Peer]:
        if isinstance(url, UnixUrl):
            stream = await trio.open_unix_socket(url.path)
        else:
            stream = await trio.open_tcp_stream(url.host, url.port)
        async with stream:
            peer = Peer(stream)
            if hello:
                await peer.hello(features=features)
            yield peer

    return connect


@pytest.fixture
def serving(tmp_path: Path, until: Until) -> Serving:
    """Serve in this process, on a Unix socket and on TCP, with a small pool.

    When it is left, the server has to have everything back: slots, credit, spool files, sessions.
    """

    @contextlib.asynccontextmanager
    async def serve(ring: RingLike | None = None, **settings: Any) -> AsyncIterator[Daemon]:
        settings.setdefault("root", tmp_path / "root")
        settings.setdefault("slots", SLOTS)
        settings.setdefault("slot_bytes", SLOT_BYTES)
        settings.setdefault("slab_slot_bytes", SLOT_BYTES)
        listening = (UnixUrl(str(tmp_path / "socket")), TcpUrl("127.0.0.1", 0))
        settings.setdefault("listen", listening)
        chosen = Settings(**settings)
        async with _open(chosen, ring) as server, contextlib.AsyncExitStack() as stack:
            listeners = []
            for url in chosen.listen:
                listeners.append(await listen(url))
                stack.push_async_callback(listeners[-1].aclose)
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    handler = functools.partial(server.serve_connection, listener.transport)
                    nursery.start_soon(accept_forever, listener.socket, handler)
                try:
                    yield Daemon(server, [listener.url for listener in listeners])
                finally:
                    if isinstance(ring, SlowRing):
                        ring.let_go()
                server.end_now()
                await until(lambda: not server.sessions)
                statistics = server.ring.statistics()
                assert statistics.free_slots == chosen.slots
                assert statistics.waiting_for_slot == 0
                await until(lambda: not server.slabs.used)
                assert server.registry.open == {}
                # What is left can be resumed, and what can be resumed is there.
                suspended = {record.upload_id for record in await server.catalog.uploads()}
                assert server.root.spooled() == suspended
                nursery.cancel_scope.cancel()

    return serve


@contextlib.asynccontextmanager
async def _open(settings: Settings, ring: RingLike | None) -> AsyncIterator[Server]:
    async with open_server(settings, ring) as server:
        yield server


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    """A server with a small pool and no token."""
    async with serving() as running:
        yield running


@pytest.fixture
async def scripted(tmp_path: Path, nursery: trio.Nursery) -> Callable[[Script], Awaitable[UnixUrl]]:
    """Serve every connection by a script."""

    async def serve(script: Script) -> UnixUrl:
        listener = await listen(UnixUrl(str(tmp_path / "scripted")))

        async def handle(stream: trio.SocketStream) -> None:
            async with stream:
                await script(ScriptedServer(stream))

        nursery.start_soon(trio.serve_listeners, handle, [listener.socket])
        assert isinstance(listener.url, UnixUrl)
        return listener.url

    return serve


@pytest.fixture
def in_asyncio() -> InAsyncio:
    """Run a coroutine function under asyncio, in a thread of its own, and await its result."""

    async def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await trio.to_thread.run_sync(lambda: asyncio.run(main()))

    return run


@pytest.fixture
def needs_io_uring() -> None:
    probe = uringio.probe()
    if not probe.available:
        pytest.skip(f"no io_uring here: {probe.reason}")


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """A directory on tmpfs."""
    base = Path("/dev/shm")
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    if not any(mount[1] == str(base) and mount[2] == "tmpfs" for mount in mounts):
        pytest.skip("/dev/shm is no tmpfs here")
    path = base / f"uringd-test-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def small_disk(make_file_system: MakeFileSystem) -> Path:
    """A disk of 16 MiB."""
    return make_file_system("ext4", 16)
