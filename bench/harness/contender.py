"""A contender: one way to get bytes onto the disk, and what a table has to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.harness.cell import Cell

Kind = Literal["ours", "without", "yardstick", "plain", "library", "server"]
"""Whose it is: `library` are the peers from PyPI, `server` those that take uploads, `plain` is what
Python brings, `without` is ours with one of its choices switched off."""

BUFFERED = "its writes end in the page cache, and what the disk takes for them is paid at the fsync"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to get bytes onto the disk.

    `run` names the function that measures it, as "module:function": the child that runs it imports
    that module and no other, so that its memory is its own. `durable` says what holds when its time
    ends, `timed` from where to where that time is. `checked` says that the content of its file is
    known. Who `repeats` itself has as many different blocks as it has writes in flight, and writes
    them again and again from the same memory, as fio does. Who `uploads` needs a source file and a
    second copy's space. `untimed` is why the latency of its writes cannot be compared; `note` is
    what a reader has to know beside its figures.
    `survives` says that what it answered for outlives a power cut.
    """

    name: str
    title: str
    kind: Kind
    run: str
    timed: str
    durable: str
    checked: bool = True
    repeats: bool = False
    uploads: bool = False
    untimed: str = ""
    note: str = ""
    survives: bool = True

    def different_blocks(self, cell: Cell) -> int | None:
        """Count the blocks that it writes again and again; None where each is another."""
        return cell.depth if self.repeats else None

    def why_not(self, cell: Cell) -> str | None:
        """Say why it cannot do this, or None when it can."""
        return (self.untimed if cell.timed else "") or None
