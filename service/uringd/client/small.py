"""Many small files: each is one request, and many are on their way at a time.

A file whose answer was lost with its connection is sent again, and then a file of that name with
this content is success, for it may well be ours (PROTOCOL.md, "Small uploads"). So each file is
answered once, whatever happens to connections and servers meanwhile.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from uringd.client.backoff import Backoff, Patience
from uringd.client.link import refused
from uringd.client.receipt import Receipt, read_receipt
from uringd.client.together import together
from uringd.errors import ClientError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    HEADER_BYTES,
    PUT_BYTES_MAX,
    REQUESTS_MAX,
    SMALL_BYTES_MAX,
    BadNameError,
    Durability,
    ErrorCode,
    FrameType,
    check_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from uringd.client.connecting import Client
    from uringd.client.link import Link
    from uringd.wire import Control

IN_FLIGHT_MAX = REQUESTS_MAX
"""Requests of one connection without an answer: as many as the protocol allows."""

IN_FLIGHT_BYTES_MAX = 4 << 20
"""Content of one connection without an answer: it is kept, to be sent again."""

SEND_BYTES = 128 << 10
"""Frames that are sent together: a system call costs as much as a few small files. They are put
together in memory that is used again: new memory of this size costs more than the copy. Contents
of this length and more are sent from where they are."""

HEAD_BYTES_MAX = PUT_BYTES_MAX - SMALL_BYTES_MAX
"""What a payload has besides its content."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of one small file: a receipt, or the error that is its own.

    `unchanged`: a file of that name and content was there before.
    """

    name: str
    receipt: Receipt | None
    error: ClientError | None = None
    unchanged: bool = False


@dataclass(slots=True, eq=False)
class _Item:
    name: str
    content: bytes
    sent: int = 0


class SmallUploads:
    """Sends small files over the connections of one client. Made by `Client.put_many`."""

    def __init__(
        self,
        client: Client,
        files: Iterator[tuple[str, Buffer]],
        done: Callable[[PutResult], None],
        *,
        overwrite: bool,
        keep_equal: bool,
        level: Durability,
        lanes: int,
        in_flight: int,
    ) -> None:
        self.client = client
        self.done = done
        self.patience = Patience(client.retry_s)
        self._lanes = lanes
        self.in_flight_max = in_flight
        self._files = files
        self._overwrite = overwrite
        self._keep_equal = keep_equal
        self._level = level
        self._bytes_max = client.link.small_bytes_max

    async def run(self) -> None:
        """Send all files. Raises ConnectionLostError, RefusedError when patience is over."""
        lanes = [_Lane(self, own=number > 0) for number in range(self._lanes)]
        await together(lane.run for lane in lanes)

    def next_item(self) -> _Item | None:
        """Take the next file that can be sent; what cannot is answered here."""
        for name, content in self._files:
            try:
                check_name(name)
            except BadNameError as exc:
                self.done(PutResult(name, None, RefusedError(exc.code, exc.text)))
                continue
            data = content if isinstance(content, bytes) else bytes(content)
            if len(data) > self._bytes_max:
                text = f"{name} has {len(data):,} bytes, a small upload at most {self._bytes_max:,}"
                self.done(PutResult(name, None, RefusedError(ErrorCode.TOO_LARGE, text)))
                continue
            return _Item(name, data)
        return None

    def message(self, item: _Item) -> pb.Put:
        """Say it to the server, but for the content."""
        return pb.Put(
            name=item.name,
            overwrite=self._overwrite,
            keep_equal=self._keep_equal or item.sent > 0,
            durability=int(self._level),  # type: ignore[arg-type]  # the stub wants its own enum
        )


class _Frames:
    """Frames that leave together: SEND_BYTES, and what the last one has beyond that."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")
        self.length = 0

    @property
    def whole(self) -> memoryview:
        """All that was added."""
        return self._memory[: self.length]

    def add(self, part: bytes) -> None:
        """Add a part of a frame."""
        if not self._memory:  # made when it is used: who sends one long content needs none
            self._memory = memoryview(bytearray(2 * SEND_BYTES + HEADER_BYTES + HEAD_BYTES_MAX))
        end = self.length + len(part)
        self._memory[self.length : end] = part
        self.length = end

    def clear(self) -> None:
        """Begin again: the memory is not in use any more."""
        self.length = 0


class _Lane:
    """One connection's part: the client's own, or one that is opened for this."""

    def __init__(self, uploads: SmallUploads, *, own: bool) -> None:
        self._uploads = uploads
        self._own = own
        self._link: Link | None = None
        self._backoff = Backoff(uploads.patience)
        self._again: deque[_Item] = deque()
        self._in_flight: dict[_Item, None] = {}
        self._bytes = 0
        self._frames = _Frames()
        self._refused: RefusedError | None = None

    async def run(self) -> None:
        """Send until there is nothing left, connecting again where that is needed."""
        try:
            while True:
                try:
                    await self._send_all(await self._connect())
                except ClientError as exc:
                    if not exc.passing:
                        raise
                    await self._lost(exc)
                else:
                    return
        finally:
            if self._own and self._link is not None:
                await self._link.aclose()

    async def _connect(self) -> Link:
        if not self._own:
            self._link = await self._uploads.client.renew()
        elif self._link is None or not self._link.alive:
            if self._link is not None:
                await self._link.aclose()
            self._link = await self._uploads.client.open_link()
        return self._link

    async def _lost(self, reason: ClientError) -> None:
        """Keep what has no answer for the next connection, and wait."""
        self._again.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._bytes = 0
        self._refused = None
        if self._link is not None:
            await self._link.aclose()
        await self._backoff.wait(reason)

    async def _send_all(self, link: Link) -> None:
        """Keep as much on its way as may be until all is answered."""
        more = await self._fill(link)
        while self._in_flight:
            await link.next_event()
            while link.take_ready():
                pass
            if self._refused is not None:
                raise self._refused
            if more:
                more = await self._fill(link)

    async def _fill(self, link: Link) -> bool:
        """Send what there is room for; False when nothing is left to be sent."""
        frames = self._frames
        frames.clear()
        item: _Item | None = None
        count_max = self._uploads.in_flight_max
        while len(self._in_flight) < count_max and self._bytes < IN_FLIGHT_BYTES_MAX:
            item = self._again.popleft() if self._again else self._uploads.next_item()
            if item is None:
                break
            self._in_flight[item] = None
            self._bytes += len(item.content)
            head = self._head(link, item)
            if len(item.content) >= SEND_BYTES:
                await link.send(bytes(frames.whole) + head)
                await link.send(item.content)
                frames.clear()
                continue
            frames.add(head)
            frames.add(item.content)
            if frames.length >= SEND_BYTES:
                await link.send(frames.whole)
                frames.clear()
        if frames.length:
            await link.send(frames.whole)
        return item is not None

    def _head(self, link: Link, item: _Item) -> bytes:
        message = self._uploads.message(item)
        item.sent += 1
        return link.put_frame(message, item.content, partial(self._take, item))

    def _take(self, item: _Item, event: Control) -> None:
        """Take the answer about a file."""
        del self._in_flight[item]
        self._bytes -= len(item.content)
        if event.type is FrameType.ERROR:
            error = refused(event.message)
            if error.passing:
                self._again.append(item)
                self._refused = error
                return
            self._uploads.done(PutResult(item.name, None, error))
        else:
            reply: pb.Receipt = event.message
            sent_bytes = item.sent * len(item.content)
            receipt = read_receipt(reply, sent_bytes=sent_bytes, resumed=item.sent - 1, lanes=1)
            self._uploads.done(PutResult(item.name, receipt, unchanged=reply.unchanged))
        self._backoff.progress()
