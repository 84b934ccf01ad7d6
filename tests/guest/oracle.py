"""What was acknowledged to the clients of a guest, and whether the disk still has it.

Held against the file system of the guest's disk, mounted here after a cut, and against a server
that is started on it: that is how a user would find out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.ledger import BrokenPromiseError
from tests.soak.load import Slice
from uringd.client import connect
from uringd.errors import RefusedError
from uringd.wire import ErrorCode, crc32c

READ_BYTES = 1 << 20


@dataclass
class Attempt:
    """One upload: its content, and the most that was acknowledged of it."""

    name: str
    content: memoryview
    level: str
    upload_id: str = ""
    durable: int = 0
    receipt: bool = False
    over: bool = False  # aborted: nothing is promised of it


@dataclass
class Oracle:
    """All uploads of a campaign that the disk may still have something of."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    checked: int = 0
    checked_durable_bytes: int = 0
    lost_unpromised: int = 0

    async def check(self, root: Path, url: str) -> None:
        """Hold a served root against all that was acknowledged; then forget it and remove it.

        Raises BrokenPromiseError.
        """
        there = {name for name in os.listdir(root) if name != ".uringd"}
        if unknown := there - self.attempts.keys():
            raise BrokenPromiseError(f"files that nobody sent are there: {sorted(unknown)[:5]}")
        for attempt in self.attempts.values():
            if attempt.name in there:
                _compare(root / attempt.name, attempt)
            elif attempt.receipt and attempt.level != "written":
                text = f"{attempt.name} was acknowledged as {attempt.level}, and is not there"
                raise BrokenPromiseError(text)
            else:
                await self._resume(root, url, attempt)
            self.checked += attempt.receipt
        for name in os.listdir(root):
            if name != ".uringd":
                (root / name).unlink()
        self.attempts.clear()

    async def _resume(self, root: Path, url: str, attempt: Attempt) -> None:
        """Go on with an upload: what was durable is there, and with the rest it is the whole."""
        if attempt.over or not attempt.upload_id:
            return
        async with connect(url) as client:
            try:
                async with client.resume(attempt.upload_id) as upload:
                    durable = upload.durable
                    if durable < attempt.durable:
                        raise BrokenPromiseError(
                            f"{attempt.name}: {attempt.durable:,} bytes were acknowledged as "
                            f"durable, and {durable:,} are there"
                        )
                    await upload.send_file(Slice(attempt.content))
                    await upload.commit()
            except RefusedError as exc:
                if exc.code is not ErrorCode.NOT_FOUND or attempt.durable:
                    text = f"{attempt.name} with {attempt.durable:,} durable bytes: {exc}"
                    raise BrokenPromiseError(text) from exc
                self.lost_unpromised += 1
                return
        self.checked_durable_bytes += attempt.durable
        _compare(root / attempt.name, attempt)


def _compare(path: Path, attempt: Attempt) -> None:
    crc, size = 0, 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            crc, size = crc32c(piece, crc), size + len(piece)
    if (size, crc) != (len(attempt.content), crc32c(attempt.content)):
        raise BrokenPromiseError(
            f"{attempt.name} is visible with {size:,} bytes and CRC32C {crc:08x}; "
            f"{len(attempt.content):,} bytes with {crc32c(attempt.content):08x} were sent"
        )
