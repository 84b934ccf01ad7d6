"""Slabs: memory of ours that a client fills and the disk reads from, with no copy between.

A slab is a memfd, new for each session, so that its pages are zeros and no client sees another's.
Both sides map it, the client for writing; so what could the client do to it, and what stops it:
- Truncate it: our access, or the disk's, would fail. F_SEAL_SHRINK and F_SEAL_GROW, from the begin.
- Punch a hole (fallocate, MADV_REMOVE): the registered pages would leave the file but stay
  registered, and WRITE_FIXED would go on writing the old bytes from them, with success, while the
  client fills new pages. F_SEAL_FUTURE_WRITE refuses it.
- Write to it by pwrite, or map it once more, for another process: the same seal.
- Keep us from all of that by adding seals of its own: F_SEAL_SEAL.
F_SEAL_FUTURE_WRITE refuses new writable mappings to everybody and leaves those that are there. So
the order is: map here, send the descriptor, let the client map, and seal when it says that it has;
and only then register, for until then pages may still be exchanged. A kernel before 5.1 lacks the
seal and so has no slabs.

Its pages are the client's to touch first: the kernel counts a page for who did, and a client that
keeps its mapping when its session has ended keeps the pages, which no seal lets us take back. So
it is the client's memory that they come out of, and a page that nobody has touched is refused
rather than made here.

What stays possible is what a slab is for: the client changes bytes at any time, also while the disk
reads them. That can give it other bytes in its own file than it meant, and nothing else.

A slab is locked memory, as every registered buffer is, and so it is bounded, for a session and in
all. Its memory goes when the session has ended and the last write from it has completed, in this
order: the write, the registration, the mapping. Where the ring is broken the kernel may use it for
ever: then it is kept.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from uringd.client_memory import (
    BLOCK_BYTES,
    F_ADD_SEALS,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
)
from uringd.upload_errors import UploadError
from uringd.wire import ErrorCode
from uringio.exceptions import UringioError
from uringio.lowlevel import Slot

if TYPE_CHECKING:
    from uringio.lowlevel import Reactor

SIZE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW
LAST_SEALS = F_SEAL_FUTURE_WRITE | F_SEAL_SEAL


class SlabBudget:
    """Counts the bytes of all slabs against `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0

    def take(self, count: int) -> None:
        """Count a slab in. Raises UploadError (UNSUPPORTED) when it is too much."""
        if self.used + count > self.bytes_max:
            text = (
                f"all slabs together may have {self.bytes_max} bytes, and have {self.used}: "
                "do without, come again later, or raise slab_bytes_max"
            )
            raise UploadError(ErrorCode.UNSUPPORTED, text)
        self.used += count

    def give_back(self, count: int) -> None:
        """Count a slab out: its memory is gone."""
        self.used -= count


class Slab:
    """`count` slots of `slot_bytes` bytes, mapped and not touched. Raises OSError.

    The caller has counted it in `budget`, which `close` gives it back to.
    """

    def __init__(
        self, reactor: Reactor, budget: SlabBudget, count: int, slot_bytes: int, *, read_back: bool
    ) -> None:
        self._reactor = reactor
        self._budget = budget
        self._index = -1
        self._in_flight = 0
        self._ended = False
        self.slot_bytes = slot_bytes
        self.read_back = read_back
        self.size = count * slot_bytes
        self.fd = os.memfd_create("uringd slab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, self.size)
            fcntl.fcntl(self.fd, F_ADD_SEALS, SIZE_SEALS)
            self._map = mmap.mmap(self.fd, self.size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(self.fd)
            raise
        memory = memoryview(self._map)
        self._slots = [
            Slot(-1, memory[at : at + slot_bytes]) for at in range(0, self.size, slot_bytes)
        ]

    @property
    def is_ready(self) -> bool:
        """Whether chunks may be placed in it."""
        return self._index >= 0

    def seal(self) -> None:
        """Seal and register it: the client has mapped and filled it.

        Raises UploadError (UNSUPPORTED).
        """
        try:
            fcntl.fcntl(self.fd, F_ADD_SEALS, LAST_SEALS)
        except OSError as exc:
            text = f"the slab cannot be sealed ({exc.strerror}): Linux has the seal from 5.1 on"
            raise UploadError(ErrorCode.UNSUPPORTED, text) from exc
        if os.fstat(self.fd).st_blocks * BLOCK_BYTES < self.size:
            text = "the slab has pages that are not there: touch all of it (MAP_POPULATE) first"
            raise UploadError(ErrorCode.UNSUPPORTED, text)
        anchor = ctypes.c_char.from_buffer(self._map)
        address = ctypes.addressof(anchor)
        del anchor  # a live export would keep the mapping from closing
        index = self._reactor.ring.register_memory(address, self.size)
        if index < 0:
            mend = "raise RLIMIT_MEMLOCK" if index == -errno.ENOMEM else "do without"
            text = f"the slab cannot be registered ({os.strerror(-index)}): {mend}"
            raise UploadError(ErrorCode.UNSUPPORTED, text)
        self._index = index
        for slot in self._slots:
            slot.buffer_index = index
        self._close_descriptor()

    def slot_at(self, offset: int) -> Slot:
        """Find the slot that begins at `offset`, which is in the slab."""
        return self._slots[offset // self.slot_bytes]

    def take(self, slot: Slot) -> None:
        """Count a slot that the server uses from now on."""
        slot.taken = True
        self._in_flight += 1

    def give_back(self, slot: Slot) -> None:
        """Count a slot that nothing of ours uses any more."""
        slot.taken = False
        self._in_flight -= 1
        self._close_if_unused()

    def close(self) -> None:
        """Let it go as soon as the last write from it has completed."""
        self._ended = True
        self._close_descriptor()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._ended or self._in_flight:
            return
        if self._reactor.is_broken:
            self._reactor.keep(self._map)
            return
        try:
            if self._index >= 0:
                self._reactor.ring.unregister_memory(self._index)
        except UringioError:
            self._reactor.keep(self._map)
            return
        self._index = -1
        self._slots.clear()
        del self._map  # unmapped with the last view of it, which the completed write may have
        self._budget.give_back(self.size)

    def _close_descriptor(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
