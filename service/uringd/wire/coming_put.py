"""A PUT's payload on its way into memory. PROTOCOL.md, "Small uploads"."""

from uringd.wire import checksum
from uringd.wire.content import HEAD_BYTES, find_content


class ComingPut:
    """A PUT whose payload is received into memory: all of it, or its content where that is known.

    Checksums are taken of each piece as it comes, which is while it is in the core's cache: that of
    the payload, and that of the content. (To combine them would take a table for each new length,
    which costs more than going over the bytes again.) `view` is the memory, `head` what came before
    a content.
    """

    def __init__(self, buffer: bytearray, length: int, memory: memoryview | None) -> None:
        begin = bytes(buffer[: min(length, HEAD_BYTES)])
        found = None if memory is None else find_content(begin, length)
        skipped = 0
        if memory is None or found is None or length - found[1] > len(memory):
            self.head, self.view = None, memoryview(bytearray(length))
            self.crc32c = 0
        else:
            skipped = found[1]
            self.head, self.view = begin[: found[0]], memory[: length - skipped]
            self.crc32c = checksum.crc32c(begin[:skipped])
        self.content_crc32c = 0
        self.filled = 0
        with memoryview(buffer) as there:
            count = min(length, len(there)) - skipped
            self.view[:count] = there[skipped : skipped + count]
        del buffer[: skipped + count]
        self.received(count)

    @property
    def remaining(self) -> int:
        """Bytes still to come."""
        return len(self.view) - self.filled

    @property
    def rest(self) -> memoryview:
        """Where they go."""
        return self.view[self.filled :]

    def received(self, count: int) -> None:
        """Take note of count more bytes."""
        piece = self.view[self.filled : self.filled + count]
        self.crc32c = checksum.crc32c(piece, self.crc32c)
        if self.head is not None:
            self.content_crc32c = checksum.crc32c(piece, self.content_crc32c)
        self.filled += count
