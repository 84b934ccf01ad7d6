"""Sizes as numbers and as words."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def size_text(length: int) -> str:
    """Say a number of bytes as people do: 2 GiB, 512 MiB, 64 KiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if length >= unit:
            return f"{length / unit:.1f} {name}".replace(".0 ", " ")
    return f"{length} bytes"


def rounds_text(rounds: int) -> str:
    """Say a number of rounds."""
    return "1 round" if rounds == 1 else f"{rounds} rounds"
