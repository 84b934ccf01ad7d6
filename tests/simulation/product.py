"""A client that is the product's own: it finds back by itself, and again if it gives up."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from tests.simulation.oracle import Story
from uringd.client import connect
from uringd.errors import PASSING, ClientError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode

if TYPE_CHECKING:
    from tests.simulation.world import World
    from uringd.client import ClientUpload

PIECES_MAX = 6
RETRY_S = 30.0
"""What the client's own patience is: short, so that it is also taken up from outside."""


class ProductClient:
    """Uploads one file by `uringd.client`."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._random = chance = random.Random(f"{world.seed}/product/{number}")
        self._name = chance.choice(["a", "product"])
        self._size = chance.randint(0, 6 * world.plan.slot_bytes)
        self._overwrite = chance.random() < 0.7
        self._level = chance.choice(list(Durability)[1:])
        self._lanes = chance.randint(1, 3)
        self._story: Story | None = None
        self._uploads = 0
        self._cuts = 0

    async def run(self) -> None:
        """Upload. Ends when it is published, or refused."""
        while True:
            try:
                if await self._try():
                    return
            except RefusedError as exc:
                if self._refused(exc):
                    return
            except ClientError:
                pass
            await trio.sleep(self._random.uniform(0.1, 2.0))

    async def _try(self) -> bool:
        self._cuts = self._world.oracle.cuts
        async with connect("unix:///simulated", timeout_s=90.0, retry_s=RETRY_S) as client:
            if self._story is None:
                uploading = client.upload(
                    self._name,
                    self._size if self._random.random() < 0.5 else None,
                    overwrite=self._overwrite,
                    durability=self._level.name.lower(),
                    lanes=self._lanes,
                    page_checksums=self._random.random() < 0.5,
                )
            else:
                self._world.tally.counts["uploads: resumed"] += 1
                level = self._level.name.lower()
                uploading = client.resume(
                    self._story.upload_id, durability=level, lanes=self._lanes
                )
            async with uploading as upload:
                try:
                    await self._fill(upload)
                except ClientError:
                    upload.keep()
                    raise
        return True

    async def _fill(self, upload: ClientUpload) -> None:
        if self._story is None:
            self._story = self._begin(upload)
        story, chance = self._story, self._random
        assert upload.id == story.upload_id
        view = memoryview(story.content)
        while view:
            length = chance.randint(1, max(1, self._size // PIECES_MAX))
            await upload.write(view[:length])
            self._world.tally.requests += 1
            view = view[length:]
            if chance.random() < 0.1:
                await upload.sync()
            self._world.oracle.durable(story, upload.durable)
        self._world.oracle.committing(story)
        receipt = await upload.commit()
        self._world.tally.requests += 1
        told = pb.Receipt(
            upload_id=receipt.upload_id,
            name=receipt.name,
            size=receipt.size,
            crc32c=int(receipt.crc32c, 16),
            durability=int(Durability[receipt.durability.upper()]),  # type: ignore[arg-type]
        )
        self._world.oracle.committed(story, told)
        self._world.tally.counts["uploads: published"] += 1

    def _begin(self, upload: ClientUpload) -> Story:
        self._uploads += 1
        chance = random.Random(f"{self._world.seed}/product content/{self._uploads}")
        content = chance.randbytes(self._size)
        story = Story(upload.id, self._name, content, self._overwrite, self._level)
        self._world.oracle.begin(story)
        self._world.oracle.found(story, self._cuts)
        self._world.tally.counts["uploads: created"] += 1
        return story

    def _refused(self, exc: RefusedError) -> bool:
        """Take a refusal; whether that is the end."""
        world, story = self._world, self._story
        if exc.code is ErrorCode.EXISTS:
            world.tally.counts["uploads: refused"] += 1
            return True
        if exc.code is ErrorCode.NOT_FOUND and story is not None:
            world.oracle.not_found(story)
            self._story = None
        elif exc.code in {ErrorCode.IO, ErrorCode.NO_SPACE}:
            if not world.may_fail:
                world.broken(f"{exc.code.name}, and nothing was wrong: {exc}")
            if story is not None and story.receipt is None:
                world.oracle.ended.setdefault(story.upload_id, "failed")
            self._story = None
        elif exc.code not in PASSING | {ErrorCode.FENCED} and not world.plan.damage:
            world.broken(f"{exc.code.name} was said to the product's client: {exc}")
        return False
