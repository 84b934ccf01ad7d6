"""A server that leaves: the sessions from which it is watched, opened before it begins.

A client cannot ask a server to leave, so somebody else has to: `leave` is called once, when the
first case of SHUTDOWN begins. A server that leaves takes no new sessions, so each case gets one
that was open before, with an upload in it that keeps the server from going at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, SkippedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

SESSIONS = 8
"""Cases of SHUTDOWN there may be."""


class Leaving:
    """Makes a server leave, once, and hands out sessions that were open before."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._sessions: list[tuple[Peer, int]] = []
        self._begun = False

    @contextlib.asynccontextmanager
    async def session(self, target: Target) -> AsyncIterator[tuple[Peer, int]]:
        """Lend a session that has read SHUTDOWN, and the handle of its upload."""
        if not self._begun:
            self._begun = True
            for _ in range(SESSIONS):
                peer = await target.open()
                await peer.hello("resume", token=target.token)
                reply = await peer.create(target.scratch, overwrite=True)
                self._sessions.append((peer, reply.upload))
            self._leave()
        if not self._sessions:
            raise FailedError("a session that was open before", "none is left")
        peer, upload = self._sessions.pop()
        try:
            while not peer.shutdowns:
                if await peer.receive() is None:
                    raise FailedError("SHUTDOWN", "the end of the stream")
            yield peer, upload
        finally:
            await _give_up(peer, upload)

    async def aclose(self) -> None:
        """Give up what was not used, so that the server need not wait for it."""
        while self._sessions:
            await _give_up(*self._sessions.pop())


async def _give_up(peer: Peer, upload: int) -> None:
    """Abort the upload, if it is still there, and close."""
    with contextlib.suppress(FailedError):
        frame, cookie = peer.frame(FrameType.ABORT, pb.Abort(), upload)
        await peer.send(frame)
        await peer.answer(cookie)
    await peer.cut()


def leaving(target: Target) -> Leaving:
    """Return the target's, or skip the case."""
    if target.leaving is None:
        raise SkippedError("nobody makes this server leave: give --server-pid")
    return target.leaving
