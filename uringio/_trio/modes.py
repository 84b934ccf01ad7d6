"""How one write goes to the disk, and what it promises: the flags of pwritev2(2).

Three ways, the best first:
- direct: O_DIRECT, past the page cache. Offset, length and memory have to be aligned.
- uncached: RWF_DONTCACHE (Linux 6.14). Through the page cache, written back at once and dropped
  from it, at any alignment, and so without the burst at fsync. It is for what is written in big
  pieces: the kernel starts a write-back at every call, and a page that was written in part is read
  back for the next. Measured on ext4 and XFS, with the final fsync: 0.1 to 0.4 times the speed of
  plain writes at 4 to 16 KiB, as fast at 128 KiB, 1.1 to 1.8 times at 256 KiB to 1 MiB.
- cached: into the page cache, written back when the kernel likes or an fsync asks.

Two promises that a write can carry itself:
- RWF_DSYNC: durable when it completes, as by an fdatasync(2) of these bytes. Where the disk takes
  FUA writes and the blocks were written before, that is one request; else the disk's cache is
  flushed.
- RWF_ATOMIC (Linux 6.11): after a power cut all of its bytes are there, or all of the old ones.
  Direct writes only, of a length that is a power of two, at a multiple of it (statx(2),
  STATX_WRITE_ATOMIC). ext4 offers it where the disk does; XFS with reflinks on any disk (6.16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uringio._ring.operations import RWF_ATOMIC, RWF_DONTCACHE, RWF_DSYNC
from uringio.exceptions import UnavailableError

if TYPE_CHECKING:
    from uringio._trio.opening import OpenFile

Cache = Literal["direct", "uncached", "cached"]

UNCACHED_BYTES_MIN = 256 << 10
"""Smaller writes are dearer uncached than cached (see above)."""


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """What went which way through one open file, in bytes of writes that succeeded.

    `copied_bytes` of the direct ones were copied through slots first, for want of alignment.
    """

    direct_bytes: int
    uncached_bytes: int
    cached_bytes: int
    copied_bytes: int


def promise_flags(*, durable: bool, atomic: bool) -> int:
    """Translate what a write promises into the flags that make it so."""
    return (RWF_DSYNC if durable else 0) | (RWF_ATOMIC if atomic else 0)


def buffered_flags(length: int, *, uncached: bool) -> int:
    """Tell the flags of a write through the page cache: what is big need not stay."""
    return RWF_DONTCACHE if uncached and length >= UNCACHED_BYTES_MIN else 0


def check_atomic(file: OpenFile, offset: int, length: int) -> None:
    """Refuse an atomic write that the file system would not make. Never done in another way."""
    units = file.atomic_write_bytes
    if units is None:
        raise UnavailableError(
            f"{file.path}: atomic writes are not offered here (statx says no unit for a "
            f"{'direct' if file.direct else 'buffered'} file)"
        )
    shortest, longest = units
    if not shortest <= length <= longest or length & (length - 1) or offset % length:
        raise ValueError(
            f"{file.path}: an atomic write has {shortest} to {longest} bytes, a power of two, at "
            f"a multiple of its length, not {length} bytes at {offset}"
        )
