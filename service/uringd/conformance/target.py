"""The server under test: how to reach it, what it offers, and what the kit has left in it."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
from typing import TYPE_CHECKING

import anyio

from uringd.conformance.case import FailedError, same
from uringd.conformance.peer import Peer, open_stream
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from uringd.conformance.leaving import Leaving
    from uringd.urls import Url

FEATURES = (
    "resume",
    "lanes",
    "page-checksums",
    "small-uploads",
    "copy",
    "sealed",
    "slab",
)
"""Those that cases need; what a server has of them is asked once."""

POLL_S = 0.02
"""Between two looks at something that the server does in its own time."""

PUBLISHED = b"hello"
"""The content of the file that `Target.published` publishes."""


class Target:
    """A server, and a prefix of names in it that nobody else uses.

    `timeout_s` bounds each wait for the server. `facts` is what HELLO's reply said first.
    """

    def __init__(self, url: Url, token: str = "", timeout_s: float = 15.0) -> None:
        self.url = url
        self.token = token
        self.timeout_s = timeout_s
        self.prefix = f"conformance-{secrets.token_hex(8)}"
        self.facts = pb.HelloReply()
        self.unfinished: set[str] = set()
        self.leaving: Leaving | None = None
        self._serial = itertools.count(1)
        self._published = ""

    @property
    def features(self) -> frozenset[str]:
        """What the server has of FEATURES."""
        return frozenset(self.facts.features)

    @property
    def alignment(self) -> int:
        """Bytes: what offsets of chunks are multiples of."""
        return self.facts.alignment

    def name(self) -> str:
        """Return a name below the prefix that was not used yet."""
        return f"{self.prefix}/{next(self._serial)}"

    @property
    def scratch(self) -> str:
        """The name of the one file that cases replace, so that few are left."""
        return f"{self.prefix}/scratch"

    def blocks(self, count: int, seed: int = 0) -> bytes:
        """Make the content of `count` alignments: the same each time, no two blocks alike."""
        return random.Random(seed).randbytes(count * self.alignment)  # noqa: S311  # no secret

    async def probe(self) -> None:
        """Say HELLO with all features, and keep what the server answers."""
        async with self.connection() as peer:
            self.facts = await peer.hello(*FEATURES, token=self.token)

    async def open(self) -> Peer:
        """Connect, and say nothing yet. Who calls closes. Raises NobodyThereError."""
        try:
            with anyio.fail_after(self.timeout_s):
                return Peer(await open_stream(self.url), self.timeout_s)
        except TimeoutError:
            reason = f"no answer within {self.timeout_s} s"
        except OSError as exc:
            reason = str(exc)
        raise NobodyThereError(f"a connection to {self.url}", reason)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Peer]:
        """Connect, and say nothing yet. Leaving cuts the connection."""
        peer = await self.open()
        try:
            yield peer
        finally:
            self.unfinished |= peer.unfinished
            await peer.cut()

    @contextlib.asynccontextmanager
    async def session(self, *features: str) -> AsyncIterator[Peer]:
        """Connect and say HELLO, with the features a case needs. Leaving cuts the connection."""
        async with self.connection() as peer:
            await peer.hello(*features, token=self.token)
            same("the features in force", set(features) & self.features, set(peer.features))
            yield peer

    async def published(self) -> str:
        """Return the name of a published file of PUBLISHED; there is one for all cases."""
        if not self._published:
            name = f"{self.prefix}/published"
            async with self.session() as peer:
                upload = (await peer.create(name)).upload
                await peer.data(upload, 0, PUBLISHED)
                await peer.commit(upload, len(PUBLISHED))
            self._published = name
        return self._published

    async def until(self, what: str, look: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again until something holds that the server does in its own time."""
        with anyio.move_on_after(self.timeout_s):
            while not await look():  # noqa: ASYNC110  # the server sets no event
                await anyio.sleep(POLL_S)
            return
        raise FailedError(what, f"not within {self.timeout_s} s")

    async def clean_up(self) -> None:
        """Abort what cases have left unfinished; what is gone already is no error."""
        if not self.unfinished:
            return
        async with self.session() as peer:
            while self.unfinished:
                message = pb.Abort(upload_id=self.unfinished.pop())
                frame, cookie = peer.frame(FrameType.ABORT, message)
                await peer.send(frame)
                await peer.answer(cookie)


class NobodyThereError(FailedError):
    """No connection to the server could be made."""
