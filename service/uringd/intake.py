"""Chunks, from a session's socket into slots, and from there to their uploads.

A slot is for bytes that go to the disk: what is refused by its header is thrown away as it comes,
and holds none. PROTOCOL.md, "Chunks" and "Page checksums".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from uringd.upload_errors import UploadError
from uringd.wire import PAGE_BYTES, ErrorCode, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.holds import Hold
    from uringd.session import Session
    from uringd.v1 import uringd_pb2 as pb
    from uringd.wire import Data
    from uringio.lowlevel import Slot


class Intake:
    """Takes one session's chunks, one after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._server = session.server
        self._pages: tuple[int, pb.Pages] | None = None

    def expect_pages(self, handle: int, pages: pb.Pages) -> None:
        """Keep the page checksums of the next chunk; the last ones count."""
        self._pages = handle, pages

    async def take(self, event: Data) -> None:
        """Receive a chunk into a slot, verify it, and hand it to its upload.

        Raises what costs the session. What costs the chunk only is sent as a notice.
        """
        session, settings = self._session, self._server.settings
        pages, self._pages = self._pages, None
        limit_s = settings.speed_grace_s + event.length / settings.speed_min_bytes_s
        hold, refusal = self.judge(event)
        if hold is None:
            with session.patience(limit_s, "a chunk came too slowly"):
                await session.receiver.discard_payload()
            session.acks.give_back(event.upload)
            if refusal is not None:
                await session.notice(event.upload, refusal)
            return
        slot = await self._server.ring.slots.acquire()
        try:
            with session.patience(limit_s, "a chunk came too slowly"):
                crc = await self._receive(slot, event)
            free = partial(self._slot_free, event.upload)
            transport = session.transport
            taken = await self.hand_over(slot, event, hold, free, transport, crc, pages=pages)
        except BaseException:
            self._server.ring.slots.release(slot)
            raise
        if not taken:
            self._slot_free(event.upload, slot)

    def judge(self, event: Data) -> tuple[Hold | None, UploadError | None]:
        """Find who wants a chunk, or else what to say of it (None: nothing)."""
        hold = self._session.handles.holds.get(event.upload)
        if hold is None and event.upload in self._session.handles.fenced:
            return None, None
        if hold is None:
            text = f"no upload has the handle {event.upload} here"
            return None, UploadError(ErrorCode.NOT_FOUND, text, offset=event.offset)
        if hold.upload.is_broken:
            return None, None
        try:
            hold.upload.filling.check_chunk(event.offset, event.length)
        except UploadError as exc:
            return None, exc
        return hold, None

    async def _receive(self, slot: Slot, event: Data) -> int:
        session = self._session
        self._server.receiving[session] = trio.current_time()
        try:
            return await session.receiver.receive_payload(slot.memory[: event.length])
        finally:
            del self._server.receiving[session]

    async def hand_over(
        self,
        slot: Slot,
        event: Data,
        hold: Hold,
        free: Callable[[Slot], None],
        transport: str,
        crc: int,
        *,
        pages: tuple[int, pb.Pages] | None = None,
        read_back: Slot | None = None,
    ) -> bool:
        """Whether the upload took the slot over: then `free(slot)` is called at its end.

        `transport` is how the chunk came, `crc` the checksum of what came, or what its client says
        of memory that it can change; `read_back` is memory to compare it in once it is written
        (`Filling.write`).
        """
        if hold.upload.is_broken or hold.is_fenced:
            return False
        try:
            if crc != event.crc32c:
                text = f"the chunk at {event.offset} differs from its checksum"
                missing = await self._mend(slot, event, hold, pages)
                raise UploadError(
                    ErrorCode.BAD_CHECKSUM, text, offset=event.offset, missing=missing
                )
            await hold.upload.filling.write(
                hold, slot, event.offset, event.length, event.crc32c, free, read_back
            )
            hold.upload.transports.setdefault(transport)
        except UploadError as exc:
            if exc.code in {ErrorCode.FENCED, ErrorCode.NOT_FOUND}:
                return False  # it is told by who did it; what it sends is thrown away silently
            self._session.is_news(hold.upload)
            await self._session.notice(event.upload, exc)
            return False
        return True

    async def _mend(
        self, slot: Slot, event: Data, hold: Hold, pages: tuple[int, pb.Pages] | None
    ) -> tuple[tuple[int, int], ...]:
        """Write the pages that agree with their checksums; the result is the ranges that do not.

        Each run of good pages is moved to the slot's front and written from there. Runs are taken
        by rising offset, so nothing is overwritten that is still wanted.
        """
        good, bad = _sort_pages(slot.memory[: event.length], event, pages)
        if not good or not bad:
            return ()
        for start, length in good:
            memory = slot.memory
            memory[:length] = memory[start : start + length]
            checksum = crc32c(memory[:length])
            written = trio.Event()
            await hold.upload.filling.write(
                hold, slot, event.offset + start, length, checksum, partial(_set, written)
            )
            with trio.CancelScope(shield=True):  # the slot is the kernel's until then
                await written.wait()
        return tuple((event.offset + start, length) for start, length in bad)

    def _slot_free(self, handle: int, slot: Slot) -> None:
        """Give a slot back, and its credit with the next acknowledgement."""
        self._server.ring.slots.release(slot)
        self.done(handle)

    def done(self, handle: int, place: int | None = None) -> None:
        """Give a chunk's credit back, and its `place` in attached memory."""
        session = self._session
        session.acks.give_back(handle, place)
        hold = session.handles.holds.get(handle)
        if hold is None:
            return
        if session.is_news(hold.upload):
            failure = hold.upload.failure
            assert failure is not None
            session.notice_nowait(handle, failure)
        self._server.consider_checkpoint(hold.upload)


Runs = list[tuple[int, int]]


def _set(written: trio.Event, _slot: Slot) -> None:
    written.set()


def _sort_pages(
    chunk: memoryview, event: Data, pages: tuple[int, pb.Pages] | None
) -> tuple[Runs, Runs]:
    """Return the runs of good pages and of bad ones as (start, length) within the chunk."""
    if pages is None or pages[0] != event.upload or pages[1].offset != event.offset:
        return [], []
    checksums = pages[1].page_crc32c
    if len(checksums) != -(-event.length // PAGE_BYTES):
        return [], []
    runs: dict[bool, Runs] = {True: [], False: []}
    for number, expected in enumerate(checksums):
        start = number * PAGE_BYTES
        length = min(PAGE_BYTES, event.length - start)
        agreeing = runs[crc32c(chunk[start : start + length]) == expected]
        if agreeing and sum(agreeing[-1]) == start:
            agreeing[-1] = agreeing[-1][0], agreeing[-1][1] + length
        else:
            agreeing.append((start, length))
    return runs[True], runs[False]
