"""Whole files: compare, hash, repeat."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PIECE_BYTES = 1 << 20


def same_bytes(one: Path, other: Path) -> bool:
    """Compare two files byte for byte."""
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            piece = left.read(PIECE_BYTES)
            if piece != right.read(PIECE_BYTES):
                return False
            if not piece:
                return True


def file_sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def repeat_until(path: Path, at_least: int) -> None:
    """Append a file's content to it until it has `at_least` bytes."""
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path} is empty: repeating it makes it no longer")
    with path.open("rb") as source, path.open("ab") as file:
        while file.tell() < at_least:
            source.seek(0)
            left = size
            while left:
                left -= file.write(source.read(min(PIECE_BYTES, left)))
            file.flush()
