"""What a simulated ring is told to do wrong, as data."""

from __future__ import annotations

from dataclasses import dataclass

from uringio._ring.operations import Opcode

PLAIN = {Opcode.WRITE_FIXED: Opcode.WRITE, Opcode.READ_FIXED: Opcode.READ}
"""A fixed operation is its plain twin here: code under test may use either."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: which operation it hits, and what that operation's result is then.

    The `nth` operation of `opcode` is hit, counted from 1; with `every` all from there on; with a
    `probability` (0 to 1) each from there on is hit by chance. Fixed reads and writes count as
    plain ones. Of several faults that fit, the first in the plan wins.

    Either `result` is the -errno to answer instead of doing anything, or `short` the bytes of a
    write or read that are done, after which its short length is the result. Direct I/O moves whole
    blocks, so there `short` is cut to blocks (and is at least one).
    """

    opcode: Opcode
    nth: int = 1
    result: int = 0
    short: int = 0
    every: bool = False
    probability: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what would hit nothing or means nothing."""
        if self.nth < 1:
            raise ValueError(f"nth counts from 1, not from {self.nth}")
        if self.result > 0 or self.short < 0 or (self.result < 0) == (self.short > 0):
            raise ValueError("a fault has either a result below 0 (-errno) or short > 0 bytes")
        if not 0 < self.probability <= 1:
            raise ValueError(f"a probability is above 0 and at most 1, not {self.probability}")

    def fits(self, opcode: Opcode, count: int) -> bool:
        """Whether the `count`-th operation of (plain) `opcode` is one that this fault may hit."""
        if opcode != PLAIN.get(self.opcode, self.opcode):
            return False
        return count >= self.nth if self.every or self.probability < 1 else count == self.nth
