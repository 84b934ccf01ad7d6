"""What uringio gets from the kernel that it runs on, and from a directory's file system, as JSON.

    python3 -P gets.py DIRECTORY

Each fact is tried, not concluded from a version.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

import uringio
from uringio._trio import opening
from uringio.lowlevel import Opcode, operations

WRITTEN_BYTES = 1 << 20


async def gets(directory: Path) -> dict[str, Any]:
    """Write a file there and throw it away."""
    path = directory / "file"
    async with uringio.open_ring() as ring:
        features = ring.features
        facts = asdict(uringio.probe()) | {
            "backend": features.backend,
            "registered_slots": f"{features.registered_slots} of {features.slots}",
            "slots_max": features.slots_max,
            "notes": features.notes,
        }
        async with ring.create(path) as writer:
            await writer.write(bytes(WRITTEN_BYTES))
            await writer.commit()
        async with await ring.open(path, "r+") as file:
            reserve = operations.fallocate(file.fileno(), WRITTEN_BYTES, WRITTEN_BYTES)
            closed = os.dup(file.fileno())
            os.close(closed)
            links = [operations.ftruncate(closed, 0), operations.fsync(file.fileno())]
            if Opcode.FTRUNCATE in features.missing_opcodes:
                links[0] = operations.fallocate(closed, 0, 1)
            facts |= {
                "direct": file.direct,
                "cache": file.cache,
                "uncached": opening.takes_uncached(file.fileno()),
                "atomic_write_bytes": file.atomic_write_bytes,
                "fallocate": _said(await ring.reactor.perform(reserve)),
                "links": [_said(result) for result in await ring.reactor.perform_chain(links)],
            }
    return facts


def _said(result: int) -> str:
    return "done" if result >= 0 else errno.errorcode[-result]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
        print(json.dumps(trio.run(gets, Path(scratch))))  # noqa: T201  # it is the result
