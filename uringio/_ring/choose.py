"""Which ring: io_uring, or threads where there is none, never without saying so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from uringio._ring.threads import ThreadRing
from uringio._ring.uring import UringRing
from uringio.exceptions import UnavailableError

if TYPE_CHECKING:
    from uringio._ring.ring import RingLike


def choose_ring(backend: Literal["auto", "io_uring", "threads"], entries: int) -> RingLike:
    """Make the ring that was asked for; "auto" falls back to threads and notes the reason."""
    if backend == "threads":
        return ThreadRing(entries)
    if backend not in {"auto", "io_uring"}:
        raise ValueError(f'backend must be "auto", "io_uring" or "threads", not {backend!r}')
    try:
        return UringRing(entries)
    except UnavailableError as exc:
        if backend == "io_uring":
            raise
        return ThreadRing(entries, reason=str(exc))
