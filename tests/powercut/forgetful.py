"""`uringd serve` whose ring says that an fsync is done and does nothing: for test_powercut.py."""

from __future__ import annotations

from uringd.cli import main
from uringio._ring import execute
from uringio.lowlevel import Opcode, Operation


def forget(_operation: Operation) -> int:
    """Do nothing, successfully."""
    return 0


if __name__ == "__main__":
    assert Opcode.FSYNC in execute.CALLS, "the thread ring's fsync is this one"
    execute.CALLS[Opcode.FSYNC] = forget
    main()
