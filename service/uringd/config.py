"""The daemon's settings: every limit with its unit, its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from uringd.urls import Url

PORT_DEFAULT = 7433

ALIGNMENT_BYTES = 4096
"""What chunks start on: the block of every file system uringd writes past the page cache on."""

REPLIES_MAX = 64
"""Frames to a client that were not sent yet. Beyond it the client is not read from: who does not
take its answers gets no new ones."""


SLOT_BYTES_DEFAULT = 2 << 20
"""What a chunk costs besides its bytes is the same for every size: 2 MiB took a fifth less of the
server's CPU than 1 MiB, and 4 MiB no less again (three interleaved rounds over TCP)."""

SLOTS_WANTED = 16
"""32 MiB of pool: two connections at full credit, or sixteen with a chunk each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a daemon runs. Times in seconds, sizes in bytes."""

    root: Path
    listen: tuple[Url, ...]
    backend: Literal["auto", "io_uring", "threads"] = "auto"
    token: str = field(default="", repr=False)

    slots: int | None = None
    """Slots of the pool; None takes SLOTS_WANTED, or what RLIMIT_MEMLOCK allows."""
    slot_bytes: int = SLOT_BYTES_DEFAULT
    """One slot, and so the longest chunk."""

    connections_max: int = 256
    """Each costs two descriptors and about 50 KiB."""
    uploads_per_connection_max: int = 16
    """Each costs a descriptor and a spool file."""
    credit_per_connection: int = 8
    """Chunks one connection may have on their way: enough to keep the disk busy while one is
    received, few enough that two greedy connections leave slots for a third."""

    uploads_max: int = 10_000
    """Unfinished uploads in all, suspended ones too: each is a spool file and a row."""
    spool_bytes_max: int | None = None
    """What unfinished uploads may hold in all; None leaves it to the disk."""
    upload_expiry_s: float = 7 * 86_400.0
    """How long a suspended upload can be resumed, while the server runs: a long weekend."""
    receipt_expiry_s: float = 7 * 86_400.0
    """How long COMMIT is still answered for a file that was replaced since; for one that was not,
    its receipt is kept, for `uringd verify` needs it."""
    checkpoint_bytes: int = 64 << 20
    """An upload is made durable and recorded after so many bytes: what the end of the server costs
    its client. At 2 GiB/s that is 30 fsyncs a second, 1 % of the time."""
    checkpoint_s: float = 5.0
    """... and after so long, for slow clients."""

    handshake_timeout_s: float = 10.0
    """From accept to a whole HELLO."""
    idle_timeout_s: float = 300.0
    """Between two frames: a client that has nothing to send says PING."""
    speed_min_bytes_s: int = 16 << 10
    """A chunk that comes slower than this costs the connection: it holds a slot meanwhile."""
    speed_grace_s: float = 10.0
    """What a chunk may take on top of that: a mobile link's pause."""
    contended_chunk_s: float = 10.0
    """What a chunk may take while others wait for a slot: 200 KiB/s. Whoever holds the slots of a
    full pool for longer is slower than those who wait."""
    send_timeout_s: float = 60.0
    """A client that takes no acknowledgement for so long is gone."""
    shutdown_timeout_s: float = 30.0
    """What SIGTERM leaves uploads to finish. compose.yaml grants a minute."""
