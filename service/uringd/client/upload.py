"""An upload from the client's side: what the caller does with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from uringd.client.filling import Filling
from uringd.client.receipt import Receipt, read_receipt
from uringd.client.slot import lend
from uringd.client.supply import Buffer, Feeding, Reading, Stretch, compare
from uringd.errors import ClientError, ConnectionLostError, RefusedError, SourceError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from typing_extensions import Buffer as BytesLike

    from uringd.client.claim import Claim
    from uringd.client.slot import ClientSlot
    from uringd.client.supply import SeekableSource, StreamSource
    from uringd.client.watcher import Watcher

FAREWELL_TIMEOUT_S = 5.0
"""What an abort may take when the caller is leaving already."""

COMMITS_MAX = 4
"""Times that a server may find holes in what it acknowledged before it is not believed."""


class ClientUpload:
    """An upload under way. Made by `Client.upload` and `Client.resume`.

    `id` names it in `stat`, `abort` and `resume`; `written` and `durable` are the server's
    positions by its last acknowledgement, in bytes; `sent_bytes` counts payload, with what was sent
    again. A call that is cancelled may leave a part of its bytes untaken: such an upload is only
    good for being left.
    """

    def __init__(self, claim: Claim, durability: Durability, lanes: int, watcher: Watcher) -> None:
        self._claim = claim
        self._durability = durability
        self.filling = Filling(claim, lanes, watcher)
        self._feeding: Feeding | None = None
        self._ended = False

    @property
    def id(self) -> str:
        """The upload's id."""
        return self._claim.id

    @property
    def name(self) -> str:
        """The name it will be published as."""
        return self._claim.name

    @property
    def size(self) -> int | None:
        """What the server was told of its size, in bytes."""
        return self._claim.size

    @property
    def resumable(self) -> bool:
        """Whether it outlives this connection, and this process."""
        return self._claim.resumable

    @property
    def chunk_bytes(self) -> int:
        """The longest chunk that is sent, in bytes."""
        return self.filling.chunk_bytes

    @property
    def written(self) -> int:
        """Every byte below is written."""
        return self.filling.written

    @property
    def durable(self) -> int:
        """Every byte below is durable."""
        return self.filling.durable

    @property
    def sent_bytes(self) -> int:
        """Payload that was sent, with what was sent again."""
        return self.filling.sent_bytes

    async def begin(self) -> None:
        """Create the upload, or take it up (called by the client)."""
        await self.filling.mend(self.filling.lanes[0])
        for part in self._claim.known:
            self.filling.contents.add(*part)

    async def write(self, data: BytesLike) -> None:
        """Append any bytes-like object of any length.

        On return `data` may be changed; it is sent, or waits in a chunk to be filled. Waits for
        credit, which is the server's back-pressure, and for what was sent to become durable when
        64 MiB are not. Raises RefusedError, ConnectionLostError.
        """
        self.filling.check()
        buffer = Buffer(memoryview(data).cast("B"))
        feeding = self._feed()
        whole = (len(buffer) + feeding.filled) // self.chunk_bytes
        stretch = Stretch(self.filling, feeding, buffer)
        if not whole and feeding.fits(len(buffer)):
            await feeding.next(buffer)
        else:
            await self.filling.pump(stretch, few=whole <= 1)

    def slot(self) -> AbstractAsyncContextManager[ClientSlot]:
        """Fill memory that the next chunk is sent from: `async with upload.slot() as slot`.

        Fill `slot.view`, which has `chunk_bytes` bytes, and set `slot.length`. It is sent when the
        block ends, or not at all if that is by an exception. Over a slab `slot.view` is the memory
        that the disk reads from: leave it alone from then on. A slot that is not filled whole, or
        begins where no chunk does, is copied, as `write` does. Waits and raises as `write` does;
        ValueError for a length that is none.
        """
        self.filling.check()
        return lend(self, self.filling, self._feed())

    async def send_from(self, source: StreamSource) -> None:
        """Append what a source has, to its end. Raises as `write` does, and what the source does.

        The next bytes are read while others are on their way.
        """
        await self.filling.pump(Stretch(self.filling, self._feed(), source))

    async def send_file(self, source: SeekableSource) -> None:
        """Send a source that can be read again: the whole upload, without keeping it in memory.

        Raises SourceError when it reads differently the second time, or is not what was durable
        already; otherwise as `write`. Not to be mixed with `write` and `send_from`.
        """
        assert self._feeding is None, "the bytes come from one kind of source"
        if self.size is not None and self.size != source.size:
            text = f"the upload is of {self.size} bytes, and the source has {source.size}"
            raise SourceError(f"{text}: resume with the data that it was begun with")
        self.filling.read_from(source)
        await compare(source, self._claim.known, self.filling)
        await self.filling.pump(Reading(self.filling, source, self._claim.known))

    async def sync(self) -> int:
        """Make durable what was sent; the result is the durable position in bytes.

        What fills no whole chunk yet is not covered: chunks are cut at the server's alignment.
        """
        return await self.filling.sync()

    async def commit(self) -> Receipt:
        """Finish. On return the durability that was asked for holds, and the receipt says so.

        A reply that is lost is asked for again, and is the same. Raises RefusedError (EXISTS,
        CONTENT_MISMATCH, IO ...), ConnectionLostError.
        """
        filling = self.filling
        if self._feeding is not None:
            tail = self._feeding.tail()
            if tail is not None:
                filling.send_again(tail)
        size = self.filling.contents.end
        crc = filling.contents.crc32c(size)
        message = pb.Commit(
            size=size,
            crc32c=crc,
            durability=int(self._durability),  # type: ignore[arg-type]  # the stub's own enum
        )
        reply = await self._commit(message)
        self._ended = True
        for other in filling.lanes:
            other.detach()
        if (reply.size, reply.crc32c) != (size, crc):
            raise RefusedError(
                ErrorCode.CONTENT_MISMATCH,
                f"the receipt names {reply.size} bytes with CRC32C {reply.crc32c:08x}, and "
                f"{size} bytes with {crc:08x} were sent",
            )
        return read_receipt(
            reply,
            sent_bytes=filling.sent_bytes,
            resumed=filling.resumed,
            lanes=len(filling.lanes),
        )

    def keep(self) -> None:
        """Leave the upload on the server when it is left, for `Client.resume` to go on with.

        What was not durable is sent again then. Without `resume` in force it is aborted all the
        same, by the server.
        """
        self._ended = True

    async def aclose(self) -> None:
        """Abort the upload if it has not ended. Takes 5 s at the most, and raises nothing.

        An upload whose server could not be found again is left to be resumed.
        """
        ended, self._ended = self._ended or self.filling.given_up, True
        with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_TIMEOUT_S):
            try:
                if not ended:
                    await self._claim.abort(self.filling.lanes)
            except ClientError:
                pass  # it expires some time, or goes with the connection
        for lane in self.filling.lanes:
            lane.detach()
        await self._claim.aclose()

    async def _commit(self, message: pb.Commit) -> pb.Receipt:
        filling = self.filling
        holes = 0
        # A COMMIT whose connection was lost may be at work, and the upload takes no chunks then:
        # it is asked for again by another lane, before anything is sent again.
        at_work = False
        while True:
            if not (at_work and any(lane.ready for lane in filling.lanes)):
                await filling.pump()
                if len(filling.lanes) > 1:
                    await filling.everything_accepted(message.size)
                at_work = False
            lane = next((lane for lane in filling.lanes if lane.ready), filling.lanes[0])
            if (filling.again and not at_work) or not lane.ready:
                continue
            try:
                reply: pb.Receipt = await lane.request(FrameType.COMMIT, message)
            except ClientError as exc:
                filling.check()
                at_work = isinstance(exc, ConnectionLostError)
                if holes < COMMITS_MAX and self._goes_on(exc):
                    holes += 1
                else:
                    filling.lost(lane, exc)
            else:
                return reply

    def _goes_on(self, error: ClientError) -> bool:
        """Whether a commit failed for lack of bytes that can be sent again."""
        if not isinstance(error, RefusedError) or error.code is not ErrorCode.INCOMPLETE:
            return False
        return bool(self.filling.again) or self.filling.send_missing(error.missing)

    def _feed(self) -> Feeding:
        assert self.filling.source is None, "the bytes come from one kind of source"
        if self._feeding is None:
            self._feeding = Feeding(self.filling, self._claim.known)
        return self._feeding
