"""Published files, read back from the disk and held against their receipts. Nothing is written.

Two things may happen beside it, for a server may run: a file is replaced, or written to. A record
is looked up before its file is opened, and what does not agree is looked up again: only a record
that is still the newest accuses a file. Whether somebody wrote to the file is asked after the last
read. (Stores through a memory mapping reach the time of change only when they are written back.)

Files are opened as uringd itself does, beneath ROOT and through no link. Not by `Ring.open`, which
would end a replace that a crash broke off: that is a write.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from uringd.root import inode_of, signed_inode
from uringd.wire import WrittenRanges, crc32c
from uringio import OperationError, UringFile
from uringio.lowlevel import forget_clean_pages, open_file, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from uringd.receipts import Receipts
    from uringd.records import ReceiptRecord
    from uringio import Ring
    from uringio.lowlevel import OpenFile

    Records = tuple[ReceiptRecord, ...]
    Subject = tuple[str, Records]

FILES_AT_A_TIME = 8
"""Small files keep the disk busy by their number, big ones by their chunks: these share the slots,
and so one file alone has them all."""

LOOKS_MAX = 4
"""Times that a name is looked up: one that is replaced faster than it can be read is told as it was
seen last."""


class Outcome(enum.StrEnum):
    """What became of a published file."""

    OK = "ok"  # its bytes are those of the receipt
    CORRUPT = "corrupt"  # they are not, and nobody wrote to it: the disk's fault, or what is below
    CHANGED = "changed"  # they are not: somebody wrote to it, or put something in its place
    MISSING = "missing"  # nothing has its name
    UNKNOWN = "unknown"  # there is no receipt to hold it against
    UNREADABLE = "unreadable"  # the disk, or its permissions, do not give it


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found under a name. Sizes and offset in bytes; None where there is no such thing.

    `size` and `crc32c` are the receipt's, the `found_` ones the file's. `direct` says whether it
    was read past the page cache, None when nothing was read.
    """

    name: str
    outcome: Outcome
    size: int | None = None
    crc32c: int | None = None
    found_size: int | None = None
    found_crc32c: int | None = None
    direct: bool | None = None
    offset: int | None = None
    reason: str = ""


class Verifier:
    """Reads published files through a ring. `count` is told of the receipts' bytes as they pass."""

    def __init__(
        self, ring: Ring, root_fd: int, receipts: Receipts, count: Callable[[int], None]
    ) -> None:
        self._ring = ring
        self._root_fd = root_fd
        self._receipts = receipts
        self._count = count

    async def verify_many(
        self, pages: Iterable[Sequence[Subject]], found: Callable[[Finding], None]
    ) -> None:
        """Verify many names, some at a time; `found` is told as each ends, in no order.

        Each of `pages` is asked for in a thread. Raises CatalogError.
        """
        send, receive = trio.open_memory_channel["Subject"](0)
        pages = iter(pages)

        async def work() -> None:
            async for name, records in receive:
                found(await self.verify(name, records))

        async with receive, trio.open_nursery() as nursery, send:
            for _ in range(FILES_AT_A_TIME):
                nursery.start_soon(work)
            while page := await trio.to_thread.run_sync(next, pages, None):
                for subject in page:
                    await send.send(subject)

    async def verify(self, name: str, records: Records) -> Finding:
        """Verify one name; `records` are what `Receipts.find` says, or were not long ago.

        Raises CatalogError. Cancelled, it leaves when the kernel no longer needs the slots.
        """
        share = _Share(records[0].size if records else 0, self._count)
        for _ in range(LOOKS_MAX - 1):
            finding = await self._compare(name, records, share)
            if finding.outcome is Outcome.OK:
                break
            newer = await trio.to_thread.run_sync(self._receipts.find, name)
            if newer == records:
                break
            records = newer
        else:
            finding = await self._compare(name, records, share)
        share.finish()
        return finding

    async def _compare(self, name: str, records: Records, share: _Share) -> Finding:
        if not records:
            return _unknown(name)
        # O_NONBLOCK is for a pipe in the file's place, which nobody may ever write to.
        opening = operations.open_beneath(self._root_fd, name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            file = await open_file(self._ring.reactor, opening, name, "auto")
        except OperationError as exc:
            return _not_opened(name, records, exc)
        async with UringFile(self._ring.reactor, self._ring.slots, file) as readable:
            record = _record_of(file.fd, records)
            if record is None:
                return _unknown(name)
            return await self._hold_against(record, file, readable, share)

    async def _hold_against(
        self, record: ReceiptRecord, file: OpenFile, readable: UringFile, share: _Share
    ) -> Finding:
        finding = Finding(record.name, Outcome.OK, record.size, record.crc32c)
        found = os.fstat(file.fd)
        if not stat.S_ISREG(found.st_mode):
            return replace(finding, outcome=Outcome.CHANGED, reason="it is no file any more")
        if found.st_size == record.size:
            # A ring takes O_NONBLOCK to heart for files too, where read(2) does not.
            fcntl.fcntl(
                file.fd, fcntl.F_SETFL, fcntl.fcntl(file.fd, fcntl.F_GETFL) & ~os.O_NONBLOCK
            )
            if file.direct:
                file.required = True  # not in part through the page cache, unsaid
            else:
                forget_clean_pages(file.fd)
            finding = replace(finding, direct=file.direct)
            try:
                crc = await self._read(readable, file.block_bytes, record.size, share)
            except OperationError as exc:
                outcome = Outcome.UNREADABLE
                return replace(finding, outcome=outcome, offset=exc.offset, reason=str(exc))
            found = os.fstat(file.fd)
            finding = replace(finding, found_crc32c=crc)
        finding = replace(finding, found_size=found.st_size)
        if found.st_size != record.size:
            reason = f"it has {found.st_size} bytes, {record.size} were published"
        elif finding.found_crc32c is None:
            reason = "it was cut while it was read"
        elif finding.found_crc32c != record.crc32c:
            was, now = f"{record.crc32c:08x}", f"{finding.found_crc32c:08x}"
            reason = f"its bytes have CRC32C {now}, {was} was published"
        else:
            return finding
        return _differs(finding, record, found, reason)

    async def _read(
        self, file: UringFile, block_bytes: int, size: int, share: _Share
    ) -> int | None:
        """Read `size` bytes, as many chunks at a time as there are slots; the result is their CRC.

        None if the file ended before. Raises OperationError: the error at the lowest offset of
        those that were met.
        """
        slots = self._ring.slots
        chunk_bytes = slots.pool.slot_bytes
        offsets = range(0, size, chunk_bytes)
        left = iter(offsets)
        ranges = WrittenRanges(chunks_remembered=0)
        failures: list[OperationError] = []
        ended = False

        async def read_chunks() -> None:
            nonlocal ended
            for offset in left:
                length = min(chunk_bytes, size - offset)
                slot = await slots.acquire()
                try:
                    if failures or ended:
                        return
                    memory = slot.memory[: -(-length // block_bytes) * block_bytes]
                    if await file.pread_into(memory, offset) < length:
                        ended = True
                        return
                    ranges.add(offset, length, crc32c(slot.memory[:length]))
                except OperationError as exc:
                    failures.append(exc)
                    return
                finally:
                    slots.release(slot)
                share.count(length)

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(slots.pool.slots), len(offsets))):
                nursery.start_soon(read_chunks)
        if failures:
            raise min(failures, key=lambda exc: exc.offset or 0)
        return None if ended else ranges.crc32c(size)


class _Share:
    """A file's part of all bytes: told once, read or not, and however often it was read."""

    def __init__(self, size: int, count: Callable[[int], None]) -> None:
        self._left = size
        self._count = count

    def count(self, length: int) -> None:
        length = min(length, self._left)
        self._left -= length
        self._count(length)

    def finish(self) -> None:
        self.count(self._left)


def _record_of(fd: int, records: Records) -> ReceiptRecord | None:
    """Choose the record of the file that is there: a commit's by its inode, else the receipt."""
    inode = inode_of(fd)
    for record in records:
        if not record.published_ns and record.inode == inode:
            return record
    return records[0] if records[0].published_ns else None


def _unknown(name: str) -> Finding:
    return Finding(name, Outcome.UNKNOWN, reason="no receipt is recorded for it")


def _not_opened(name: str, records: Records, exc: OperationError) -> Finding:
    record = records[0]
    finding = Finding(name, Outcome.UNREADABLE, record.size, record.crc32c, reason=str(exc))
    if exc.errno in {errno.ENOENT, errno.ENOTDIR}:
        if not record.published_ns:
            return _unknown(name)  # a commit at work has not renamed it yet
        return replace(finding, outcome=Outcome.MISSING, reason="nothing has this name")
    if exc.errno == errno.ELOOP:
        reason = "a symbolic link is in its place, or on the way to it"
        return replace(finding, outcome=Outcome.CHANGED, reason=reason)
    return finding


def _differs(
    finding: Finding, record: ReceiptRecord, found: os.stat_result, reason: str
) -> Finding:
    """Tell the disk's fault from somebody's: by the inode, and by the time of the last write.

    A commit at work has no time recorded yet; then the inode alone has to do.
    """
    same_file = signed_inode(found.st_ino) == record.inode
    if same_file and record.modified_ns in {found.st_mtime_ns, 0}:
        reason += "; its times say that nobody wrote to it"
        return replace(finding, outcome=Outcome.CORRUPT, reason=reason)
    reason += "; it was written to, or replaced, since"
    return replace(finding, outcome=Outcome.CHANGED, reason=reason)
