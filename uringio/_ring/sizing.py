"""Sizing: slot size and depth for the device below a directory, from what the kernel tells of it.

`suggest` asks (statx(2), and /sys/dev/block/MAJ:MIN/queue, see the kernel's
Documentation/ABI/stable/sysfs-block); `choose_sizes` decides and does nothing else. Whether a disk
turns is not asked: virtual disks say that they do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from uringio._ring import libc
from uringio._ring.pool import SLOT_BYTES_DEFAULT, SLOT_BYTES_MAX, SLOTS_DEFAULT, SLOTS_MIN

SYSFS = Path("/sys")

SEGMENT_BYTES = 4 << 10
"""What one segment of a request covers at the least: a page that lies alone."""

REQUEST_BYTES_MIN = 128 << 10
"""Smaller writes cost more by their number than they gain by being one request."""

SLOTS_CHOSEN_MAX = 64
"""Of the smallest slots chosen, 8 MiB: half of what the default keeps in flight, for devices whose
requests are so small that their queue is the bound."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the kernel says of a block device's queue and of direct I/O; None: it says nothing.

    `request_bytes` is the biggest request (max_sectors_kb), `segments` the pieces of memory in one
    (max_segments), `requests` the depth of its queue (nr_requests), `align_bytes` what direct
    offsets must be multiples of (STATX_DIOALIGN).
    """

    name: str
    request_bytes: int | None = None
    segments: int | None = None
    requests: int | None = None
    align_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """A choice: `slots` slots of `slot_bytes` bytes, and the reason in a sentence."""

    slots: int
    slot_bytes: int
    reason: str


def suggest(directory: str | os.PathLike[str]) -> Sizes:
    """Choose slot size and depth for files in a directory. Raises OSError if there is none."""
    facts = read_facts(os.fspath(directory))
    return choose_sizes(facts, huge_pages=has_huge_pages())


def choose_sizes(facts: DeviceFacts | None, *, huge_pages: bool) -> Sizes:
    """Choose from facts alone; None is a file system without a block device of its own.

    A slot is to be one request of the device, up to 1 MiB (more gained nothing on the reference
    disks, and a slot is what one slow sender holds); as many slots as keep the default's 16 MiB in
    flight, but no more requests than the device's queue takes.
    """
    if facts is None:
        reason = "no block device is known below it (tmpfs, overlay, btrfs, network): the default"
        return Sizes(SLOTS_DEFAULT, SLOT_BYTES_DEFAULT, reason)
    bounds = {"the default": SLOT_BYTES_DEFAULT}
    if facts.request_bytes:
        bounds["its biggest request"] = facts.request_bytes
    if facts.segments and not huge_pages:
        bounds["what its segments cover without huge pages"] = facts.segments * SEGMENT_BYTES
    bound = min(bounds, key=lambda name: bounds[name])
    slot_bytes = max(REQUEST_BYTES_MIN, _power_of_two_below(bounds[bound]))
    if facts.align_bytes and slot_bytes % facts.align_bytes:
        align = facts.align_bytes
        slot_bytes = min(-(-slot_bytes // align) * align, SLOT_BYTES_MAX)
        bound += f", in multiples of the {align} that direct I/O needs"
    slots = min(SLOTS_CHOSEN_MAX, SLOTS_DEFAULT * SLOT_BYTES_DEFAULT // slot_bytes)
    depth = f"{slots * slot_bytes >> 20} MiB in flight"
    if facts.requests:
        requests_a_slot = -(-slot_bytes // (facts.request_bytes or slot_bytes))
        queue = max(SLOTS_MIN, facts.requests // requests_a_slot)
        if queue < slots:
            slots, depth = queue, f"the {facts.requests} requests its queue takes"
    return Sizes(slots, slot_bytes, f"{facts.name}: slot size by {bound}, depth by {depth}")


def read_facts(directory: str, sysfs: Path = SYSFS) -> DeviceFacts | None:
    """Ask the kernel about the device below a directory; a partition's queue is its disk's."""
    device = os.stat(directory).st_dev
    entry = sysfs / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    if not entry.exists():
        return None
    entry = entry.resolve()
    queue = entry / "queue" if (entry / "queue").is_dir() else entry.parent / "queue"
    kibibytes = _read_number(queue / "max_sectors_kb")
    return DeviceFacts(
        entry.name,
        request_bytes=None if kibibytes is None else kibibytes << 10,
        segments=_read_number(queue / "max_segments"),
        requests=_read_number(queue / "nr_requests"),
        align_bytes=_direct_alignment(directory),
    )


def has_huge_pages(sysfs: Path = SYSFS) -> bool:
    """Whether a mapping that asks for huge pages may get them."""
    try:
        setting = (sysfs / "kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
    return "[never]" not in setting


def _direct_alignment(directory: str) -> int | None:
    """STATX_DIOALIGN of a nameless file there: it is said of files only."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        said = libc.statx_direct_alignment(fd)
    finally:
        os.close(fd)
    return said.offset or None if said is not None else None


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text()) or None
    except (OSError, ValueError):
        return None


def _power_of_two_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)
