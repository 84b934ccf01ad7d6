"""The server: listeners in front of one ring, and the end of it all."""

from __future__ import annotations

import contextlib
import secrets
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

import uringio
from uringd.accepting import accept_forever
from uringd.accounts import Accounts, Kind
from uringd.catalog import Catalog, CatalogError, open_catalog
from uringd.collecting import Collecting
from uringd.config import SLOTS_WANTED, Settings
from uringd.listeners import Listener, listen
from uringd.others import Nobody
from uringd.registry import Registry
from uringd.root import HeldRoot, Root
from uringd.session import Session
from uringd.slab import SlabBudget
from uringd.small.uploads import SmallUploads
from uringd.upload_errors import UploadError
from uringd.wire import INSTANCE_ID_BYTES, Connection, ErrorCode, FrameType, Role, error_message
from uringio.exceptions import BrokenError
from uringio.lowlevel import default_slots, run_ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from uringd.keyed_lock import KeyedLock
    from uringd.moving import Moved
    from uringd.others import Others
    from uringd.uploads import Upload
    from uringio import Ring
    from uringio.lowlevel import RingLike

log = structlog.get_logger("uringd.server")


EXPIRY_TICK_S = 60.0
"""How often suspended uploads are looked at for their age."""

EVICTION_TICK_S = 1.0
"""How often slow receivers are looked for while others wait for a slot."""

RING_TICK_S = 1.0
"""How often the ring is looked at: one that broke writes nothing any more."""

REMINDER_S = 15.0
"""How long a client hears nothing while its chunks wait for the disk, twice that at the most: far
below what any client waits before it takes the server for gone."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a process that serves together with others has of the whole server's."""

    root: HeldRoot
    accounts: Accounts
    naming: KeyedLock
    others: Others


class Server:
    """What all sessions share."""

    def __init__(
        self,
        settings: Settings,
        root: Root,
        ring: Ring,
        catalog: Catalog,
        nursery: trio.Nursery,
        shared: Shared | None = None,
    ) -> None:
        self.settings = settings
        self.accounts = Accounts() if shared is None else shared.accounts
        self.others: Others = Nobody() if shared is None else shared.others
        self._alone = shared is None
        self.root = root
        self.ring = ring
        self.catalog = catalog
        self.registry = Registry(ring, root, catalog, settings, self.accounts, self.others)
        self.backend = ring.features.backend
        self.slot_bytes = ring.features.slot_bytes
        self.credit = max(1, min(settings.credit_per_connection, ring.features.slots // 2))
        self.slabs = SlabBudget(settings.slab_bytes_max)
        self.instance_id = secrets.token_bytes(INSTANCE_ID_BYTES)
        self.small = SmallUploads(ring.reactor, root, catalog, self)
        self.sessions: set[Session] = set()
        self.receiving: dict[Session, float] = {}
        self.strangers: dict[Session, None] = {}
        self.closing = False
        self.retiring = False
        self._gone = trio.Event()
        self._collecting = Collecting()
        self._nursery = nursery
        self._checkpoints: set[str] = set()

    def renew_instance(self) -> None:
        """Take a new instance id: something acknowledged as written may be lost."""
        self.instance_id = secrets.token_bytes(INSTANCE_ID_BYTES)

    def consider_checkpoint(self, upload: Upload) -> None:
        """Make an upload durable in the background once enough of it is written."""
        enough = upload.filling.undurable_bytes >= self.settings.checkpoint_bytes
        if enough and upload.resumable and upload.id not in self._checkpoints:
            self._checkpoints.add(upload.id)
            self._nursery.start_soon(self._checkpoint, upload)

    async def _checkpoint(self, upload: Upload) -> None:
        try:
            await upload.checkpoint()
        except UploadError:  # it is broken: who holds it is told
            for holder in list(upload.holders):
                holder.progressed()
        finally:
            self._checkpoints.discard(upload.id)

    async def keep_house(self) -> None:
        """Do what is due now and then, until cancelled: garbage, checkpoints, expiry."""
        aged = trio.current_time()
        while True:
            await trio.sleep(self.settings.checkpoint_s)
            busy = bool(self.registry.open) or self.small.memory.in_use
            self._collecting.consider(busy=busy)
            self.small.report()
            for upload in list(self.registry.open.values()):
                if upload.resumable and upload.filling.undurable_bytes:
                    await self._checkpoint(upload)
            elapsed_s = trio.current_time() - aged
            if elapsed_s >= EXPIRY_TICK_S:
                aged += elapsed_s
                try:
                    if self._alone:
                        await self.registry.expire(elapsed_s)
                    else:  # expiry is the supervisor's: it learns what is held
                        await self.catalog.age(0, list(self.registry.open))
                except CatalogError as exc:
                    log.warning("expiry failed", reason=str(exc))

    async def evict_slow(self) -> None:
        """End sessions that hold slots too long while others wait for one, until cancelled."""
        patience_s = self.settings.contended_chunk_s
        while True:
            await trio.sleep(min(EVICTION_TICK_S, patience_s))
            if self.ring.slots.waiting or self.small.memory.waiting:
                late = trio.current_time() - patience_s
                for session, since in list(self.receiving.items()):
                    if since <= late:
                        session.end_slow_chunk()

    async def remind(self) -> None:
        """Let clients know that their chunks wait for a slow disk, until cancelled."""
        while True:
            await trio.sleep(min(REMINDER_S, self.settings.idle_timeout_s / 2))
            for session in list(self.sessions):
                session.remind()

    async def end_with_the_ring(self) -> None:
        """End the server when its ring is broken. Raises BrokenError.

        Whoever starts it again has a new ring, and clients go on from what is durable; this one
        could only refuse.
        """
        while not self.ring.reactor.is_broken:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(RING_TICK_S)
        raise BrokenError("the ring is broken and nothing can be written: start the server again")

    async def serve_connection(self, transport: str, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends."""
        async with stream:
            peer = _peer_name(stream, transport)
            most = self.settings.connections_max
            if self.closing or not (
                self.accounts.take(Kind.CONNECTIONS, 1, most) or self._make_room()
            ):
                await self._turn_away(stream)
                return
            session = Session(self, stream.socket, transport, peer)
            self.strangers[session] = None
            await self._run_session(session)

    def _make_room(self) -> bool:
        """Have the oldest connection that was not admitted give way to a new one, if there is one.

        Else whoever has no token could keep out those who have, by connections that say nothing.
        """
        if not self.strangers:
            return False
        stranger = next(iter(self.strangers))
        del self.strangers[stranger]
        self.accounts.take(Kind.CONNECTIONS, 1, None)  # its own is given back in a moment
        stranger.give_way()
        return True

    def take_over(self, stream: trio.SocketStream, moved: Moved) -> None:
        """Go on with a connection that another process of this server accepted."""
        self.accounts.take(Kind.CONNECTIONS, 1, None)  # it counts there no more in a moment
        self._nursery.start_soon(self._serve_moved, stream, moved)

    async def _serve_moved(self, stream: trio.SocketStream, moved: Moved) -> None:
        async with stream:
            session = Session(self, stream.socket, moved.transport, moved.peer, moved)
            await self._run_session(session)

    async def _run_session(self, session: Session) -> None:
        """Run a session that is counted already."""
        self.sessions.add(session)
        try:
            await session.run()
        except Exception:  # a fault of ours costs this connection, never the others
            log.exception("session failed", peer=session.peer)
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self.accounts.give_back(Kind.CONNECTIONS, 1)
        self.strangers.pop(session, None)
        self.sessions.discard(session)
        if not self.closing:  # else the process ends, and its garbage with it
            self._collecting.ended(len(self.sessions))
        elif not self.sessions:
            self._gone.set()

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        code, text = ErrorCode.SHUTTING_DOWN, "the server is shutting down"
        if not self.closing:
            limit = self.settings.connections_max
            code, text = ErrorCode.TOO_MANY_CONNECTIONS, f"the server has {limit} connections"
            log.warning("connection refused", reason=text)
        connection = Connection(Role.SERVER)
        frame = connection.send_control(FrameType.ERROR, error_message(code, text))
        with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(1):
            await stream.send_all(frame)

    async def shut_down(self) -> None:
        """Let unfinished uploads finish until the deadline, then end every session."""
        self.closing = True
        for session in list(self.sessions):
            session.begin_shutdown()
        if not self.sessions:
            return
        with trio.move_on_after(self.settings.shutdown_timeout_s) as deadline:
            await self._gone.wait()
        if deadline.cancelled_caught:
            log.warning("shutdown deadline", unfinished=len(self.registry.open))
            self.end_now()
            await self._gone.wait()

    def end_now(self) -> None:
        """End every session at once: unfinished uploads are aborted."""
        self.closing = True
        for session in list(self.sessions):
            session.cancel("the server was shut down")


@contextlib.asynccontextmanager
async def open_server(
    settings: Settings, ring: RingLike | None = None, shared: Shared | None = None
) -> AsyncIterator[Server]:
    """Open ROOT, its catalog and the ring, and bring what is there to agree.

    `ring` is one that is open already (tests bring theirs). With `shared` this process is one of
    several: the lock is held and what is there agrees. Raises RootError, CatalogError or
    uringio.UnavailableError.
    """
    root = Root(settings.root, None if shared is None else shared.root)
    if shared is not None:
        root.naming = shared.naming
    try:
        async with (
            _run_ring(settings, ring) as opened,
            open_catalog(root.catalog_path, first=shared is None) as catalog,
            trio.open_nursery() as nursery,
        ):
            server = Server(settings, root, opened, catalog, nursery, shared)
            if shared is None:
                root.sync_private()  # the catalog's name
                await server.registry.restore()
            nursery.start_soon(server.small.serve)
            nursery.start_soon(server.keep_house)
            nursery.start_soon(server.evict_slow)
            nursery.start_soon(server.remind)
            nursery.start_soon(server.end_with_the_ring)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        root.close()


@contextlib.asynccontextmanager
async def _run_ring(settings: Settings, ring: RingLike | None) -> AsyncIterator[Ring]:
    slots = settings.slots or default_slots(settings.slot_bytes, SLOTS_WANTED)
    if ring is not None:
        async with run_ring(ring, slots, settings.slot_bytes) as opened:
            yield opened
        return
    async with uringio.open_ring(slots, settings.slot_bytes, backend=settings.backend) as opened:
        for note in opened.features.notes:
            log.warning("not what was asked for", backend=opened.features.backend, reason=note)
        yield opened


async def serve(settings: Settings, announce: Callable[[Listener], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` is called for each listener once it is ready.

    The first signal lets unfinished uploads finish for `shutdown_timeout_s`, a second parks them. A
    third ends the process as it stands, for a disk may never answer: what was acknowledged as
    durable is on it, and the rest was not promised.
    """
    async with open_server(settings) as server, contextlib.AsyncExitStack() as stack:
        listeners = []
        for url in settings.listen:
            listener = await listen(url)
            stack.push_async_callback(listener.aclose)
            listeners.append(listener)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept, server, listeners)
                for listener in listeners:
                    announce(listener)
                await anext(signals)
                log.info("shutting down", unfinished=len(server.registry.open))
                nursery.start_soon(end_at_signal, server, signals)
                await server.shut_down()
                nursery.cancel_scope.cancel()


async def _accept(server: Server, listeners: list[Listener]) -> None:
    """Serve who comes until cancelled; while the server leaves, each is told so and turned away."""
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            serve_one = partial(server.serve_connection, listener.transport)
            nursery.start_soon(accept_forever, listener.socket, serve_one)


async def end_at_signal(server: Server, signals: AsyncIterator[int]) -> None:
    """Wait for the second signal, and end what the first let finish."""
    await anext(signals)
    for number in (signal.SIGTERM, signal.SIGINT):  # before it is said: who reads that may send it
        signal.signal(number, signal.SIG_DFL)
    log.warning("shutting down at once", unfinished=len(server.registry.open))
    server.end_now()


def _peer_name(stream: trio.SocketStream, transport: str) -> str:
    """Name the client in the log: its address, or the process behind a Unix socket."""
    if transport != "tcp":
        return _unix_peer(stream)
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:  # it has reset the connection already
        return "gone"
    return f"{host}:{port}"


def _unix_peer(stream: trio.SocketStream) -> str:
    import socket  # noqa: PLC0415
    import struct  # noqa: PLC0415

    credentials = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7))
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    pid, uid, _ = credentials.unpack(data)
    return f"pid {pid} uid {uid}"
