"""The frames of protos/vectors, to begin with."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

FILES = sorted((Path(__file__).parents[2] / "protos" / "vectors").glob("*.json"))


@dataclass(frozen=True, slots=True)
class Vector:
    name: str
    from_server: bool
    after: tuple[str, ...]
    frame: bytes
    ends: bool


@functools.cache
def vectors() -> list[Vector]:
    """Return all vectors in the order of their files."""
    return [
        Vector(
            name=row["name"],
            from_server=row["direction"] == "S",
            after=tuple(row["after"]),
            frame=bytes.fromhex("".join(row["frame"])),
            ends=bool(row.get("end")),
        )
        for path in FILES
        for row in json.loads(path.read_text())
    ]
