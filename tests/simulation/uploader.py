"""A client that uploads one file, whatever becomes of its connections and of the daemon.

It is a good client with bad habits: it sends chunks in any order, some twice, some damaged, some
with other bytes than before; leaves without a word and comes back; lets an old connection go on
after it was fenced; uploads over names that others upload to.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import trio

from tests.simulation.attempts import BROKEN, Attempts
from tests.simulation.lane import LOST, Lane, Refused
from tests.simulation.oracle import Story
from uringd.errors import ConnectionLostError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from tests.simulation.world import World

CHUNKS_MAX = 8
LANES_MAX = 3
ALIGNMENT = 4096
TRY_S = 400.0
"""Longer than any wait of the server's: a try that takes longer is given up, and begun anew."""

LATER = {ErrorCode.BUSY, ErrorCode.SHUTTING_DOWN, ErrorCode.TOO_MANY_UPLOADS, ErrorCode.FENCED}
GONE = {ErrorCode.NOT_FOUND}

Extent = tuple[int, int]


class Uploader(Attempts):
    """Uploads until its file is published, or it has aborted it."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, f"client {number}")
        self._random = random.Random(f"{world.seed}/client/{number}")
        self._number = number
        self._uploads = 0
        chance, slot = self._random, world.plan.slot_bytes
        self._name = chance.choice(["a", "b", "sub/c"][: world.plan.names])
        chunks = chance.randint(0, CHUNKS_MAX)
        self._size = chunks * slot + chance.choice([0, 0, 1, 4095, 4096, slot - 1]) % slot
        self._overwrite = chance.random() < 0.7
        self._level = chance.choice(
            [Durability.PUBLISHED] * 3 + [Durability.DURABLE, Durability.WRITTEN]
        )
        self._sized = chance.random() < 0.5
        self._lanes = chance.randint(1, LANES_MAX)
        self._aborts = 0.1 if chance.random() < 0.2 else 0.0
        self._bad = chance.choice([0.0, 0.1, 0.3])  # how often it does what it should not
        self._zombie: Lane | None = None
        self._epoch = 0
        self._done = False
        self._story = self._new_story()

    async def run(self) -> None:
        """Upload. Ends when it is done."""
        await trio.sleep(self._random.uniform(0, 0.2))
        try:
            while not self._done:
                with trio.move_on_after(TRY_S):
                    await self._try()
                await trio.sleep(self._random.uniform(0.01, 1.0))
        finally:
            if self._zombie is not None:
                self._zombie.close()

    def _new_story(self) -> Story:
        self._uploads += 1
        chance = random.Random(f"{self._world.seed}/content/{self._number}/{self._uploads}")
        story = Story(
            chance.randbytes(16).hex(),
            self._name,
            chance.randbytes(self._size),
            self._overwrite,
            self._level,
        )
        self._oracle.begin(story)
        return story

    def _close(self, lanes: list[Lane]) -> None:
        alive = [lane for lane in lanes if lane.handle and not lane.lost]
        if self._bad and alive and self._zombie is None and not self._done:
            self._zombie = alive[0]  # its reader ends here; its connection stands
        super()._close([lane for lane in lanes if lane is not self._zombie])

    async def _upload(self, nursery: trio.Nursery, lanes: list[Lane]) -> None:
        main = await self._connect(nursery, lanes)
        todo = await self._take_up(main)
        if todo is None:
            return
        await self._haunt(unfinished=bool(todo))
        for _ in range(self._lanes - 1):
            lane = await self._connect(nursery, lanes)
            message = pb.Resume(upload_id=self._story.upload_id, epoch=self._epoch, join=True)
            reply = await lane.ask(FrameType.RESUME, message)
            self._attach(lane, reply)
            self._oracle.resumed(self._story, reply)
        for _ in range(20):
            todo = await self._fill(lanes, todo)
            if not todo:
                todo = await self._finish(self._random.choice(lanes))
            if not todo:
                return

    async def _take_up(self, lane: Lane) -> list[Extent] | None:
        """Create the upload, or resume it: what is to be sent, None when there is no more to do."""
        story = self._story
        if not self._asked:
            return await self._create(lane, story)
        cuts = self._oracle.cuts
        try:
            reply = await lane.ask(FrameType.RESUME, pb.Resume(upload_id=story.upload_id))
        except Refused as exc:
            if exc.code in BROKEN:  # another session holds it still: only an abort is left
                self._refused(exc)
                story.aborting = True
                with contextlib.suppress(Refused):
                    await lane.ask(FrameType.ABORT, pb.Abort(upload_id=story.upload_id))
            if exc.code is not ErrorCode.NOT_FOUND:
                raise
            self._oracle.not_found(story)
            if story.created or story.aborted:
                self._story = story = self._new_story()
            return await self._create(lane, story)
        self._oracle.found(story, cuts)
        self._attach(lane, reply)
        ranges = self._oracle.resumed(story, reply)
        self._world.tally.counts["uploads: resumed"] += 1
        return self._missing(ranges)

    def _attach(self, lane: Lane, reply: pb.CreateReply | pb.ResumeReply) -> None:
        super()._attach(lane, reply)
        self._epoch = reply.epoch

    async def _create(self, lane: Lane, story: Story) -> list[Extent] | None:
        self._asked = True
        message = pb.Create(
            name=story.name,
            size=self._size if self._sized else None,
            overwrite=story.overwrite,
            durability=int(story.level),  # type: ignore[arg-type]  # the stub's own enum
            upload_id=story.upload_id,
        )
        cuts = self._oracle.cuts
        reply = await lane.ask(FrameType.CREATE, message)
        self._oracle.found(story, cuts)
        self._attach(lane, reply)
        self._world.tally.counts["uploads: created"] += 1
        return self._missing([])

    def _missing(self, ranges: list[Extent]) -> list[Extent]:
        """Cut what is not in `ranges` into chunks of any length, in any order."""
        todo, at = [], 0
        for start, end in [*ranges, (self._size, self._size)]:
            while at < start:
                blocks = self._random.randint(1, self._world.plan.slot_bytes // ALIGNMENT)
                length = min(blocks * ALIGNMENT, start - at)
                if self._random.random() < 0.7:
                    length = min(self._world.plan.slot_bytes, start - at)
                todo.append((at, length))
                at += length
            at = max(at, end)
        self._random.shuffle(todo)
        return todo

    async def _fill(self, lanes: list[Lane], todo: list[Extent]) -> list[Extent]:
        """Send what is to be sent by all lanes: what was refused of it comes back."""
        again: list[Extent] = []
        failures: list[BaseException] = []

        async def fill(lane: Lane) -> None:
            try:
                while todo:
                    await self._send(lane, *todo.pop())
                    await self._misbehave(lane)
                await lane.settle()
                await self._contradict(lane)
            except (Refused, *LOST) as exc:
                failures.append(exc)
            again.extend(self._noticed(lane))

        async with trio.open_nursery() as nursery:
            for lane in lanes:
                nursery.start_soon(fill, lane)
        if failures:
            raise failures[0]
        return again

    async def _send(self, lane: Lane, offset: int, length: int) -> None:
        data = self._story.content[offset : offset + length]
        crc = crc32c(data)
        lane.sent.append((offset, data))
        if self._random.random() < self._bad / 3:
            at = self._random.randrange(length)
            damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            lane.sent.pop()
            await lane.chunk(offset, damaged, crc=crc, pages=data)
        else:
            await lane.chunk(offset, data, crc=crc)

    async def _misbehave(self, lane: Lane) -> None:
        """Do something else in between, now and then."""
        chance = self._random
        if chance.random() < self._aborts:
            await self._abort(lane)
        if chance.random() < self._bad and lane.sent:
            offset, data = chance.choice(lane.sent)
            await lane.chunk(offset, data, crc=crc32c(data))
        if chance.random() < 0.1:
            reply = await lane.ask(FrameType.SYNC, pb.Sync(), lane.handle)
            self._oracle.durable(self._story, reply.durable)
        if chance.random() < 0.05:
            await lane.ask(FrameType.LIST, pb.List(uploads=chance.random() < 0.5))
        if chance.random() < self._bad / 4:
            raise ConnectionLostError("we have walked away, and come back")

    async def _contradict(self, lane: Lane) -> None:
        """Send other bytes for a chunk that was taken: they must be refused."""
        taken = [(at, data) for at, data in lane.sent if at not in lane.notices]
        if self._random.random() >= self._bad or not taken:
            return
        offset, data = self._random.choice(taken)
        other = bytes([data[0] ^ 255]) + data[1:]
        await lane.chunk(offset, other, crc=crc32c(other))
        await lane.settle()
        if offset not in lane.notices:  # nor is anything, of an upload that is broken
            await lane.ask(FrameType.SYNC, pb.Sync(), lane.handle)
        notice = lane.notices.pop(offset, None)
        self._world.tally.counts["chunks: in conflict"] += 1
        if self._is_gone(notice):
            return
        if notice is None or notice.code not in {ErrorCode.CONFLICT, ErrorCode.BAD_CHECKSUM}:
            said = "nothing" if notice is None else notice.code.name
            self._world.broken(f"other bytes at {offset} were sent, and {said} was said of it")

    def _is_gone(self, notice: Refused | None) -> bool:
        """Whether another lane of ours has thrown the upload away meanwhile."""
        missed = notice is not None and notice.code is ErrorCode.NOT_FOUND
        return self._story.aborting and missed

    def _noticed(self, lane: Lane) -> list[Extent]:
        """Take what was said of single chunks: what has to be sent again."""
        again: list[Extent] = []
        for offset, notice in lane.notices.items():
            if notice.code is ErrorCode.BAD_CHECKSUM:
                lengths = {at: len(data) for at, data in lane.sent}
                again += notice.missing or [(offset, lengths.get(offset, 0))]
                lane.sent = [sent for sent in lane.sent if sent[0] != offset]  # it was not taken
            elif notice.code is not ErrorCode.CONFLICT and not (
                self._done or self._is_gone(notice)
            ):
                self._world.broken(f"the chunk at {offset} was refused with {notice.code.name}")
        lane.notices.clear()
        return [extent for extent in again if extent[1]]

    async def _finish(self, lane: Lane) -> list[Extent]:
        """Commit: what is missing, if anything is."""
        story = self._story
        if self._random.random() < self._aborts:
            await self._abort(lane)
        self._oracle.committing(story)
        message = pb.Commit(
            size=self._size,
            crc32c=crc32c(story.content) if self._random.random() < 0.5 else None,
            durability=int(story.level),  # type: ignore[arg-type]  # the stub's own enum
        )
        try:
            receipt = await lane.ask(FrameType.COMMIT, message, lane.handle)
        except Refused as exc:
            if exc.code is ErrorCode.INCOMPLETE:
                return self._cut(exc.missing)
            raise
        self._oracle.committed(story, receipt)
        if self._random.random() < 0.2:
            self._oracle.committed(story, await lane.ask(FrameType.COMMIT, message, lane.handle))
        self._end("published")
        return []

    def _cut(self, missing: list[Extent]) -> list[Extent]:
        slot = self._world.plan.slot_bytes
        return [
            (at, min(slot, start + length - at))
            for start, length in missing
            for at in range(start, start + length, slot)
        ]

    async def _abort(self, lane: Lane) -> None:
        upload = lane.handle if self._random.random() < 0.5 else 0
        message = pb.Abort(upload_id="" if upload else self._story.upload_id)
        self._story.aborting = True
        await lane.ask(FrameType.ABORT, message, upload)
        self._oracle.aborted(self._story)
        self._end("aborted")
        raise Refused(pb.Error(code=int(ErrorCode.NOT_FOUND), text="we threw it away"))  # type: ignore[arg-type]

    async def _haunt(self, *, unfinished: bool) -> None:
        """Let a connection that lost the upload go on: none of what it sends may arrive."""
        zombie, self._zombie = self._zombie, None
        if zombie is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(zombie._receive)
                with trio.move_on_after(5):
                    await self._send_junk(zombie, unfinished=unfinished)
                nursery.cancel_scope.cancel()
        finally:
            zombie.close()

    async def _send_junk(self, zombie: Lane, *, unfinished: bool) -> None:
        junk = bytes(min(ALIGNMENT, self._size))
        try:
            if junk and zombie.handle:
                self._world.tally.counts["chunks: after a fence"] += 1
                await zombie.chunk(0, junk, crc=crc32c(junk))
            await zombie.ask(FrameType.COMMIT, pb.Commit(size=self._size), zombie.handle)
        except (Refused, *LOST):
            return
        if unfinished:
            self._world.broken(f"{zombie.name} was fenced, and COMMIT is answered")

    def _refused(self, exc: Refused) -> None:
        """Take a refusal: wait, begin anew, or be done with it."""
        world, code = self._world, exc.code
        if code in BROKEN:
            if not world.may_fail:
                world.broken(f"{code.name}, and nothing was wrong: {exc.text}")
            self._broke()
        elif code is ErrorCode.EXISTS:
            self._end("refused")
        elif code not in LATER | GONE and not (code is ErrorCode.BAD_NAME and world.may_fail):
            world.broken(f"{code.name} was said: {exc.text}")

    def _end(self, how: str) -> None:
        self._done = True
        self._world.tally.counts[f"uploads: {how}"] += 1
