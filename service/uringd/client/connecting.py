"""Connecting to a server, and what can be asked of it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from uringd.client.attaching import Transport, attach, check_offered, wanted
from uringd.client.backoff import RETRY_S
from uringd.client.claim import Claim
from uringd.client.link import ANSWER_TIMEOUT_S, Link, open_link
from uringd.client.small import IN_FLIGHT_MAX, PutResult, SmallUploads
from uringd.client.upload import ClientUpload
from uringd.client.watcher import Watcher
from uringd.errors import ClientError, RefusedError
from uringd.urls import Url, parse_url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    UPLOAD_ID_CHARS,
    BadNameError,
    Durability,
    ErrorCode,
    FrameType,
    check_name,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from google.protobuf.message import Message
    from typing_extensions import Buffer

LANES_MAX = 64
"""Connections of one upload: beyond a few they only share what there is."""


class Client:
    """A server that is connected to. Made by `connect`; used by one task at a time.

    `chunk_bytes` and `alignment` are the server's, in bytes; `instance_id` names the server's life,
    in hexadecimal: when it changes, what was not durable may be lost. `features` are those in
    force.
    """

    def __init__(
        self,
        url: Url,
        token: str,
        timeout_s: float,
        retry_s: float,
        transport: Transport,
        *,
        read_back: bool,
    ) -> None:
        self._url = url
        self._token = token
        self._timeout_s = timeout_s
        self._transport = transport
        self._read_back = read_back
        self._link: Link | None = None
        self.retry_s = retry_s

    @property
    def link(self) -> Link:
        """The connection of the moment."""
        assert self._link is not None, "it was connected"
        return self._link

    @property
    def url(self) -> Url:
        """The server's address."""
        return self._url

    @property
    def server(self) -> str:
        """Who answers, as it calls itself."""
        return self.link.server

    @property
    def instance_id(self) -> str:
        """The server's life, by its last acknowledgement."""
        return self.link.instance_id

    @property
    def chunk_bytes(self) -> int:
        """The longest chunk, in bytes."""
        return self.link.chunk_bytes

    @property
    def alignment(self) -> int:
        """What every chunk's offset is a multiple of, and every length but the last one's."""
        return self.link.alignment

    @property
    def small_bytes_max(self) -> int:
        """The longest file that `put_many` takes, in bytes; 0 where it takes none."""
        return self.link.small_bytes_max

    @property
    def features(self) -> frozenset[str]:
        """What the server offers of what this client asks for."""
        return self.link.features

    @contextlib.asynccontextmanager
    async def upload(
        self,
        name: str,
        size: int | None = None,
        *,
        overwrite: bool = False,
        durability: str = "published",
        lanes: int = 1,
        page_checksums: bool = False,
        watcher: Watcher | None = None,
    ) -> AsyncIterator[ClientUpload]:
        """Begin an upload; leaving without `commit` aborts it.

        `size` in bytes, when it is known, lets the server reserve the space at once. `durability`
        is what commit will promise: "written", "durable" or "published". `lanes` connections fill
        it, 1 to 64. `page_checksums` cost a few bytes more for each chunk, and when one is damaged
        on its way only the damaged 64 KiB are sent again.
        Raises RefusedError (EXISTS, BAD_NAME, NO_SPACE ...; UNSUPPORTED for what this server does
        not offer) or ConnectionLostError.
        """
        _check_name(name)
        level = Durability[durability.upper()]
        create = pb.Create(
            name=name,
            size=size,
            overwrite=overwrite,
            durability=int(level),  # type: ignore[arg-type]  # the stub wants its own enum
        )
        if "resume" in self.features:
            create.upload_id = secrets.token_hex(UPLOAD_ID_CHARS // 2)
        claim = Claim(self, create.upload_id, create)
        async with self._hold(claim, level, lanes, page_checksums, watcher) as upload:
            yield upload

    @contextlib.asynccontextmanager
    async def resume(
        self,
        upload_id: str,
        *,
        durability: str = "published",
        lanes: int = 1,
        page_checksums: bool = False,
        watcher: Watcher | None = None,
    ) -> AsyncIterator[ClientUpload]:
        """Take up an upload that another connection or process began, wherever that stands.

        Whoever holds it is fenced. Give it the same bytes from their begin: what is durable is only
        compared, the rest is sent. Leaving without `commit` aborts it, `keep` leaves it for another
        time. Raises RefusedError (NOT_FOUND, UNSUPPORTED ...), ConnectionLostError.
        """
        self._require("resume")
        claim = Claim(self, upload_id)
        level = Durability[durability.upper()]
        async with self._hold(claim, level, lanes, page_checksums, watcher) as upload:
            yield upload

    @contextlib.asynccontextmanager
    async def _hold(
        self,
        claim: Claim,
        level: Durability,
        lanes: int,
        page_checksums: bool,  # noqa: FBT001  # handed on
        watcher: Watcher | None,
    ) -> AsyncIterator[ClientUpload]:
        _check_lanes(lanes)
        if lanes > 1:
            self._require("lanes")
        if page_checksums:
            self._require("page-checksums")
        upload = ClientUpload(claim, level, lanes, watcher or Watcher())
        upload.filling.page_checksums = page_checksums
        try:
            try:
                await upload.begin()
            except ClientError:
                upload.keep()  # there is none, or it is not ours
                raise
            yield upload
        finally:
            await upload.aclose()

    async def put_many(
        self,
        files: Iterable[tuple[str, Buffer]],
        done: Callable[[PutResult], None],
        *,
        overwrite: bool = False,
        keep_equal: bool = False,
        durability: str = "published",
        lanes: int = 1,
        in_flight: int = IN_FLIGHT_MAX,
    ) -> None:
        """Publish many small files, each of at most `small_bytes_max` bytes: (name, content) pairs.

        The pairs are taken as there is room: at most `in_flight` requests, 1 to 64, and 4 MiB for
        each of `lanes` connections are without an answer. `done` is called for each file, in no
        order, with a receipt or with the error that is that file's own. With `keep_equal` a file
        that is there and has this content is success. A connection that breaks is made again, and
        what had no answer is sent again, with `keep_equal`: it may have been published.
        Raises ConnectionLostError or RefusedError when there is no more point in trying, and where
        the server does not offer `small-uploads`; files without an answer then have none.
        Cancelled, it may leave files published that `done` did not hear of.
        """
        self._require("small-uploads")
        _check_lanes(lanes)
        if not 1 <= in_flight <= IN_FLIGHT_MAX:
            raise ValueError(f"in_flight is 1 to {IN_FLIGHT_MAX}, not {in_flight}")
        level = Durability[durability.upper()]
        uploads = SmallUploads(
            self,
            iter(files),
            done,
            overwrite=overwrite,
            keep_equal=keep_equal,
            level=level,
            lanes=lanes,
            in_flight=in_flight,
        )
        await uploads.run()

    async def list_files(self, prefix: str = "", after: str = "", limit: int = 0) -> pb.ListReply:
        """List published files in byte order; `more` says to ask again after the last one."""
        message = pb.List(prefix=prefix, after=after, limit=limit)
        reply: pb.ListReply = await self._ask(FrameType.LIST, message)
        return reply

    async def list_uploads(self, prefix: str = "", after: str = "", limit: int = 0) -> pb.ListReply:
        """List unfinished uploads in order of their ids."""
        message = pb.List(prefix=prefix, after=after, limit=limit, uploads=True)
        reply: pb.ListReply = await self._ask(FrameType.LIST, message)
        return reply

    async def stat(self, *, name: str = "", upload_id: str = "") -> pb.StatReply:
        """Ask about a published file or an unfinished upload. Raises RefusedError (NOT_FOUND)."""
        if not upload_id:
            _check_name(name)
        message = pb.Stat(upload_id=upload_id) if upload_id else pb.Stat(name=name)
        reply: pb.StatReply = await self._ask(FrameType.STAT, message)
        return reply

    async def abort(self, upload_id: str) -> None:
        """Throw any upload away, by its id. Raises RefusedError (NOT_FOUND, BUSY)."""
        await self._ask(FrameType.ABORT, pb.Abort(upload_id=upload_id))

    async def ping(self) -> None:
        """Return when the server has answered."""
        await self._ask(FrameType.PING, pb.Ping())

    async def renew(self) -> Link:
        """Return a connection that is not known to be lost: this one, or a new one.

        Raises ConnectionLostError, RefusedError.
        """
        if not self.link.alive:
            link = await self.open_link()
            old, self._link = self.link, link
            await old.aclose()
        return self.link

    async def open(self) -> None:
        """Connect for the first time."""
        self._link = await self.open_link()

    async def open_link(self) -> Link:
        """Open one more connection to the same server; the caller closes it."""
        features = wanted(self._url, self._transport)
        link = await open_link(self._url, self._token, self._timeout_s, features)
        try:
            check_offered(link, self._transport)
        except RefusedError:
            await link.aclose()
            raise
        return link

    async def share_memory(self, link: Link) -> None:
        """Let the chunks of a link go the way that was asked for."""
        await attach(link, self._transport, read_back=self._read_back)

    async def _ask(self, frame_type: FrameType, message: Message) -> Any:
        """Ask; where uploads outlive a connection, so does the client."""
        link = await self.renew() if "resume" in self.features else self.link
        return await link.request(frame_type, message)

    def _require(self, feature: str) -> None:
        """Refuse what this server does not offer: nothing is downgraded in silence."""
        if feature not in self.features:
            text = f"the server at {self.url} does not offer {feature}"
            raise RefusedError(ErrorCode.UNSUPPORTED, text)


@contextlib.asynccontextmanager
async def connect(
    url: str | Url,
    *,
    token: str = "",
    timeout_s: float = ANSWER_TIMEOUT_S,
    retry_s: float = RETRY_S,
    transport: Transport = "auto",
    read_back: bool = False,
) -> AsyncIterator[Client]:
    """Connect and say HELLO. Leaving closes the connection; unfinished uploads are aborted.

    `url` is tcp://host:port or unix:///path, `token` what the server's token file holds,
    `timeout_s` how long any single wait for the server may take, and `retry_s` how long an upload
    whose connection broke goes on trying without progress, with a server that can resume.

    `transport` is how chunks travel: "socket", or, to a server on the same machine, by shared
    memory: "copy", "sealed" or "slab" (PROTOCOL.md, "Shared memory"). "auto" is "socket";
    the receipt says what it was. With a slab the checksum is only our word:
    `read_back` has the server read every chunk from the disk before it acknowledges it.
    Raises ConnectionLostError when nobody answers within 30 s, RefusedError (UNAUTHORIZED ...;
    UNSUPPORTED for a transport that cannot be had).
    """
    if read_back and transport != "slab":
        raise ValueError(f'read_back is for transport="slab", and this is "{transport}"')
    url = parse_url(url) if isinstance(url, str) else url
    client = Client(url, token, timeout_s, retry_s, transport, read_back=read_back)
    await client.open()
    try:
        yield client
    finally:
        await client.link.aclose()


def _check_lanes(lanes: int) -> None:
    if not 1 <= lanes <= LANES_MAX:
        raise ValueError(f"an upload has 1 to {LANES_MAX} lanes, not {lanes}")


def _check_name(name: str) -> None:
    """Refuse what the server would refuse; some of it could not even be sent to it."""
    try:
        check_name(name)
    except BadNameError as exc:
        raise RefusedError(exc.code, exc.text) from exc
