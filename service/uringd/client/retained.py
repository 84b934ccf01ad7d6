"""What was sent and is not durable yet: kept in memory, or known to be readable again. Bounded.

At half of the bound a SYNC is sent without waiting for it, so that writing does not stall at the
whole of it; a server that makes uploads durable by itself now and then is never asked.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.client.chunk import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uringd.client.chunk import Piece

RETAINED_BYTES_MAX = 64 << 20
"""Kept in memory: some tens of milliseconds of a fast disk, so that a SYNC is back in time."""

REREAD_BYTES_MAX = 1 << 30
"""Sent of a source that can be read again: costs no memory, but what a dead server makes us send
twice."""


class Retained:
    """Counts the bytes that are not durable, and lends the memory that holds them."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max
        self._free: list[Memory] = []

    @property
    def full(self) -> bool:
        """Whether one more chunk would be too much."""
        return self.bytes >= self.bytes_max

    @property
    def half_full(self) -> bool:
        """Whether it is time to make room."""
        return self.bytes >= self.bytes_max // 2

    def borrow(self, chunk_bytes: int) -> Memory:
        """Take memory for a chunk, used before if there is some: new memory costs page faults."""
        while self._free:
            memory = self._free.pop()
            if len(memory.view) >= chunk_bytes:
                return memory
        return Memory(chunk_bytes)

    def add(self, piece: Piece) -> None:
        """Count a piece until `release`."""
        self.bytes += piece.length

    @contextlib.contextmanager
    def pinned(self, memory: Memory | None) -> Iterator[None]:
        """Keep memory from being lent again while it is sent, whatever becomes of its pieces."""
        if memory is None:
            yield
            return
        memory.users += 1
        try:
            yield
        finally:
            self._leave(memory)

    def release(self, piece: Piece) -> None:
        """Forget a piece: it is durable, or its parts stand for it."""
        self.bytes -= piece.length
        memory, piece.memory = piece.memory, None
        if memory is not None:
            self._leave(memory)

    def _leave(self, memory: Memory) -> None:
        memory.users -= 1
        if not memory.users:
            self._free.append(memory)
