"""What this machine has of io_uring, and why not and what mends it where it has none."""

from __future__ import annotations

import os
from dataclasses import dataclass

from uringio._ring.pool import memlock_limit
from uringio._ring.uring import UringRing
from uringio.exceptions import UnavailableError


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer of `probe()`.

    `available` says whether a ring could be set up; `reason` why not and what mends it (empty when
    available). `setup_flags` are the ring flags the kernel took, `missing_opcodes` the operations
    its io_uring lacks, `memlock_bytes` how much may be registered (None: no limit).
    """

    available: bool
    reason: str
    kernel: str
    setup_flags: tuple[str, ...] = ()
    missing_opcodes: tuple[str, ...] = ()
    memlock_bytes: int | None = None


def probe() -> Probe:
    """Set up a small ring, look at it, and give it back. Never raises for want of io_uring."""
    kernel = f"{os.uname().sysname} {os.uname().release}"
    limit = memlock_limit()
    try:
        ring = UringRing(8)
    except UnavailableError as exc:
        return Probe(available=False, reason=str(exc), kernel=kernel, memlock_bytes=limit)
    try:
        features = ring.features
        return Probe(
            available=True,
            reason="",
            kernel=kernel,
            setup_flags=features.setup_flags,
            missing_opcodes=tuple(sorted(op.name for op in features.missing_opcodes)),
            memlock_bytes=limit,
        )
    finally:
        ring.close()
