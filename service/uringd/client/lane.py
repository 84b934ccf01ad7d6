"""One lane of an upload: a session that holds it, and the chunks that were sent in that session."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from uringd.client.backoff import KEEP_ALIVE_S, Backoff
from uringd.client.chunk import Memory, Piece, cut, outside
from uringd.client.link import refused
from uringd.errors import RefusedError, SourceError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    HEADER_BYTES,
    PAGE_BYTES,
    Control,
    ErrorCode,
    FrameType,
    crc32c,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from uringd.client.filling import Filling
    from uringd.client.link import Link
    from uringd.client.places import Place
    from uringd.client.supply import SeekableSource
    from uringd.errors import ClientError

REFUSALS_MAX = 3
"""Times that one chunk is sent again because it did not arrive as it left: beyond it something on
the way damages what it carries, and more of the same would not end."""

PART_BYTES = 512 << 10
"""Read and checksummed at a time: it stays in a core's second-level cache in between."""

SENT_AGAIN = frozenset({ErrorCode.BAD_CHECKSUM, ErrorCode.TOO_MANY_RANGES})
"""Refusals that cost one chunk and are mended by sending it again."""


class Lane:
    """A session's part in an upload. Used by one task at a time.

    `sent` holds what was sent and is not known to be durable: in this session, or, while the lane
    is not `ready`, in the one that was lost.
    """

    def __init__(self, filling: Filling, number: int) -> None:
        self._filling = filling
        self._serial = 0
        self._unsynced_bytes = 0
        self._scratch: Memory | None = None
        self._loaded: Piece | None = None
        self._place: Place | None = None
        self._doubtful = False
        self._instance_id = b""
        self.number = number
        self.link: Link | None = None
        self.handle = 0
        self.sent: dict[int, Piece] = {}
        self.syncing = False
        self.resting = False
        self.backoff = Backoff(filling.patience)
        self.reason: ClientError | None = None
        self.mending: anyio.CancelScope | None = None

    @property
    def upload_id(self) -> str:
        """The upload's id."""
        return self._filling.upload_id

    @property
    def ready(self) -> bool:
        """Whether it holds the upload, as far as is known."""
        return self.handle != 0 and self.link is not None and self.link.alive

    def attach(self, link: Link, handle: int, instance_id: bytes) -> None:
        """Begin a session: a reply gave a handle."""
        self._put_back()
        self.link = link
        self.handle = handle
        self._instance_id = instance_id
        self._doubtful = self.syncing = False
        self._unsynced_bytes = 0
        link.holders[handle] = self

    def detach(self) -> None:
        """End the session's part in the upload."""
        if self.link is not None:
            self.link.holders.pop(self.handle, None)
        self.handle = 0
        self._put_back()

    async def request(self, frame_type: FrameType, message: Message) -> Any:
        """Ask about the upload. Raises RefusedError, ConnectionLostError."""
        assert self.link is not None
        return await self.link.request(frame_type, message, self.handle)

    async def prepare(self) -> None:
        """Wait for a place in shared memory, where there is such: the next chunk goes there."""
        if self._place is None and self.link is not None and self.link.places is not None:
            self._place = await self.link.places.take(self.link)

    async def lend(self) -> Place | None:
        """Wait for a place for somebody else to fill; None where there is no shared memory."""
        await self.prepare()
        place, self._place, self._loaded = self._place, None, None
        return place

    def hand_in(self, piece: Piece, place: Place) -> None:
        """Take back what was lent, with a piece's bytes in it, to be sent from there."""
        if self.link is None or self.link.places is not place.owner:
            place.put_back()
            return
        self._put_back()
        self._place, self._loaded = place, piece

    def load(self, piece: Piece, source: SeekableSource | None = None) -> memoryview | None:
        """Put a piece's bytes where they are sent from, with its header's room before them.

        In a place of shared memory, which must be prepared, there is no such room. What leaves
        right from its file is only read for its checksum: None. Raises SourceError.
        """
        memory = piece.memory
        if self._place is not None:
            view = self._place.view[: piece.length]
            if self._loaded is not piece:
                self._fill(view, piece, source)
            return view
        if memory is not None and piece.base == piece.offset:
            whole = memory.whole[: HEADER_BYTES + piece.length]
            if piece.crc32c is None:
                piece.crc32c = crc32c(whole[HEADER_BYTES:])
            return whole
        if self._leaves_from_file(piece):
            if self._loaded is not piece:
                self._fill(None, piece, source)
            return None
        if self._scratch is None or len(self._scratch.view) < piece.length:
            self._scratch = Memory(max(piece.length, self._filling.chunk_bytes))
        whole = self._scratch.whole[: HEADER_BYTES + piece.length]
        if self._loaded is piece:
            return whole
        self._fill(whole[HEADER_BYTES:], piece, source)
        return whole

    def _leaves_from_file(self, piece: Piece) -> bool:
        """Whether a piece needs no memory of ours, where checksums of its pages could be taken."""
        return (
            piece.memory is None
            and self._filling.file is not None
            and not self._filling.page_checksums
            and self.link is not None
            and self.link.takes_files
        )

    def _fill(self, view: memoryview | None, piece: Piece, source: SeekableSource | None) -> None:
        """Copy or read a piece, and checksum it; without a `view`, into memory for a part."""
        memory = piece.memory
        crc = 0
        for start in range(0, piece.length, PART_BYTES):
            if view is not None:
                part = view[start : start + PART_BYTES]
            else:
                part = self._part()[: piece.length - start]
            if memory is not None:
                first = piece.offset - piece.base + start
                part[:] = memory.view[first : first + len(part)]
            else:
                assert source is not None
                source.read_at(part, piece.offset + start)
            crc = crc32c(part, crc)
        if piece.crc32c not in {None, crc}:
            raise SourceError("the data has changed while it was sent: it reads differently now")
        piece.crc32c = crc
        self._loaded = piece

    def _part(self) -> memoryview:
        if self._scratch is None:
            self._scratch = Memory(PART_BYTES)
        return self._scratch.view[:PART_BYTES]

    async def send(self, piece: Piece, source: SeekableSource | None) -> None:
        """Send a piece as one chunk, when there is credit."""
        link = self.link
        assert link is not None
        if piece.length > self._filling.chunk_bytes and not self._filling.is_lacking(piece):
            return  # it was cut for a session that took longer ones
        await self.prepare()
        whole = self.load(piece, source)
        while not link.credit.available:
            await link.next_event()
            self._filling.check()
        self._loaded = None
        if not self._filling.is_lacking(piece):
            return  # a RESUME said so while the piece was in hand
        if self._place is not None:
            del whole
            await self._send_placed(link, piece, source)
            return
        assert piece.crc32c is not None
        if whole is not None and self._filling.page_checksums:
            await self._send_pages(piece, whole[HEADER_BYTES:])
        header = link.data_header(self.handle, piece.offset, piece.length, piece.crc32c)
        with self._counted(piece), self._filling.retained.pinned(piece.memory):
            if whole is None:
                assert self._filling.file is not None, "it was read"
                await link.send_from(header, self._filling.file, piece)
            else:
                whole[:HEADER_BYTES] = header
                await link.send(whole)

    async def _send_placed(self, link: Link, piece: Piece, source: SeekableSource | None) -> None:
        """Send a piece that is in shared memory: what leaves is where it lies."""
        place = self._take_place()
        if not place.owner.ready(place, piece.length):
            place.put_back()
            await self.prepare()
            self.load(piece, source)
            place = self._take_place()
            fit = place.owner.ready(place, piece.length)
            assert fit, "nobody else has seen it"
        with self._counted(piece):
            try:
                await link.send_placed(self.handle, piece, place)
            finally:
                place.owner.sent(place)

    @contextlib.contextmanager
    def _counted(self, piece: Piece) -> Iterator[None]:
        """Count a piece that is being sent."""
        self._serial += 1
        first = not piece.serial
        piece.serial = self._serial
        self.sent[piece.offset] = piece
        yield
        self._unsynced_bytes += piece.length
        self._filling.was_sent(self, piece, first=first)

    def _take_place(self) -> Place:
        place, self._place, self._loaded = self._place, None, None
        assert place is not None, "it was prepared"
        return place

    def _put_back(self) -> None:
        """Give back a place that was not sent from, if there is one."""
        place, self._place, self._loaded = self._place, None, None
        if place is not None:
            place.put_back()

    async def settle_doubt(self) -> None:
        """Ask with SYNC whether the server lost anything, if its instance id has changed."""
        if self._doubtful:
            await self.sync()

    async def hear(self) -> None:
        """Wait for what the server says next, and let it hear from us if that takes long."""
        assert self.link is not None
        with anyio.move_on_after(KEEP_ALIVE_S) as silence:
            await self.link.next_event()
        if silence.cancelled_caught:
            await self.link.request(FrameType.PING, pb.Ping())

    async def sync(self) -> int:
        """Make durable what was sent; the result is the upload's durable position."""
        mark = self._serial
        self._unsynced_bytes = 0
        reply: pb.SyncReply = await self.request(FrameType.SYNC, pb.Sync())
        self._synced(mark, reply)
        return reply.durable

    def sync_is_due(self, share_bytes: int) -> bool:
        """Whether so much was sent since the last SYNC that the next should be on its way."""
        return not self.syncing and self._unsynced_bytes >= share_bytes

    async def post_sync(self) -> None:
        """Ask for what `sync` does without waiting for the answer."""
        assert self.link is not None
        mark, session = self._serial, self.link

        def answered(event: Control) -> None:
            if self.link is not session:
                return
            self.syncing = False
            if event.type is FrameType.ERROR:
                self._filling.fail(refused(event.message))
            else:
                self._synced(mark, event.message)

        self._unsynced_bytes = 0
        self.syncing = True
        await self.link.post(FrameType.SYNC, pb.Sync(), answered, self.handle)

    def acknowledged(self, ack: pb.Ack) -> None:
        """Take an acknowledgement's positions (called by the link)."""
        if ack.instance_id != self._instance_id:
            self._doubtful = True
        self.backoff.progress()
        self._filling.positions(ack.accepted, ack.written, ack.durable)

    def noticed(self, error: RefusedError) -> None:
        """Take the server's notice (called by the link)."""
        piece = None
        if error.offset is not None and error.code in SENT_AGAIN and self._filling.resumable:
            piece = self.sent.pop(error.offset, None)
            if piece is None:
                return  # a copy of what has arrived
        if piece is None:
            self._filling.fail(error)
            return
        piece.failures += 1
        if piece.failures > REFUSALS_MAX:
            self._filling.fail(error)
        missing = error.missing if error.code is ErrorCode.BAD_CHECKSUM else ()
        wrong = [
            extent
            for offset, length in missing
            if piece.offset <= offset and offset + length <= piece.end
            for extent in cut(offset, length, self._filling.chunk_bytes)
        ]
        if not wrong:
            self._filling.send_again(piece)
            return
        for extent in outside(piece.offset, piece.length, wrong):
            kept = piece.part(*extent)
            self.sent[kept.offset] = kept
            self._filling.retained.add(kept)
        for extent in wrong:
            part = piece.part(*extent)
            self._filling.retained.add(part)
            self._filling.send_again(part)
        self._filling.retained.release(piece)

    async def _send_pages(self, piece: Piece, view: memoryview) -> None:
        pages = [crc32c(view[at : at + PAGE_BYTES]) for at in range(0, len(view), PAGE_BYTES)]
        assert self.link is not None
        message = pb.Pages(offset=piece.offset, page_crc32c=pages)
        await self.link.send_notice(FrameType.PAGES, message, self.handle)

    def _synced(self, mark: int, reply: pb.SyncReply) -> None:
        """Forget what a SYNC made durable: what was sent before it and not refused."""
        self._instance_id = reply.instance_id
        self._doubtful = False
        self.backoff.progress()
        for piece in [piece for piece in self.sent.values() if piece.serial <= mark]:
            del self.sent[piece.offset]
            self._filling.retained.release(piece)
        self._filling.positions(0, 0, reply.durable)
