"""The daemon's settings: every limit with its unit, its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from uringd.wire import DATA_BYTES_MAX, OFFSET_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from uringd.urls import Url

PORT_DEFAULT = 7433

ALIGNMENT_BYTES = 4096
"""What chunks start on: the block of every file system uringd writes past the page cache on."""

REPLIES_MAX = 64
"""Frames to a client that were not sent yet. Beyond it the client is not read from: who does not
take its answers gets no new ones."""

UNSENT_BYTES_MAX = 64 << 10
"""The same in bytes: one answer of the longest, such as a LIST's. 64 of them for each of the
connections that there may be would be 8 GiB for a few MB of requests."""


SLOT_BYTES_DEFAULT = 2 << 20
"""What a chunk costs besides its bytes is the same for every size: 2 MiB took a fifth less of the
server's CPU than 1 MiB, and 4 MiB no less again (three interleaved rounds over TCP)."""

SLOTS_WANTED = 16
"""32 MiB of pool: two connections at full credit, or sixteen with a chunk each."""


BOUNDS: dict[str, tuple[Any, Any]] = {
    "workers": (1, 64),
    "slots": (2, 16_384),
    "slot_bytes": (ALIGNMENT_BYTES, DATA_BYTES_MAX),
    "connections_max": (1, 1_000_000),
    "uploads_per_connection_max": (1, 65_536),
    "credit_per_connection": (1, 16_384),
    "slab_slot_bytes": (ALIGNMENT_BYTES, DATA_BYTES_MAX),
    "slab_bytes_per_connection": (0, 1 << 30),
    "slab_bytes_max": (0, 1 << 40),
    "uploads_max": (1, 100_000_000),
    "spool_bytes_max": (1, OFFSET_MAX),
    "upload_expiry_s": (3600.0, 1e9),
    "receipt_expiry_s": (86_400.0, 1e9),
    "checkpoint_bytes": (1 << 16, OFFSET_MAX),
    "checkpoint_s": (0.01, 86_400.0),
    "handshake_timeout_s": (0.01, 3600.0),
    "idle_timeout_s": (0.01, 1e6),
    "speed_min_bytes_s": (1, 1 << 40),
    "speed_grace_s": (0.01, 3600.0),
    "contended_chunk_s": (0.01, 3600.0),
    "send_timeout_s": (0.01, 3600.0),
    "shutdown_timeout_s": (0.0, 86_400.0),
}
"""Least and most of each setting that is a number. Above the kernel's and the protocol's own limits
nothing makes sense; PROTOCOL.md promises the least of the expiries."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a daemon runs. Times in seconds, sizes in bytes."""

    root: Path
    listen: tuple[Url, ...]
    backend: Literal["auto", "io_uring", "threads"] = "auto"
    token: str = field(default="", repr=False)

    workers: int = 1
    """Processes. One core receives, checks and writes faster than most disks take it; more of them
    are for many clients, or for a disk that is faster."""
    slots: int | None = None
    """Slots of a worker's pool; None takes SLOTS_WANTED, or what RLIMIT_MEMLOCK allows."""
    slot_bytes: int = SLOT_BYTES_DEFAULT
    """One slot, and so the longest chunk."""

    connections_max: int = 1024
    """Each costs a descriptor, one more for its upload, and 15 KiB; the kernel keeps what they send
    beyond the slots, and bounds it (net.ipv4.tcp_mem)."""
    uploads_per_connection_max: int = 16
    """Each costs a descriptor and a spool file."""
    credit_per_connection: int = 8
    """Chunks one connection may have on their way: enough to keep the disk busy while one is
    received, few enough that two greedy connections leave slots for a third."""

    slab_slot_bytes: int = DATA_BYTES_MAX
    """One slot of a slab, and so the longest chunk in it, where that is more than `slot_bytes`:
    what is left of a chunk's cost is the same for every size. 16 MiB took half of the CPU of 4 MiB
    for a GiB, and two such slots wrote no slower than four of 4 or of 8 MiB."""
    slab_bytes_per_connection: int = 64 << 20
    """What one connection's slab may have, in whole slots, two at the least: one is written while
    the other is filled, and slots are shorter where two would be more than this. With four the disk
    has its next write while the client takes its turn: a tenth to a quarter more than with two. The
    kernel registers 1 GiB at a time at the most."""
    slab_bytes_max: int = 512 << 20
    """What all slabs together may have: eight clients at the defaults. It is locked memory, beside
    the pool's; 0, or less than a slot, offers none."""

    uploads_max: int = 10_000
    """Unfinished uploads in all, suspended ones too: each is a spool file and a row."""
    spool_bytes_max: int | None = None
    """What unfinished uploads may hold in all; None leaves it to the disk."""
    upload_expiry_s: float = 7 * 86_400.0
    """How long a suspended upload can be resumed, while the server runs: a long weekend."""
    receipt_expiry_s: float = 7 * 86_400.0
    """How long COMMIT is still answered for a file that was replaced since; for one that was not,
    its receipt is kept, for `uringd verify` needs it."""
    checkpoint_bytes: int = 256 << 20
    """An upload is made durable and recorded after so many bytes: what the end of the server costs
    its client, a tenth of a second of the fastest."""
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

    def __post_init__(self) -> None:
        """Refuse what cannot be meant. Raises ValueError."""
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} must be {least:,} to {most:,}, not {value:,}")
        for name in ("slot_bytes", "slab_slot_bytes"):
            if getattr(self, name) % ALIGNMENT_BYTES:
                raise ValueError(f"{name} must be a multiple of {ALIGNMENT_BYTES}")
