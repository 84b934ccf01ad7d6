"""Filling an upload: what its lanes share, and which chunk has to be sent again.

A piece is in one place at a time: in `again` (to be sent), in a lane's `sent` (not known to be
durable), or forgotten, which is when the server said that it is durable. A lane that loses its
session keeps its pieces until RESUME says which of them the server has.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio

from uringd.client.attending import Attending
from uringd.client.backoff import Patience
from uringd.client.chunk import cut, outside
from uringd.client.lane import Lane
from uringd.client.retained import REREAD_BYTES_MAX, RETAINED_BYTES_MAX, Retained
from uringd.client.sending import OTHERS_S, Sending
from uringd.client.supply import FileSource
from uringd.client.together import together
from uringd.errors import ClientError, ConnectionLostError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, WrittenRanges

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from uringd.client.chunk import Extent, Piece
    from uringd.client.claim import Claim
    from uringd.client.supply import SeekableSource, Supply
    from uringd.client.watcher import Watcher

ACCEPTED_S = 1.0
"""How long to wait for the acknowledgement of everything before it is asked for with SYNC: a server
may keep acknowledgements back while there is credit."""


class Filling:
    """The sending of an upload by `lanes`; `claim` is what they hold it by."""

    def __init__(self, claim: Claim, lanes: int, watcher: Watcher) -> None:
        self._claim = claim
        self._changed = anyio.Event()
        self._failure: ClientError | None = None
        self._instance_id = b""
        self._turn = 0
        self._durable_extents: Sequence[Extent] = ()
        self.patience = Patience(claim.retry_s)
        self.watcher = watcher
        self.source: SeekableSource | None = None
        self.file: FileSource | None = None
        self.lanes = [Lane(self, number) for number in range(lanes)]
        self.again: deque[Piece] = deque()
        self.retained = Retained(RETAINED_BYTES_MAX)
        self.contents = WrittenRanges(ranges_max=1 << 30, chunks_remembered=0)
        self.page_checksums = False
        self.chunk_bytes = 0
        self.sent_bytes = 0
        self.resumed = 0
        self.accepted = 0
        self.written = 0
        self.durable = 0
        self.given_up = False

    @property
    def upload_id(self) -> str:
        """The upload's id."""
        return self._claim.id

    @property
    def resumable(self) -> bool:
        """Whether what is lost can be sent again."""
        return self._claim.resumable

    def fit(self, chunk_bytes: int, credit: int) -> None:
        """Take a session's limits: chunks are never longer, and all its slots can be filled."""
        self.chunk_bytes = min(self.chunk_bytes or chunk_bytes, chunk_bytes)
        least = (credit + 1) * len(self.lanes) * self.chunk_bytes
        self.retained.bytes_max = max(self.retained.bytes_max, least)

    def read_from(self, source: SeekableSource) -> None:
        """Have what is to be sent again read from there: nothing needs to be kept in memory."""
        self.source = source
        self.file = source if isinstance(source, FileSource) else None
        self.retained.bytes_max = max(self.retained.bytes_max, REREAD_BYTES_MAX)

    def check(self) -> None:
        """Raise what the upload failed by."""
        if self._failure is not None:
            raise self._failure

    def fail(self, error: ClientError) -> None:
        """Let the upload fail at the next call and each one after; the first error counts."""
        self._failure = self._failure or error
        self._notify()

    def count(self, piece: Piece) -> None:
        """Take a new piece in: its checksum is known."""
        assert piece.crc32c is not None
        self.contents.add(piece.offset, piece.length, piece.crc32c)
        self.retained.add(piece)

    def send_again(self, piece: Piece) -> None:
        """Put a piece where the next lane takes it."""
        self.again.append(piece)
        self._notify()

    def send_missing(self, missing: Sequence[Extent]) -> bool:
        """Send what the server has not, if we have it still."""
        for lane in self.lanes:
            for piece in list(lane.sent.values()):
                if list(outside(piece.offset, piece.length, missing)) != [
                    (piece.offset, piece.length)
                ]:
                    del lane.sent[piece.offset]
                    self.again.append(piece)
        return bool(self.again)

    def was_sent(self, lane: Lane, piece: Piece, *, first: bool) -> None:
        """Count a piece that has left."""
        self.sent_bytes += piece.length
        if first:
            self.watcher.advance(piece.length)
        if not self.resumable:  # it could not be sent again
            lane.sent.pop(piece.offset, None)
            self.retained.release(piece)

    def positions(self, accepted: int, written: int, durable: int) -> None:
        """Take positions of the upload; what is below the durable one is forgotten."""
        self.accepted = max(self.accepted, accepted, durable)
        self.written = max(self.written, written, durable)
        if durable > self.durable:
            self.durable = durable
            for lane in self.lanes:
                for piece in [piece for piece in lane.sent.values() if piece.end <= durable]:
                    del lane.sent[piece.offset]
                    self.retained.release(piece)
            for piece in [piece for piece in self.again if piece.end <= durable]:
                self.again.remove(piece)
                self.retained.release(piece)
        self._notify()

    def end_supply(self, supply: Supply) -> None:
        """Let no lane wait for more of it."""
        supply.ended = True
        self._notify()

    async def room(self, lane: Lane) -> bool:
        """Wait until one more chunk may be kept. False: there is something else to do first."""
        while self.retained.full and not self.again and lane.sent:
            if not lane.syncing:
                await lane.post_sync()
            await lane.link.next_event()  # type: ignore[union-attr]  # it is ready
            self.check()
        return not self.retained.full and not self.again

    async def keep_alive(self, *, resting: bool = False) -> None:
        """Let the server know that this upload is only slow; raises what became of it.

        For lanes that wait for their next chunk, or all of them, if nobody sends (`resting`).
        """
        for lane in self.lanes:
            try:
                if lane.ready and (lane.resting or resting):
                    await lane.link.request(FrameType.PING, pb.Ping())  # type: ignore[union-attr]
            except ClientError as exc:
                self.lost(lane, exc)
        self.check()

    async def attend(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await `wait`, which may take long, and look after the lanes. Raises ClientError."""
        await Attending(self).run(wait)

    def rest(self, lane: Lane) -> None:
        """Take note that a lane waits for its next chunk."""
        lane.resting = True
        self._notify()

    async def pump(self, supply: Supply | None = None, *, few: bool = False) -> None:
        """Send what there is to be sent: `again`, and what the supply has until it ends.

        On return every lane's chunks have left; `few` chunks are not worth more than one lane.
        Raises ClientError.
        """
        self.check()
        sending = Sending(self, supply)
        if len(self.lanes) == 1:
            await sending.run(self.lanes[0])
        elif few and not self.again and not self.retained.full:
            await sending.run(await self.next_lane())
        else:
            await together(partial(sending.run, lane) for lane in self.lanes)

    async def everything_accepted(self, size: int) -> None:
        """Wait until each byte below `size` is acknowledged (PROTOCOL.md, "Lanes")."""
        with anyio.move_on_after(ACCEPTED_S) as scope:
            await together(partial(self._listen, lane, size, scope) for lane in self.lanes)
        if self.accepted < size and not self.again:
            await self.sync()

    async def sync_if_due(self, lane: Lane) -> None:
        """Post a SYNC in time, so that what is kept can be forgotten before there is too much."""
        share_bytes = self.retained.bytes_max // 2 // len(self.lanes)
        if self.retained.half_full and lane.sync_is_due(share_bytes):
            await lane.post_sync()

    async def changed(self) -> None:
        """Wait until something has changed that concerns several lanes."""
        await self._changed.wait()

    async def sync(self) -> int:
        """Make durable everything that was sent; the result is the durable position in bytes."""
        while True:
            await self.pump()
            try:
                for lane in self.lanes:
                    # All of one that is published already is durable, and its handle takes no SYNC.
                    alone = len(self.lanes) == 1 and self.durable < self.contents.end
                    if lane.sent or (lane.ready and alone):
                        self.durable = max(self.durable, await lane.sync())
            except ClientError as exc:
                self.lost(lane, exc)
            self.check()
            if not self.again and all(lane.ready or not lane.sent for lane in self.lanes):
                return self.durable

    def lost(self, lane: Lane, reason: ClientError) -> None:
        """Take a lane's session for lost, and let it be mended. Raises `reason` if it cannot be."""
        if not self.resumable or not reason.passing:
            raise self.named(reason)
        lane.detach()
        lane.reason = self.named(reason)
        self.watcher.reconnecting(reason)

    def named(self, reason: ClientError) -> ClientError:
        """Give a lost connection the upload's name."""
        if isinstance(reason, ConnectionLostError) and not reason.upload_id:
            return ConnectionLostError(reason.text, self.upload_id)
        if isinstance(reason, RefusedError) and reason.passing and self.resumable:
            return ConnectionLostError(str(reason), self.upload_id)  # it can be gone on with
        return reason

    def resumed_with(self, lane: Lane, durable: Sequence[Extent], instance_id: bytes) -> None:
        """Sort what lost sessions had sent into what the server has and what it lacks."""
        self._durable_extents = durable
        pieces = list(self.again)
        self.again.clear()
        for other in self.lanes:
            if other is lane or not other.ready:
                pieces += other.sent.values()
                other.sent.clear()
            for piece in [piece for piece in other.sent.values() if not self._lacking(piece)]:
                del other.sent[piece.offset]
                self.retained.release(piece)
        for piece in sorted(pieces, key=lambda piece: piece.offset):
            if self.is_lacking(piece):
                self.again.append(piece)
        if instance_id != self._instance_id:  # what another life of the server had counts nothing
            self._instance_id = instance_id
            self.accepted = self.written = 0
        prefix = durable[0][1] if durable and durable[0][0] == 0 else 0
        self.positions(prefix, prefix, prefix)

    def is_lacking(self, piece: Piece) -> bool:
        """Whether a piece is to be sent as it is: what a RESUME said is durable never is again.

        If not, what is lacking of it is put where the next lane takes it.
        """
        extents = self._lacking(piece)
        if extents == [(piece.offset, piece.length)]:
            return True
        for extent in extents:
            part = piece.part(*extent)
            self.retained.add(part)
            self.send_again(part)
        self.retained.release(piece)
        return False

    def _lacking(self, piece: Piece) -> list[Extent]:
        return [
            extent
            for hole in outside(piece.offset, piece.length, self._durable_extents)
            for extent in cut(*hole, self.chunk_bytes)
        ]

    async def mend(self, lane: Lane) -> None:
        """Give a lane a session again, however often it takes. Raises ClientError."""
        while not lane.ready:
            await self.try_to_mend(lane)

    async def try_to_mend(self, lane: Lane) -> None:
        """Try once to give a lane a session again. Raises ClientError when there is no point."""
        try:
            if lane.reason is not None:
                await lane.backoff.wait(lane.reason)
            try:
                await self._claim.take_up(lane, self)
            except ClientError as exc:
                self.lost(lane, exc)
        except ClientError as exc:
            # One lane that is refused leaves the upload to the others, which abort it; one that is
            # fenced leaves it to somebody else.
            refused = isinstance(exc, RefusedError) and exc.code is not ErrorCode.FENCED
            self.given_up = not (refused and any(other.ready for other in self.lanes))
            raise
        if lane.ready and lane.reason is not None:
            lane.reason = None
            self.resumed += 1
            self.watcher.connected()

    async def next_lane(self) -> Lane:
        """Choose a lane for a single chunk: each in turn, unless it cannot be had soon."""
        self._turn = (self._turn + 1) % len(self.lanes)
        lane = self.lanes[self._turn]
        others = [other for other in self.lanes if other.ready]
        if not lane.ready and others:
            with anyio.move_on_after(OTHERS_S):
                await self.mend(lane)
            if not lane.ready:
                self.take_over([lane])
                return others[0]
        return lane

    def take_over(self, lanes: list[Lane]) -> None:
        """Send what broken lanes had sent, whether it arrived or not."""
        for lane in lanes:
            self.again.extend(lane.sent.values())
            lane.sent.clear()

    async def _listen(self, lane: Lane, size: int, scope: anyio.CancelScope) -> None:
        """Read acknowledgements until all is accepted, for the other lanes too."""
        try:
            while self.accepted < size and not self.again:
                if not lane.ready or not lane.sent:
                    return  # another lane will hear of it
                await lane.link.next_event()  # type: ignore[union-attr]  # it is ready
                self.check()
        except ClientError as exc:
            self.check()
            self.lost(lane, exc)
        scope.cancel()

    def _notify(self) -> None:
        if len(self.lanes) == 1:
            return  # nobody else waits
        self._changed.set()
        self._changed = anyio.Event()
