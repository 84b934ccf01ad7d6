"""Where new chunks come from: bytes in order (`write`, a pipe), or a file that is read by offset.

Both cut at multiples of the chunk size, counted from the upload's begin, and leave out what the
server has durable: that is only read, and compared with the server's checksum of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio

from uringd.client.backoff import KEEP_ALIVE_S
from uringd.client.chunk import Piece, cut, outside
from uringd.errors import SourceError
from uringd.wire import crc32c

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uringd.client.chunk import Extent, Memory
    from uringd.client.filling import Filling
    from uringd.client.lane import Lane
    from uringd.wire import ByteRange

CHANGED = "the data has changed since the upload began: abort the upload, and begin it again"

COMPARED_BYTES = 1 << 20
"""Read at a time to be compared."""


class SeekableSource(Protocol):
    """Bytes that can be read again: they need not be kept in memory."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_at(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on. Raises SourceError."""

    def check_size(self) -> None:
        """Raise SourceError if the size is another than it was."""


@runtime_checkable
class FileSource(SeekableSource, Protocol):
    """The same of an open file: its bytes can leave without a copy of ours (sendfile(2))."""

    def place_of(self, offset: int) -> tuple[int, int]:
        """Say where the bytes from `offset` on lie: in which descriptor's file, and where there."""


class Care(Protocol):
    """What an upload needs while its source takes long."""

    async def keep_alive(self) -> None:
        """Let the server know that the upload is only slow."""

    async def attend(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await `wait`, and look after the upload's connections meanwhile."""


class StreamSource(Protocol):
    """Bytes that come once, and in order."""

    async def fill(self, view: memoryview, care: Care) -> int:
        """Fill `view`; less than that is the end. Has `care` taken when it takes long."""


class Supply(Protocol):
    """What a lane asks for its next chunk."""

    ended: bool

    async def next(self, lane: Lane) -> Piece | None:
        """Return a chunk, or None: there is none now, or ever (`ended`)."""


class Buffer:
    """Bytes that are in memory, as a stream."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)

    async def fill(self, view: memoryview, care: Care) -> int:  # noqa: ARG002
        """Copy what there is."""
        count = min(len(view), len(self._view))
        view[:count] = self._view[:count]
        self._view = self._view[count:]
        return count


class Reading:
    """A supply of chunks of a file, by rising offset, each read by the lane that sends it."""

    def __init__(self, filling: Filling, source: SeekableSource, known: list[ByteRange]) -> None:
        self._filling = filling
        self._source = source
        extents = [(part.offset, part.length) for part in known]
        self._holes = outside(0, source.size, extents)
        self._hole: Extent | None = None
        self.ended = False

    async def next(self, lane: Lane) -> Piece | None:
        """Read the next chunk to where the lane sends it from."""
        if not await self._filling.room(lane):
            return None
        await lane.prepare()  # before a range is taken: this may lose the connection
        extent = self._next_extent()
        if extent is None:
            return None
        piece = Piece(*extent)
        lane.load(piece, self._source)
        self._filling.count(piece)
        return piece

    def _next_extent(self) -> Extent | None:
        """Cut off the next chunk: by what one may have now, which a RESUME may have made less."""
        while self._hole is None and not self.ended:
            self._hole = next(self._holes, None)
            if self._hole is None:
                self._source.check_size()
                self._filling.end_supply(self)
        if self._hole is None:
            return None
        offset, length = self._hole
        extent = next(cut(offset, length, self._filling.chunk_bytes))
        left = length - extent[1]
        self._hole = (offset + extent[1], left) if left else None
        return extent


class Feeding:
    """Chunks of bytes that come in order, from one source after another."""

    def __init__(self, filling: Filling, known: list[ByteRange]) -> None:
        self._filling = filling
        self._known = list(reversed(known))
        self.turn = anyio.Lock()
        self._memory: Memory | None = None
        self._length = 0
        self._filled = 0
        self._compared = 0
        self._crc = 0
        self.position = 0
        """Bytes that were taken from the sources and cut, or found to be durable."""

    @property
    def filled(self) -> int:
        """Bytes in the chunk that is being filled."""
        return self._filled

    @property
    def is_at_a_chunks_begin(self) -> bool:
        """Whether the next chunk begins with the next byte, and is a whole one."""
        chunk_bytes = self._filling.chunk_bytes
        return not (self._filled or self._known or self.position % chunk_bytes)

    def take_whole(self, view: memoryview, memory: Memory | None) -> Piece:
        """Take a chunk that was filled elsewhere; `memory` keeps its bytes from its begin on."""
        assert self.is_at_a_chunks_begin, "it was asked"
        piece = Piece(self.position, len(view), memory, self.position)
        piece.crc32c = crc32c(view)
        self.position += piece.length
        self._filling.count(piece)
        return piece

    def fits(self, count: int) -> bool:
        """Whether so many bytes more do not complete a chunk."""
        return self._memory is not None and self._filled + count < self._length

    def tail(self) -> Piece | None:
        """Return the chunk that is being filled, as the last one. Raises SourceError."""
        if self._compared or self._known:  # the server has more than the source
            raise SourceError(CHANGED)
        if self._memory is None or not self._filled:
            return None
        self._length = self._filled
        return self._cut_off()

    async def next(self, source: StreamSource) -> Piece | None:
        """Fill a chunk from `source`; None when it has no more. For one lane at a time: `turn`."""
        while self._known and self.position >= self._known[-1].offset:
            if not await self._compare(source):
                return None
        if self._memory is None:
            self._memory = self._filling.retained.borrow(self._filling.chunk_bytes)
            self._length = self._room_bytes()
        view = self._memory.view[self._filled : self._length]
        self._filled += await source.fill(view, self._filling)
        return self._cut_off() if self._filled == self._length else None

    def _room_bytes(self) -> int:
        ahead = self._known[-1].offset if self._known else self.position + (1 << 62)
        [_, length] = next(cut(self.position, ahead - self.position, self._filling.chunk_bytes))
        return length

    def _cut_off(self) -> Piece:
        assert self._memory is not None
        piece = Piece(self.position, self._length, self._memory, self.position)
        piece.crc32c = crc32c(self._memory.view[: piece.length])
        self._memory = None
        self._filled = 0
        self.position += piece.length
        self._filling.count(piece)
        return piece

    async def _compare(self, source: StreamSource) -> bool:
        """Read a range that is durable. False: the source has no more now."""
        part = self._known[-1]
        scratch = memoryview(bytearray(COMPARED_BYTES))
        while self._compared < part.length:
            view = scratch[: part.length - self._compared]
            count = await source.fill(view, self._filling)
            self._crc = crc32c(view[:count], self._crc)
            self._compared += count
            if count < len(view):
                return False
        if self._crc != part.crc32c:
            raise SourceError(CHANGED)
        self._filling.watcher.advance(part.length)
        self.position += part.length
        self._compared = self._crc = 0
        self._known.pop()
        return True


class Stretch:
    """A supply for as long as one source of a `Feeding` lasts."""

    def __init__(self, filling: Filling, feeding: Feeding, source: StreamSource) -> None:
        self._filling = filling
        self._feeding = feeding
        self._source = source
        self.ended = False

    async def next(self, lane: Lane) -> Piece | None:
        """Fill the next chunk."""
        if not await self._filling.room(lane):
            return None
        self._filling.rest(lane)  # others may speak for a lane that waits here, and listen
        try:
            async with self._feeding.turn:
                piece = None if self.ended else await self._feeding.next(self._source)
                if piece is None:
                    self._filling.end_supply(self)
                return piece
        finally:
            lane.resting = False


async def compare(source: SeekableSource, known: list[ByteRange], filling: Filling) -> None:
    """Read ranges again that the server has. Raises SourceError if they are not the same."""
    scratch = memoryview(bytearray(COMPARED_BYTES))
    spoke_at = anyio.current_time()
    for part in known:
        crc = 0
        for offset, length in cut(part.offset, part.length, COMPARED_BYTES):
            source.read_at(scratch[:length], offset)
            crc = crc32c(scratch[:length], crc)
            filling.watcher.advance(length)
            if anyio.current_time() - spoke_at >= KEEP_ALIVE_S:
                await filling.keep_alive(resting=True)
                spoke_at = anyio.current_time()
        if crc != part.crc32c:
            raise SourceError(CHANGED)
