"""What all clients that speak by hand do: attempts, each with lanes of its own, until it is done.

An attempt goes as far as it gets: it ends with the upload, with a refusal, or with a connection.
What became of the upload then, the next one finds out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.simulation.lane import LOST, Lane, Refused
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from tests.simulation.oracle import Story
    from tests.simulation.world import World
    from uringd.v1 import uringd_pb2 as pb

BROKEN = {ErrorCode.IO, ErrorCode.NO_SPACE}
"""What a server says of an upload that it has given up."""


class Attempts:
    """A client: `_story` is what it uploads now. Whoever inherits says what an attempt is."""

    _story: Story

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._oracle = world.oracle
        self._called = name
        self._asked = False  # for CREATE: it may be there

    async def _upload(self, nursery: trio.Nursery, lanes: list[Lane]) -> None:
        """Connect, take the upload up, fill it, commit it."""
        raise NotImplementedError

    def _refused(self, exc: Refused) -> None:
        """Take the refusal that ended an attempt."""
        raise NotImplementedError

    async def _try(self) -> None:
        """Make an attempt."""
        async with trio.open_nursery() as nursery:
            lanes: list[Lane] = []
            try:
                await self._upload(nursery, lanes)
            except Refused as exc:
                self._refused(exc)
            except LOST:
                pass
            finally:
                self._close(lanes)
                nursery.cancel_scope.cancel()

    def _close(self, lanes: list[Lane]) -> None:
        """Close an attempt's lanes."""
        for lane in lanes:
            lane.close()

    async def _connect(self, nursery: trio.Nursery, lanes: list[Lane]) -> Lane:
        lane = Lane(self._world, f"{self._called} lane {len(lanes)}")
        lanes.append(lane)
        await lane.open(nursery)
        return lane

    def _attach(self, lane: Lane, reply: pb.CreateReply | pb.ResumeReply) -> None:
        """Let a lane be of the upload from now on."""
        lane.handle, story = reply.upload, self._story
        lane.durable = lambda position: self._oracle.durable(story, position)

    def _broke(self) -> None:
        """Hear that the server has given the upload up."""
        if self._story.receipt is None:
            self._oracle.ended.setdefault(self._story.upload_id, "failed")
