"""What clients do with a guest's server until it is gone.

Long files in many chunks, over one or two connections, with a SYNC every few chunks: some are left
in their middle, and gone on with over another connection, by another client, or behind the next
cut. Short files with a SYNC in their middle. Many small files in requests of their own. At every
level of durability. What is acknowledged is noted where the oracle finds it.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import trio

from tests.guest.promises import Attempt
from uringd.client import connect
from uringd.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.guest.oracle import Oracle
    from uringd.client import Client, ClientUpload, PutResult

    Work = Callable[[Client, random.Random], Awaitable[None]]

CONTENT_BYTES = 16 << 20
LONG_BYTES = (1 << 20, 6 << 20)
"""16 to 96 chunks of a guest's server."""
STEP_BYTES_MAX = 512 << 10
"""Of a long file, from one chance of a SYNC to the next."""
SHORT_BYTES_MAX = 512 << 10
SMALL_BYTES_MAX = 32 << 10
SMALL_COUNT_MAX = 24
FIRST_S = 120.0
"""Until something is durable: a guest is slow at its start."""
LAST_WORDS_S = 5.0
"""Behind the cut: what was acknowledged before it and has arrived is read, and counts."""
LONG_LEVELS = ("published", "durable")
LEVELS = ("published", "published", "durable", "written")
SMALL_LEVELS = ("published", "published", "durable")


class Load:
    """All clients of all lives of a guest; `counts` says what was acknowledged to them."""

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self._oracle = oracle
        self._chance = random.Random(seed)
        self._content = memoryview(self._chance.randbytes(CONTENT_BYTES))
        self._numbers = 0
        self._waiting: list[Attempt] = []
        self._synced = trio.Event()
        self._is_cut = False
        self.counts: Counter[str] = Counter()

    async def run(self, url: str, seconds: float, cut: Callable[[], object]) -> None:
        """Upload for so long, call `cut`, which has to end the server, and return.

        The time begins when there is an unfinished upload with durable bytes, so that each cut has
        one to find. Raises, in a group, ClientError or TooSlowError for what fails before the cut.
        """
        resting, self._waiting = self._oracle.left[:1], self._oracle.left[1:]
        self._is_cut, self._synced = False, trio.Event()
        if resting:
            self._synced.set()
        async with trio.open_nursery() as nursery:
            for work in (self._long, self._long, self._short, self._small):
                nursery.start_soon(self._repeat, work, url, random.Random(self._chance.random()))
            with trio.fail_after(FIRST_S):
                await self._synced.wait()
            await trio.sleep(seconds)
            self._is_cut = True
            cut()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_S

    async def _repeat(self, work: Work, url: str, chance: random.Random) -> None:
        try:
            while True:
                async with connect(url, retry_s=0) as client:
                    await work(client, chance)
        except ConnectionLostError:
            if not self._is_cut:
                raise

    async def _long(self, client: Client, chance: random.Random) -> None:
        """A long file, or what is left of one; sometimes only a part of it now."""
        lanes = chance.choice((1, 2))
        if self._waiting:
            attempt = self._waiting.pop(0)
            holding = client.resume(attempt.upload_id, durability=attempt.level, lanes=lanes)
            self.counts["resumed"] += 1
        else:
            attempt = self._attempt(chance.randrange(*LONG_BYTES), chance.choice(LONG_LEVELS))
            size = len(attempt.content) if chance.random() < 1 / 2 else None
            level = attempt.level
            holding = client.upload(attempt.name, size, durability=level, lanes=lanes)
        stops_at = chance.choice((None, chance.randrange(len(attempt.content))))
        async with holding as upload:
            upload.keep()
            attempt.upload_id = upload.id
            try:
                done = 0
                while done < len(attempt.content):
                    step = chance.randrange(1, STEP_BYTES_MAX)
                    await upload.write(attempt.content[done : done + step])
                    done += step
                    if chance.random() < 1 / 2:
                        await self._sync(upload, attempt)
                    if stops_at is not None and done > stops_at:
                        self._waiting.append(attempt)
                        return
                await self._commit(upload, attempt)
            finally:
                attempt.hear(upload.durable)

    async def _short(self, client: Client, chance: random.Random) -> None:
        attempt = self._attempt(int(SHORT_BYTES_MAX ** chance.random()), chance.choice(LEVELS))
        content = attempt.content
        size = len(content) if chance.random() < 1 / 2 else None
        async with client.upload(attempt.name, size, durability=attempt.level) as upload:
            upload.keep()
            attempt.upload_id = upload.id
            try:
                half = chance.randrange(len(content) + 1)
                await upload.write(content[:half])
                if chance.random() < 1 / 2:
                    await self._sync(upload, attempt)
                await upload.write(content[half:])
                if chance.random() < 1 / 8:
                    attempt.aborting = True
                    await client.abort(upload.id)
                    self.counts["aborted"] += 1
                else:
                    await self._commit(upload, attempt)
            finally:
                attempt.hear(upload.durable)

    async def _small(self, client: Client, chance: random.Random) -> None:
        level = chance.choice(SMALL_LEVELS)
        attempts = {}
        for _ in range(chance.randrange(1, SMALL_COUNT_MAX)):
            attempt = self._attempt(int(SMALL_BYTES_MAX ** chance.random()), level)
            attempt.committing = True
            attempts[attempt.name] = attempt

        def done(result: PutResult) -> None:
            if result.error is not None:
                raise result.error
            attempts[result.name].acknowledged = True
            self.counts[f"small files, {level}"] += 1

        files = [(name, attempt.content) for name, attempt in attempts.items()]
        await client.put_many(files, done, durability=level)

    async def _sync(self, upload: ClientUpload, attempt: Attempt) -> None:
        attempt.hear(await upload.sync())
        self.counts["syncs"] += 1
        if attempt.durable:
            self._synced.set()

    async def _commit(self, upload: ClientUpload, attempt: Attempt) -> None:
        attempt.hear(upload.durable)
        attempt.committing = True
        attempt.receipt = await upload.commit()
        attempt.acknowledged = True
        self.counts[f"uploads, {attempt.level}"] += 1

    def _attempt(self, length: int, level: str) -> Attempt:
        start = self._chance.randrange(CONTENT_BYTES - length)
        self._numbers += 1
        content = self._content[start : start + length]
        return self._oracle.add(Attempt(f"{self._numbers:08}", content, level))
