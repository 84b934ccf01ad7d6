"""Which bytes an upload has. PROTOCOL.md, "Chunks".

Chunks may come and complete in any order; what matters is kept sorted and merged, so a plain upload
is one range however long it is. Merged ranges carry the CRC32C of all their bytes, by combining
those of the chunks, so the whole file's checksum costs no second read.

A server keeps two of these for an upload: what it accepted, to judge each new chunk by, and what
is written, to acknowledge. Both stay small: ranges are limited, and so are the single chunks that
are remembered to recognise one that is sent again.
"""

from bisect import bisect_right
from collections import OrderedDict
from enum import Enum
from typing import NamedTuple

from uringd.wire.checksum import combine
from uringd.wire.codes import RANGES_MAX, ErrorCode
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError

# Last chunks of which offset, length and checksum are kept. A client sends again only what was not
# acknowledged, and that is never more than its credit: this is several times the usual credit.
CHUNKS_REMEMBERED = 1024


class Verdict(Enum):
    """What a chunk is to the ranges that are there already."""

    NEW = "new"  # no byte of it is there: write it
    REPEATED = "repeated"  # the same chunk with the same checksum: success, nothing to do
    CONFLICT = "conflict"  # a different checksum, or a different cut: CONFLICT
    FORGOTTEN = "forgotten"  # inside a range, but its own checksum is not known any more


class ByteRange(NamedTuple):
    """Bytes [offset, offset + length) and the CRC32C of them all."""

    offset: int
    length: int
    crc32c: int


class WrittenRanges:
    """Byte ranges of one upload, sorted, disjoint, adjacent ones merged.

    ranges_max limits how many there may be apart, which is what an upload can cost in memory; a
    chunk that would be one more is refused.
    """

    def __init__(
        self, *, ranges_max: int = RANGES_MAX, chunks_remembered: int = CHUNKS_REMEMBERED
    ) -> None:
        self._ranges_max = ranges_max
        self._chunks_remembered = chunks_remembered
        # Parallel lists, so that bisect looks at plain ints.
        self._offsets: list[int] = []
        self._ends: list[int] = []
        self._crcs: list[int] = []
        self._chunks: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def prefix(self) -> int:
        """How many bytes there are from 0 on without a hole."""
        return self._ends[0] if self._offsets and self._offsets[0] == 0 else 0

    @property
    def end(self) -> int:
        """The position after the last byte there is."""
        return self._ends[-1] if self._ends else 0

    def ranges(self) -> list[ByteRange]:
        """Return all ranges by rising offset."""
        rows = zip(self._offsets, self._ends, self._crcs, strict=True)
        return [ByteRange(offset, end - offset, crc) for offset, end, crc in rows]

    def overlaps(self, offset: int, length: int) -> bool:
        """Say whether any byte of [offset, offset + length) is there."""
        at = bisect_right(self._offsets, offset)
        if at and self._ends[at - 1] > offset:
            return length > 0
        return at < len(self._offsets) and self._offsets[at] < offset + length

    def covers(self, offset: int, length: int) -> bool:
        """Say whether every byte of [offset, offset + length) is there."""
        at = bisect_right(self._offsets, offset)
        return not length or (at > 0 and self._ends[at - 1] >= offset + length)

    def missing(self, size: int, *, count_max: int = RANGES_MAX) -> list[tuple[int, int]]:
        """Return the first holes below size as (offset, length), at most count_max of them."""
        holes: list[tuple[int, int]] = []
        position = 0
        for offset, end in zip(self._offsets, self._ends, strict=True):
            if len(holes) == count_max or position >= size:
                return holes
            if offset > position:
                holes.append((position, min(offset, size) - position))
            position = end
        if position < size and len(holes) < count_max:
            holes.append((position, size - position))
        return holes

    def crc32c(self, size: int) -> int:
        """Return the CRC32C of the whole, which is exactly size bytes.

        Raises LocalProtocolError while there are holes, or bytes beyond size.
        """
        if self.prefix != size or self.end != size:
            raise LocalProtocolError(f"{size:,} bytes are not there as one range")
        return self._crcs[0] if size else 0

    def judge(self, offset: int, length: int, crc32c: int) -> Verdict:
        """Say what a chunk that has arrived is to the ones before it.

        Raises RemoteProtocolError (TOO_MANY_RANGES) for a new chunk that touches no range when
        there are as many as may be; it costs the chunk, not the upload.
        """
        if not self.overlaps(offset, length):
            if len(self) >= self._ranges_max and not self._touches(offset, offset + length):
                self._refuse()
            return Verdict.NEW
        if not self.covers(offset, length):
            return Verdict.CONFLICT
        chunk = self._chunks.get(offset)
        if chunk is None:
            return Verdict.CONFLICT if self._cuts_a_chunk(offset, length) else Verdict.FORGOTTEN
        return Verdict.REPEATED if chunk == (length, crc32c) else Verdict.CONFLICT

    def add(self, offset: int, length: int, crc32c: int) -> None:
        """Record a chunk of length bytes, at least one.

        Raises LocalProtocolError if a byte of it is there already (judge first), and
        RemoteProtocolError (TOO_MANY_RANGES) as judge does.
        """
        end = offset + length
        ends = self._ends
        if ends and ends[-1] == offset and length > 0:
            # The next chunk of a file sent from front to back: no search.
            ends[-1] = end
            self._crcs[-1] = combine(self._crcs[-1], crc32c, length)
        else:
            self._insert(offset, end, crc32c)
        if self._chunks_remembered:
            self._chunks[offset] = (length, crc32c)
            if len(self._chunks) > self._chunks_remembered:
                self._chunks.popitem(last=False)

    def restore(self, part: ByteRange) -> None:
        """Record a range of an earlier life, of which the single chunks are not known any more.

        Raises as add does.
        """
        self._insert(part.offset, part.offset + part.length, part.crc32c)

    def _insert(self, offset: int, end: int, crc32c: int) -> None:
        if end <= offset or self.overlaps(offset, end - offset):
            raise LocalProtocolError(f"bytes {offset:,} to {end:,} are there, or are none")
        at = bisect_right(self._offsets, offset)
        joins_left = at > 0 and self._ends[at - 1] == offset
        joins_right = at < len(self) and self._offsets[at] == end
        if joins_right:
            right_length = self._ends[at] - end
            crc32c = combine(crc32c, self._crcs[at], right_length)
            end = self._ends[at]
        if joins_left:
            self._crcs[at - 1] = combine(self._crcs[at - 1], crc32c, end - offset)
            self._ends[at - 1] = end
            if joins_right:
                del self._offsets[at], self._ends[at], self._crcs[at]
        elif joins_right:
            self._offsets[at] = offset
            self._crcs[at] = crc32c
        else:
            if len(self) >= self._ranges_max:
                self._refuse()
            self._offsets.insert(at, offset)
            self._ends.insert(at, end)
            self._crcs.insert(at, crc32c)

    def _touches(self, offset: int, end: int) -> bool:
        """Say whether a range ends or begins where these bytes do."""
        at = bisect_right(self._offsets, offset)
        return (at > 0 and self._ends[at - 1] == offset) or (
            at < len(self) and self._offsets[at] == end
        )

    def _cuts_a_chunk(self, offset: int, length: int) -> bool:
        """Say whether a remembered chunk overlaps these bytes; one at offset itself does not."""
        return any(
            start < offset + length and offset < start + chunk_length
            for start, (chunk_length, _) in self._chunks.items()
        )

    def _refuse(self) -> None:
        raise RemoteProtocolError(
            ErrorCode.TOO_MANY_RANGES, f"the upload has {len(self):,} separate ranges already"
        )
