"""Whether a disk still has what was acknowledged before its guest's power was cut.

Held against the file system of the guest's disk, mounted here after a cut, and against a server
that is started on it: that is how a user would find out. Files are read under their names, and so
are the spool files of unfinished uploads, as far as they were called durable. Then every upload is
asked for again by its id: one that was committed answers COMMIT with the Receipt it had, and one
that was not is gone on with, from what is durable, to a file that is the same byte for byte. Some
are not finished here but left, for the guest's next life, and for the cut after that.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crash.ledger import BrokenPromiseError
from tests.soak.load import Slice
from uringd.client import connect
from uringd.errors import RefusedError, SourceError
from uringd.wire import ErrorCode, crc32c

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest.promises import Attempt
    from uringd.client import Client

READ_BYTES = 1 << 20

LEFT_MAX = 3
"""Unfinished uploads that are left for the guest's next life; who was left once is finished."""


@dataclass
class Oracle:
    """All uploads of a campaign that the disk may still have something of.

    `left` are those that were unfinished at the last cut and have durable bytes: the first of them
    rests until the next cut, the others are for clients to go on with. `counts` says what was
    found, for the report.
    """

    attempts: dict[str, Attempt] = field(default_factory=dict)
    left: list[Attempt] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, attempt: Attempt) -> Attempt:
        """Take note of a file that is to be, before anything is sent of it."""
        assert attempt.name not in self.attempts, "no name is used twice"
        self.attempts[attempt.name] = attempt
        return attempt

    async def check(self, root: Path, url: str, leave: int = LEFT_MAX) -> None:
        """Hold a served root against all that was acknowledged; then forget it and remove it.

        At most `leave` unfinished uploads are left to be gone on with. Raises BrokenPromiseError.
        """
        there = {name for name in os.listdir(root) if name != ".uringd"}
        if unknown := there - self.attempts.keys():
            raise BrokenPromiseError(f"files that nobody sent are there: {sorted(unknown)[:5]}")
        for attempt in self.attempts.values():
            _judge_file(root, attempt)
            self.counts["files compared"] += attempt.name in there
            self.counts[f"receipts ({attempt.level})"] += attempt.acknowledged
        async with connect(url) as client:
            unfinished = await self._ask_all(root, client, there)
            self.counts["cuts that met one"] += bool(unfinished)
            new = [attempt for attempt in unfinished if attempt not in self.left][:leave]
            for attempt in unfinished:
                if attempt in new:
                    await _look_at(client, attempt)
                else:
                    await self._finish(root, client, attempt)
            self.left = new
            await self._abort_others(client)
        for name in os.listdir(root):
            if name != ".uringd":
                (root / name).unlink()
        self.attempts = {attempt.name: attempt for attempt in self.left}

    async def _ask_all(self, root: Path, client: Client, there: set[str]) -> list[Attempt]:
        """Ask for each upload by its id; the result are those with durable bytes, unfinished."""
        unfinished = []
        for attempt in self.attempts.values():
            if not attempt.upload_id or attempt.is_given_up or attempt.aborting:
                continue
            if attempt.name in there:
                await self._commit_again(client, attempt)
            elif attempt.promised:
                attempt.judge_spooled(_spooled(root, attempt))
                self.counts["unfinished uploads with durable bytes"] += 1
                self.counts["their durable bytes"] += attempt.promised
                self.counts["of them with a COMMIT under way"] += attempt.committing
                attempt.committing = False
                unfinished.append(attempt)
            else:
                await self._finish(root, client, attempt)
        return unfinished

    async def _commit_again(self, client: Client, attempt: Attempt) -> None:
        """COMMIT of what was committed is answered, and as it was the first time."""
        try:
            async with client.resume(attempt.upload_id, durability=attempt.level) as upload:
                upload.keep()
                attempt.judge_durable(upload.durable)
                await upload.send_file(Slice(attempt.content))
                attempt.judge_receipt(await upload.commit())
        except (RefusedError, SourceError) as exc:
            raise BrokenPromiseError(
                f"{attempt.name} is published, and its COMMIT fails: {exc}"
            ) from exc
        self.counts["receipts asked for again"] += attempt.receipt is not None

    async def _finish(self, root: Path, client: Client, attempt: Attempt) -> None:
        """Go on with an upload: what was durable is there, and with the rest it is the whole."""
        try:
            async with client.resume(attempt.upload_id, durability="published") as upload:
                upload.keep()
                attempt.judge_durable(upload.durable)
                await upload.send_file(Slice(attempt.content))
                await upload.commit()
        except (RefusedError, SourceError) as exc:
            is_gone = isinstance(exc, RefusedError) and exc.code is ErrorCode.NOT_FOUND
            if attempt.promised or not is_gone:
                text = f"{attempt.name} with {attempt.promised:,} durable bytes: {exc}"
                raise BrokenPromiseError(text) from exc
            self.counts["uploads gone, nothing of them promised"] += 1
            return
        attempt.committing = attempt.acknowledged = True
        attempt.level = "published"
        _judge_file(root, attempt)
        self.counts["uploads resumed and completed here"] += 1

    async def _abort_others(self, client: Client) -> None:
        """Throw away what nobody will go on with: its CREATE or ABORT had no answer."""
        left = {attempt.upload_id for attempt in self.left}
        for upload in (await client.list_uploads()).uploads:
            if upload.upload_id not in left:
                await client.abort(upload.upload_id)


async def _look_at(client: Client, attempt: Attempt) -> None:
    """RESUME an upload, compare what is durable of it with what was sent, and leave it again."""
    try:
        async with client.resume(attempt.upload_id, durability=attempt.level) as upload:
            upload.keep()
            attempt.judge_durable(upload.durable)
            durable = attempt.content[: upload.durable]
            await upload.write(durable)
            attempt.hear(upload.durable)
    except (RefusedError, SourceError) as exc:
        text = f"{attempt.name} with {attempt.promised:,} durable bytes: {exc}"
        raise BrokenPromiseError(text) from exc


def _judge_file(root: Path, attempt: Attempt) -> None:
    """Read a file under its name, and judge it. Raises BrokenPromiseError."""
    crc, size = 0, 0
    try:
        with (root / attempt.name).open("rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                crc, size = crc32c(piece, crc), size + len(piece)
    except FileNotFoundError:
        attempt.judge_name(None, 0)
    else:
        attempt.judge_name(size, crc)


def _spooled(root: Path, attempt: Attempt) -> bytes:
    """Read what a spool file has of the durable bytes."""
    try:
        with (root / ".uringd" / "spool" / f"{attempt.upload_id}.part").open("rb") as file:
            return file.read(attempt.promised)
    except FileNotFoundError:
        return b""
