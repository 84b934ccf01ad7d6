"""The canonical upload: everything a client does to have one file published, in one order.

A file of unknown size below a directory that has to be made: three chunks, SYNC, the connection is
lost, RESUME, the other chunks, one of them twice, COMMIT, and COMMIT again. Before the COMMIT a
second upload, of declared size, is begun and aborted.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from tests.simulation.attempts import BROKEN, Attempts
from tests.simulation.lane import Lane, Refused
from tests.simulation.oracle import Story
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from tests.nth.trial import Trial

NAME, OTHER_NAME = "made/file", "other"
CHUNK = 8192
CHUNKS, CHUNKS_FIRST = 4, 2
TAIL = 100
PAUSE_S = 1.0


class Client(Attempts):
    """Uploads one file, again and again until it is published. `told` is what it was refused."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial, "client")
        self.told: list[ErrorCode] = []
        self.published = False
        self._stories = 0
        self._refused_to_resume = 0
        self._story = self._new_story()

    async def run(self, tries: int) -> None:
        """Try so often, at the most, to have it published."""
        for _ in range(tries):
            if self.published:
                return
            await self._try()
            await trio.sleep(PAUSE_S)

    def _new_story(self) -> Story:
        self._stories += 1
        self._asked = False
        chance = random.Random(self._stories)
        content = chance.randbytes(CHUNKS * CHUNK + TAIL)
        story = Story(chance.randbytes(16).hex(), NAME, content, True, Durability.PUBLISHED)
        self._oracle.begin(story)
        return story

    async def _upload(self, nursery: trio.Nursery, lanes: list[Lane]) -> None:
        if not self._asked:
            lane = await self._connect(nursery, lanes)
            await self._create(lane)
            await self._send(lane, 0, CHUNKS_FIRST)
            reply = await lane.ask(FrameType.SYNC, pb.Sync(), lane.handle)
            self._oracle.durable(self._story, reply.durable)
            lane.close()
        lane = await self._connect(nursery, lanes)
        done = await self._resume(lane)
        if done < len(self._story.content):
            await self._send(lane, done // CHUNK, CHUNKS + 1)
            await self._send(lane, CHUNKS, CHUNKS + 1)  # the same again is success
        await self._abort_another(lane)
        await self._commit(lane)

    async def _create(self, lane: Lane) -> None:
        self._asked = True
        cuts = self._oracle.cuts
        message = pb.Create(name=NAME, overwrite=True, upload_id=self._story.upload_id)
        self._attach(lane, await lane.ask(FrameType.CREATE, message))
        self._oracle.found(self._story, cuts)

    async def _resume(self, lane: Lane) -> int:
        """Take the upload up; the result is how much of it is there, from its begin on."""
        story, cuts = self._story, self._oracle.cuts
        try:
            reply = await lane.ask(FrameType.RESUME, pb.Resume(upload_id=story.upload_id))
        except Refused as exc:
            if exc.code is ErrorCode.NOT_FOUND:
                self._oracle.not_found(story)
                self._story = self._new_story()
            elif exc.code in BROKEN:
                await self._give_up_twice_refused(lane)
            raise
        self._refused_to_resume = 0
        self._oracle.found(story, cuts)
        self._attach(lane, reply)
        ranges = self._oracle.resumed(story, reply)
        return ranges[0][1] if ranges and ranges[0][0] == 0 else 0

    async def _give_up_twice_refused(self, lane: Lane) -> None:
        """Abort what cannot be resumed: not at once, for it may be the server that could not."""
        self._refused_to_resume += 1
        if self._refused_to_resume < 2:
            return
        self._story.aborting = True
        self._oracle.ended.setdefault(self._story.upload_id, "failed")
        await lane.ask(FrameType.ABORT, pb.Abort(upload_id=self._story.upload_id))

    async def _send(self, lane: Lane, first: int, end: int) -> None:
        for offset in range(first * CHUNK, min(end * CHUNK, len(self._story.content)), CHUNK):
            data = self._story.content[offset : offset + CHUNK]
            await lane.chunk(offset, data, crc=crc32c(data))

    async def _abort_another(self, lane: Lane) -> None:
        data = bytes(CHUNK)
        before = lane.handle, lane.positions, lane.durable
        reply = await lane.ask(FrameType.CREATE, pb.Create(name=OTHER_NAME, size=2 * CHUNK))
        lane.handle, lane.positions, lane.durable = reply.upload, (0, 0, 0), lambda _: None
        await lane.chunk(0, data, crc=crc32c(data))
        try:
            await lane.settle()  # of a write that fails behind an abort nobody would be told
            await lane.ask(FrameType.ABORT, pb.Abort(), reply.upload)
        except Refused as exc:  # it is there still, and not in this upload's way
            self.told.append(exc.code)
            lane.broken = None
        lane.handle, lane.positions, lane.durable = before

    async def _commit(self, lane: Lane) -> None:
        story = self._story
        self._oracle.committing(story)
        content = story.content
        message = pb.Commit(size=len(content), crc32c=crc32c(content))
        for _ in range(2):
            self._oracle.committed(story, await lane.ask(FrameType.COMMIT, message, lane.handle))
            self.published = True

    def _refused(self, exc: Refused) -> None:
        self.told.append(exc.code)
        if exc.code in BROKEN:
            self._broke()
