"""What a ring could and could not get, said once and in full: nothing is downgraded in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uringio._ring.operations import Opcode

Backend = Literal["io_uring", "threads", "simulated"]


@dataclass(slots=True)
class RingFeatures:
    """What this ring is made of.

    `entries` and `completion_entries` are the queue sizes in operations, `setup_flags` the flags
    the kernel took, `missing_opcodes` what this kernel's io_uring lacks (done in a thread then).
    `slots`, `registered_slots` and `slot_bytes` (bytes of one) describe the pool as it is now, and
    `slots_max` what it may grow to; `huge_pages` says whether the memory it began with really is
    huge pages. `sizes` says what was suggested for a directory's device, and why. `notes` has one
    sentence for each thing that was wanted and not to be had.
    """

    backend: Backend
    entries: int
    completion_entries: int
    setup_flags: tuple[str, ...] = ()
    missing_opcodes: frozenset[Opcode] = frozenset()
    slots: int = 0
    slots_max: int = 0
    slot_bytes: int = 0
    registered_slots: int = 0
    huge_pages: bool = False
    sizes: str = ""
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say that something was not to be had; the same only once."""
        if text not in self.notes:
            self.notes.append(text)
