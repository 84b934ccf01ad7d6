"""Our right to an upload: creating it, and taking it up again. PROTOCOL.md, "Resume and fencing".

We choose the id, so that an upload can be found whose CREATE was never answered. What we held and
lost with its session we join again, by the epoch that we know: so a RESUME whose reply is lost too
can be asked again, and an upload that somebody else has taken over is left to them (FENCED). Our
own dead session may still hold it meanwhile; what it sent is what we would send. Another client's
upload is taken over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.errors import RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ByteRange, ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.client.connecting import Client
    from uringd.client.filling import Filling
    from uringd.client.lane import Lane
    from uringd.client.link import Link


class Claim:
    """An upload's id and epoch, and the connections of its lanes."""

    def __init__(self, client: Client, upload_id: str, create: pb.Create | None = None) -> None:
        self._client = client
        self._create = create
        self._asked = False
        self._held = False
        self._links: dict[int, Link] = {}
        self.id = upload_id
        self.epoch = 0
        self.name = "" if create is None else create.name
        self.size = create.size if create is not None and create.HasField("size") else None
        self.known: list[ByteRange] = []
        """What was durable already when an upload of another life of ours was taken up."""
        self.resumable = "resume" in client.features

    @property
    def retry_s(self) -> float:
        """How long to go on without progress, in seconds."""
        return self._client.retry_s

    async def take_up(self, lane: Lane, filling: Filling) -> None:
        """Give a lane its part in the upload. Raises RefusedError, ConnectionLostError."""
        link = await self._link(lane)
        try:
            if not self._held:  # it may be refused: nothing has been done yet then
                await self._client.share_memory(link)
            await self._take_up(lane, link, filling)
        except BaseException:
            if lane.number:  # an answer may still come, with a handle that nobody knows
                await link.aclose()
            raise

    async def _take_up(self, lane: Lane, link: Link, filling: Filling) -> None:
        if self._create is None or self._held or self._asked:
            try:
                await self._resume(lane, link, filling)
            except RefusedError as exc:
                if exc.code is not ErrorCode.NOT_FOUND or self._held or self._create is None:
                    raise
            else:
                return
        assert self._create is not None
        self._asked = True
        reply: pb.CreateReply = await link.request(FrameType.CREATE, self._create)
        self.id = reply.upload_id
        self._attach(lane, link, filling, reply, bytes.fromhex(link.instance_id))

    async def abort(self, lanes: list[Lane]) -> None:
        """Throw the upload away. Raises ClientError."""
        for lane in lanes:
            if lane.ready:
                await lane.request(FrameType.ABORT, pb.Abort())
                return
        if self.resumable and (self._asked or self._held):
            link = await self._client.renew()
            await link.request(FrameType.ABORT, pb.Abort(upload_id=self.id))

    async def aclose(self) -> None:
        """Close the connections of all lanes but the first."""
        for link in self._links.values():
            await link.aclose()
        self._links.clear()

    async def _link(self, lane: Lane) -> Link:
        if lane.number == 0:
            link = await self._client.renew() if self.resumable else self._client.link
        else:
            old = self._links.get(lane.number)
            if old is not None and not old.alive:
                await old.aclose()
                del self._links[lane.number]
            if lane.number not in self._links:
                self._links[lane.number] = await self._client.open_link()
            link = self._links[lane.number]
        if self.resumable and "resume" not in link.features:
            text = f"the server at {link.url} does not offer resume any more"
            raise RefusedError(ErrorCode.UNSUPPORTED, text)
        return link

    async def _resume(self, lane: Lane, link: Link, filling: Filling) -> None:
        join = self._held and "lanes" in link.features
        message = pb.Resume(upload_id=self.id, epoch=self.epoch, join=join)
        reply: pb.ResumeReply = await link.request(FrameType.RESUME, message)
        await self._client.share_memory(link)  # not before: what has memory attached cannot move
        durable = [ByteRange(part.offset, part.length, part.crc32c) for part in reply.durable]
        if not self._held:
            self.name = reply.name
            self.size = reply.size if reply.HasField("size") else None
            self.known = durable
        self._attach(lane, link, filling, reply, reply.instance_id)
        extents = [(part.offset, part.length) for part in durable]
        filling.resumed_with(lane, extents, reply.instance_id)

    def _attach(
        self,
        lane: Lane,
        link: Link,
        filling: Filling,
        reply: pb.CreateReply | pb.ResumeReply,
        instance_id: bytes,
    ) -> None:
        self.epoch = reply.epoch
        self._held = True
        chunk_bytes = min(reply.chunk_bytes, link.chunk_bytes)
        credit = link.credit.available
        if link.places is not None:
            chunk_bytes = link.places.chunk_bytes or chunk_bytes
            credit = min(credit, link.places.count or credit)
        filling.fit(chunk_bytes, credit)
        lane.attach(link, reply.upload, instance_id)
