"""An upload from the client's side: bytes cut into chunks, sent as credit allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from uringd.client import FAREWELL_TIMEOUT_S
from uringd.errors import ClientError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import HEADER_BYTES, Durability, ErrorCode, FrameType, combine, crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from uringd.client import Client


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit came to.

    `size` and `sent_bytes` (payload, with what was sent again) are in bytes, `crc32c` and
    `instance_id` in hexadecimal. `durability` is what holds now; `backend`, `direct` and
    `transport` say how the bytes were written and how they came.
    """

    upload_id: str
    name: str
    size: int
    crc32c: str
    durability: str
    backend: str
    direct: bool
    transport: str
    seconds: float
    sent_bytes: int
    instance_id: str


class Chunk:
    """Memory for one chunk, with room for its header in front: both leave in one send.

    Fill `view` from its start, then give the chunk to `ClientUpload.send`.
    """

    __slots__ = ("memory", "view")

    def __init__(self, chunk_bytes: int) -> None:
        self.memory = memoryview(bytearray(HEADER_BYTES + chunk_bytes))
        self.view = self.memory[HEADER_BYTES:]


class ClientUpload:
    """An upload under way. Made by `Client.upload`.

    `sent` counts accepted bytes of the caller's, `written` and `durable` are the server's
    positions by its last acknowledgement, `id` names the upload in `stat` and `abort`.
    """

    def __init__(
        self,
        client: Client,
        reply: pb.CreateReply,
        name: str,
        size: int | None,
        durability: Durability,
    ) -> None:
        self._client = client
        self._handle = reply.upload
        self._durability = durability
        self._chunk: Chunk | None = None
        self._filled = 0
        self._crc = 0
        self._failure: RefusedError | None = None
        self.id = reply.upload_id
        self.name = name
        self.size = size
        self.chunk_bytes = min(reply.chunk_bytes, client.chunk_bytes)
        self.sent = 0
        self.written = 0
        self.durable = 0
        self.ended = False

    async def write(self, data: Buffer) -> None:
        """Append any bytes-like object of any length.

        On return `data` may be changed; it is sent, or waits in a chunk to be filled. Waits for
        credit, which is the server's back-pressure. Raises RefusedError, ConnectionLostError.
        """
        view = memoryview(data).cast("B")
        while len(view):
            if self._chunk is None:
                self._chunk = Chunk(self.chunk_bytes)
            length = min(len(view), self.chunk_bytes - self._filled)
            self._chunk.view[self._filled : self._filled + length] = view[:length]
            self._filled += length
            view = view[length:]
            if self._filled == self.chunk_bytes:
                await self._send_filled()

    async def send(self, chunk: Chunk, length: int, checksum: int | None = None) -> None:
        """Send a chunk's first `length` bytes: the way without a copy, for whole chunks.

        Every chunk but the last is a multiple of the server's alignment long. `checksum` is its
        CRC32C, if it is known. Not to be mixed with `write`.
        """
        client = self._client
        while not client.credit.available and self._failure is None:
            await client.next_event()
        self._check()
        crc = crc32c(chunk.view[:length]) if checksum is None else checksum
        header = client.data_header(self._handle, self.sent, length, crc)
        chunk.memory[:HEADER_BYTES] = header
        await client.send(chunk.memory[: HEADER_BYTES + length])
        self._crc = combine(self._crc, crc, length)
        self.sent += length

    async def keep_alive(self) -> None:
        """Let the server know that this upload is only slow; raises what became of it."""
        await self._client.ping()
        self._check()

    async def sync(self) -> int:
        """Make durable what was sent; the result is the durable position in bytes.

        What fills no whole chunk yet is not covered: chunks are cut at the server's alignment.
        """
        self._check()
        reply: pb.SyncReply = await self._client.request(FrameType.SYNC, pb.Sync(), self._handle)
        self.durable = reply.durable
        return reply.durable

    async def commit(self) -> Receipt:
        """Finish. On return the durability that was asked for holds, and the receipt says so."""
        await self._send_filled()
        self._check()
        message = pb.Commit(
            size=self.sent,
            crc32c=self._crc,
            durability=int(self._durability),  # type: ignore[arg-type]  # the stub's own enum
        )
        reply: pb.Receipt = await self._client.request(FrameType.COMMIT, message, self._handle)
        self.ended = True
        if (reply.size, reply.crc32c) != (self.sent, self._crc):
            raise RefusedError(
                ErrorCode.CONTENT_MISMATCH,
                f"the receipt names {reply.size} bytes with CRC32C {reply.crc32c:08x}, and "
                f"{self.sent} bytes with {self._crc:08x} were sent",
            )
        return Receipt(
            upload_id=reply.upload_id,
            name=reply.name,
            size=reply.size,
            crc32c=f"{reply.crc32c:08x}",
            durability=Durability(reply.durability).name.lower(),
            backend=reply.backend,
            direct=reply.direct,
            transport=reply.transport,
            seconds=reply.seconds,
            sent_bytes=self.sent,
            instance_id=reply.instance_id.hex(),
        )

    async def aclose(self) -> None:
        """Abort the upload if it has not ended. Takes 5 s at the most, and raises nothing."""
        if self.ended:
            return
        self.ended = True
        if self._client.alive:
            with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_TIMEOUT_S):
                try:
                    await self._client.request(FrameType.ABORT, pb.Abort(), self._handle)
                except ClientError:
                    return  # the server throws it away when the connection ends

    def acknowledged(self, ack: pb.Ack) -> None:
        """Take an acknowledgement's positions (called by the client)."""
        self.written = max(self.written, ack.written)
        self.durable = max(self.durable, ack.durable)

    def refused(self, error: RefusedError) -> None:
        """Take the server's notice that the upload failed (called by the client)."""
        self._failure = self._failure or error

    async def _send_filled(self) -> None:
        if self._chunk is not None and self._filled:
            length, self._filled = self._filled, 0
            await self.send(self._chunk, length)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
