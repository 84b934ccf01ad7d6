"""Places: memory that both sides share, where a chunk lies while the server needs it.

With `copy` it is ours, attached once, and the server copies out of it. With `slab` it is the
server's, mapped here, and the disk reads from it. With `sealed` each chunk has memory of its own,
which nobody can change once it was sent. PROTOCOL.md, "Shared memory".

A place of attached memory is used again when an acknowledgement has released it: with its credit.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Protocol

from uringd.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uringd.client.link import Link

F_ADD_SEALS = 1033
ALL_SEALS = 1 | 2 | 4 | 8
"""linux/fcntl.h: F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE."""


class Place:
    """Where one chunk lies: `view` to fill, `offset` in its memory, and whose place it is."""

    __slots__ = ("mapping", "memory", "offset", "owner", "view")

    def __init__(
        self, owner: Places, view: memoryview, offset: int, mapping: mmap.mmap | None, memory: int
    ) -> None:
        self.owner = owner
        self.view = view
        self.offset = offset
        self.mapping = mapping
        self.memory = memory
        """The descriptor of memory of its own (`sealed`), else -1."""

    def put_back(self) -> None:
        """Give the place back: no chunk was sent from it."""
        self.owner.put_back(self)


class Places(Protocol):
    """The shared memory of one connection.

    `mode` is the feature's name, `chunk_bytes` the longest chunk; 0: what the server takes. `count`
    is how many places there are; 0: as many as are wanted.
    """

    mode: str
    chunk_bytes: int
    count: int

    async def take(self, link: Link) -> Place:
        """Wait for a place for a chunk. Raises what `Link.next_event` does, OSError."""

    def put_back(self, place: Place) -> None:
        """Take a place back that was not sent."""

    def ready(self, place: Place, length: int) -> bool:
        """Make a place fit to be sent; False where that cannot be, for somebody holds its view."""

    def sent(self, place: Place) -> None:
        """Take note that a place is the server's now."""

    def release(self, offsets: Iterable[int]) -> None:
        """Take places back that the server has released."""

    def close(self) -> None:
        """Let go of the memory. Views that are still held keep it until they go."""


class AttachedPlaces:
    """Memory that was attached as a whole, in slots of `slot_bytes`."""

    def __init__(self, mode: str, mapping: mmap.mmap, slot_bytes: int) -> None:
        self.mode = mode
        self._memory = memoryview(mapping)
        self.chunk_bytes = slot_bytes if mode == "slab" else 0
        self._slot_bytes = slot_bytes
        self._free = list(range(0, len(self._memory), slot_bytes))
        self.count = len(self._free)
        self._sent: set[int] = set()

    async def take(self, link: Link) -> Place:
        """Wait for a slot that the server does not need."""
        while not self._free:
            await link.next_event()
        offset = self._free.pop()
        view = self._memory[offset : offset + self._slot_bytes]
        return Place(self, view, offset, None, -1)

    def put_back(self, place: Place) -> None:
        """Offer the slot again."""
        self._free.append(place.offset)

    def ready(self, place: Place, length: int) -> bool:  # noqa: ARG002  # Places'
        """Say that it is."""
        return True

    def sent(self, place: Place) -> None:
        """Keep the slot until it is released."""
        self._sent.add(place.offset)

    def release(self, offsets: Iterable[int]) -> None:
        """Offer slots again. Raises ConnectionLostError: the server released what it had not."""
        for offset in offsets:
            if offset not in self._sent:
                raise ConnectionLostError(f"the server released memory at {offset} that it had not")
            self._sent.remove(offset)
            self._free.append(offset)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory = memoryview(b"")
        self._free.clear()


class SealedPlaces:
    """A new memfd for each chunk: filled, sealed for ever, sent and forgotten."""

    def __init__(self, chunk_bytes: int) -> None:
        self.mode = "sealed"
        self.chunk_bytes = self.count = 0
        self._memory_bytes = chunk_bytes

    async def take(self, link: Link) -> Place:  # noqa: ARG002  # Places'
        """Make memory for a chunk."""
        length = self._memory_bytes
        memory = os.memfd_create("uringd chunk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, length)
            mapping = mmap.mmap(memory, length, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            os.close(memory)
            raise
        return Place(self, memoryview(mapping), 0, mapping, memory)

    def put_back(self, place: Place) -> None:
        """Throw the memory away."""
        self._unmap(place)
        os.close(place.memory)

    def ready(self, place: Place, length: int) -> bool:
        """Cut the memory to the chunk's length, and seal it."""
        if not self._unmap(place):
            return False
        os.ftruncate(place.memory, length)
        fcntl.fcntl(place.memory, F_ADD_SEALS, ALL_SEALS)
        return True

    def sent(self, place: Place) -> None:
        """Close our descriptor: the server has one of its own."""
        os.close(place.memory)

    def release(self, offsets: Iterable[int]) -> None:
        """Nothing is used again."""

    def close(self) -> None:
        """Nothing is kept."""

    def _unmap(self, place: Place) -> bool:
        mapping = place.mapping
        assert mapping is not None, "each has its own"
        try:
            place.view.release()
            mapping.close()
        except BufferError:  # a part of the view is held by somebody
            return False
        return True
