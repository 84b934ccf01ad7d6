"""Chunks that do not pass through the stream. PROTOCOL.md, "Shared memory".

A frame names where a chunk lies, and the chunk then goes the way of all chunks: judged, written,
acknowledged, its credit given back. What differs is where its bytes come from:
- copy: the kernel reads them from the client's memory into a slot of the pool. What is checked and
  written after that is ours, whatever the client does meanwhile.
- sealed: nobody can change them. They are checked where they are, and the disk reads them there.
- slab: the client can change them at any time, so that a checksum before the write would prove
  nothing, and it would cost more than all the rest. The checksum is the client's word, unless it
  has asked for every chunk to be read back: then a chunk counts as written when the disk has it.
Which of these it was is in the receipt.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from uringd.client_memory import SealedSlot, check_attached, check_sealed
from uringd.config import ALIGNMENT_BYTES
from uringd.slab import Slab
from uringd.upload_errors import UploadError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import OFFSET_MAX, Data, ErrorCode, MemoryMode, RemoteProtocolError, crc32c
from uringio.lowlevel import operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.descriptors import DescriptorReceiver
    from uringd.holds import Hold
    from uringd.intake import Intake
    from uringd.server import Server
    from uringd.session import Session
    from uringd.wire import Control
    from uringio.lowlevel import Slot

MODES = ("copy", "sealed", "slab")

SLAB_SLOTS_MIN = 2
"""One slot is filled while the disk reads the other."""


def offered(server: Server, transport: str) -> tuple[str, ...]:
    """Say which modes a connection can have: descriptors travel over Unix sockets only.

    Through threads nothing is gained, and nothing can be registered.
    """
    if transport != "unix" or server.backend == "threads" or not hasattr(os, "memfd_create"):
        return ()
    return MODES if server.slabs.bytes_max >= SLAB_SLOTS_MIN * server.slot_bytes else MODES[:2]


class CopyMemory:
    """A client's memory of `size` bytes; `fd` is ours to close."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = os.dup(fd)
        self.size = size

    def close(self) -> None:
        """Let go of it. A read that is under way has the file itself."""
        os.close(self.fd)


class Placing:
    """What one session attaches, and the chunks it places there."""

    def __init__(self, session: Session, intake: Intake, receiver: DescriptorReceiver) -> None:
        self._session = session
        self._server = session.server
        self._intake = intake
        self._receiver = receiver
        self._memory: CopyMemory | Slab | None = None

    @property
    def attached(self) -> bool:
        """Whether there is memory that this process shares with the client."""
        return self._memory is not None

    def attach(self, message: pb.Attach) -> pb.AttachReply:
        """Attach memory. Raises UploadError, RemoteProtocolError."""
        copied = MemoryMode(message.mode) is MemoryMode.COPY
        mode = "copy" if copied else "slab"
        if mode not in self._session.features:
            raise UploadError(ErrorCode.UNSUPPORTED, f"{mode} is not in force in this session")
        with self._receiver.descriptor(message.descriptors) as fd:
            if isinstance(self._memory, Slab) and message.mapped and not self._memory.is_ready:
                return self._seal(self._memory)
            if self._memory is not None or message.mapped:
                text = "a session attaches memory once" if self._memory else "no slab was asked for"
                raise UploadError(ErrorCode.OUT_OF_ORDER, text)
            if not copied:
                slab = self._make_slab(read_back=message.read_back)
                return pb.AttachReply(bytes=slab.size, slot_bytes=slab.slot_bytes, descriptors=1)
            if fd < 0:
                raise UploadError(ErrorCode.UNSUPPORTED, "no memory came: send its descriptor")
            check_attached(fd, message.bytes)
            self._memory = CopyMemory(fd, message.bytes)
            return pb.AttachReply(bytes=message.bytes)

    def descriptor_to_send(self) -> int:
        """Give a descriptor of the slab for the reply that brings it; the caller closes it."""
        assert isinstance(self._memory, Slab), "its reply is being made"
        return os.dup(self._memory.fd)

    async def take(self, event: Control) -> None:
        """Take a chunk that lies in memory; its credit is counted already.

        Raises what costs the session. What costs the chunk only is sent as a notice.
        """
        message: pb.Placed = event.message
        with self._receiver.descriptor(message.descriptors) as fd:
            chunk = self._chunk(event)
            if fd >= 0:
                await self._take_sealed(fd, chunk, message.memory_offset)
                return
            memory, place = self._memory, message.memory_offset
            self._check_place(memory, place, chunk.length)
            hold, refusal = self._intake.judge(chunk)
            if hold is None:
                await self._refuse(chunk, refusal, place)
            elif isinstance(memory, Slab):
                await self._take_from_slab(memory, memory.slot_at(place), chunk, hold, place)
            else:
                assert memory is not None, "it was checked"
                await self._copy(memory.fd, chunk, hold, place, place)

    def close(self) -> None:
        """Let go of all memory; what is in flight first has to complete."""
        self._receiver.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _seal(self, slab: Slab) -> pb.AttachReply:
        try:
            slab.seal()
        except UploadError:
            slab.close()
            self._memory = None
            raise
        return pb.AttachReply(bytes=slab.size, slot_bytes=slab.slot_bytes)

    def _make_slab(self, *, read_back: bool) -> Slab:
        server, settings = self._server, self._server.settings
        slot_bytes = server.slot_bytes  # what is read back goes into a slot of the pool
        bytes_max = min(settings.slab_bytes_per_connection, settings.slab_bytes_max)
        if not read_back:
            half = bytes_max // SLAB_SLOTS_MIN // ALIGNMENT_BYTES * ALIGNMENT_BYTES
            slot_bytes = max(slot_bytes, min(settings.slab_slot_bytes, half))
        per_session = max(SLAB_SLOTS_MIN, bytes_max // slot_bytes)
        count = min(self._session.acks.granted, per_session)
        size = count * slot_bytes
        server.slabs.take(size)
        try:
            reactor = server.ring.reactor
            slab = Slab(reactor, server.slabs, count, slot_bytes, read_back=read_back)
        except OSError as exc:
            server.slabs.give_back(size)
            text = f"there is no memory for a slab ({exc.strerror}): do without"
            raise UploadError(ErrorCode.UNSUPPORTED, text) from exc
        self._memory = slab
        self._session.acks.lower_usable(count)
        return slab

    def _chunk(self, event: Control) -> Data:
        """Read what costs the session when it is wrong: limits that the client was told."""
        message: pb.Placed = event.message
        needed = {"sealed"} if message.descriptors else {"copy", "slab"}
        if not needed & self._session.features:
            text = f"{' or '.join(sorted(needed))} is not in force"
            raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, text)
        limit, memory = self._server.slot_bytes, self._memory
        if isinstance(memory, Slab) and not message.descriptors:
            limit = memory.slot_bytes
        if message.length > limit:
            text = f"a chunk of {message.length} bytes, at most {limit} go"
            raise RemoteProtocolError(ErrorCode.TOO_LARGE, text)
        if max(message.offset, message.memory_offset) + message.length > OFFSET_MAX:
            raise RemoteProtocolError(ErrorCode.OUT_OF_RANGE, "a chunk ends past 2^63-1")
        if message.memory_offset % ALIGNMENT_BYTES:
            text = f"chunks lie at multiples of {ALIGNMENT_BYTES} in memory"
            raise RemoteProtocolError(ErrorCode.MISALIGNED, text)
        return Data(event.upload, message.offset, message.length, message.crc32c, more=False)

    def _check_place(self, memory: CopyMemory | Slab | None, place: int, length: int) -> None:
        """Refuse a place that is none. Raises RemoteProtocolError."""
        if memory is None or (isinstance(memory, Slab) and not memory.is_ready):
            raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, "no memory is attached")
        if place + length > memory.size:
            text = f"a chunk ends at {place + length} in memory of {memory.size} bytes"
            raise RemoteProtocolError(ErrorCode.OUT_OF_RANGE, text)
        if isinstance(memory, Slab):
            if place % memory.slot_bytes:
                text = f"chunks lie at multiples of {memory.slot_bytes} in a slab"
                raise RemoteProtocolError(ErrorCode.MISALIGNED, text)
            if memory.slot_at(place).taken:
                text = f"the slot at {place} holds a chunk that is not written yet"
                raise RemoteProtocolError(ErrorCode.OUT_OF_ORDER, text)

    async def _take_from_slab(
        self, slab: Slab, slot: Slot, chunk: Data, hold: Hold, place: int
    ) -> None:
        # The memory to read back into comes first: who waits for it holds nothing else.
        scratch = await self._server.ring.slots.acquire() if slab.read_back else None
        slab.take(slot)

        def free(slot: Slot) -> None:
            slab.give_back(slot)
            if scratch is not None:
                self._server.ring.slots.release(scratch)
            self._intake.done(chunk.upload, place)

        transport = "slab" if scratch is None else "slab-read-back"
        await self._hand_over(slot, chunk, hold, free, transport, checked=False, read_back=scratch)

    async def _take_sealed(self, fd: int, chunk: Data, offset: int) -> None:
        hold, refusal = self._intake.judge(chunk)
        if hold is None:
            await self._refuse(chunk, refusal, None)
            return
        try:
            check_sealed(fd, offset, chunk.length)
            if chunk.length % ALIGNMENT_BYTES:  # a tail is padded, and this memory cannot be
                await self._copy(fd, chunk, hold, offset, None, "sealed")
                return
            slot = SealedSlot(fd, offset, chunk.length)
        except UploadError as exc:
            await self._refuse(chunk, UploadError(exc.code, exc.text, offset=chunk.offset), None)
            return

        def free(slot: Slot) -> None:
            assert isinstance(slot, SealedSlot)
            slot.release()
            self._intake.done(chunk.upload)

        await self._hand_over(slot, chunk, hold, free, "sealed")

    async def _copy(
        self,
        fd: int,
        chunk: Data,
        hold: Hold,
        offset: int,
        place: int | None,
        transport: str = "copy",
    ) -> None:
        """Have the kernel copy a chunk into a slot of the pool: what it cannot read is an error."""
        slots = self._server.ring.slots
        slot = await slots.acquire()

        def free(slot: Slot) -> None:
            slots.release(slot)
            self._intake.done(chunk.upload, place)

        try:
            done = await self._read(fd, slot, offset, chunk.length)
        except BaseException:
            free(slot)
            raise
        if done < chunk.length:
            free(slot)
            text = f"the memory ends {chunk.length - done} bytes before the chunk: it was truncated"
            error = UploadError(ErrorCode.BAD_CHECKSUM, text, offset=chunk.offset)
            await self._session.notice(chunk.upload, error)
            return
        await self._hand_over(slot, chunk, hold, free, transport)

    async def _read(self, fd: int, slot: Slot, offset: int, length: int) -> int:
        done = 0
        while done < length:
            operation = operations.read(
                fd, slot.memory[done:], offset + done, length - done, buffer_index=slot.buffer_index
            )
            result = await self._server.ring.reactor.perform(operation)
            if result <= 0:
                break
            done += result
        return done

    async def _hand_over(
        self,
        slot: Slot,
        chunk: Data,
        hold: Hold,
        free: Callable[[Slot], None],
        transport: str,
        *,
        checked: bool = True,
        read_back: Slot | None = None,
    ) -> None:
        try:
            crc = crc32c(slot.memory[: chunk.length]) if checked else chunk.crc32c
            taken = await self._intake.hand_over(
                slot, chunk, hold, free, transport, crc, read_back=read_back
            )
        except BaseException:
            free(slot)
            raise
        if not taken:
            free(slot)

    async def _refuse(self, chunk: Data, refusal: UploadError | None, place: int | None) -> None:
        self._intake.done(chunk.upload, place)
        if refusal is not None:
            await self._session.notice(chunk.upload, refusal)
