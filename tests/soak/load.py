"""The mixed load: every way into the server, at random, and every published byte read back.

Content is a slice of one piece of random memory, so that neither its making nor its checksum is
what the run waits for, and no two uploads have the same bytes at the same offset.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import trio

from uringd.client import Transport, connect
from uringd.errors import RefusedError
from uringd.wire import ErrorCode, crc32c

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uringd.client import Client, PutResult

    Deed = Callable[["Load", random.Random, str], Awaitable[None]]

CONTENT_BYTES = 48 << 20
LARGE_BYTES_MAX = 24 << 20
SMALL_BYTES_MAX = 64 << 10
SMALL_COUNT_MAX = 60
LANES = (1, 1, 2, 4)
READ_BYTES = 1 << 20

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)


class BrokenContentError(Exception):
    """A published file is not what was sent."""


class Slice:
    """A part of the content, as a source that can be read again."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.size = len(view)

    def read_at(self, view: memoryview, offset: int) -> None:
        """Copy it out."""
        view[:] = self._view[offset : offset + len(view)]

    def check_size(self) -> None:
        """Nobody changes it."""


@dataclass
class Load:
    """Who uploads what to one server, and what became of it."""

    root: Path
    tcp: str
    unix: str
    seed: int
    published_bytes: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    def __post_init__(self) -> None:
        """Make the content."""
        self._content = memoryview(random.Random(self.seed).randbytes(CONTENT_BYTES))

    async def run(self, clients: int, seconds: float) -> None:
        """Upload with so many clients at once, and begin nothing more when the time is up."""
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                chance = random.Random(f"{self.seed}/{self._numbers}/{number}")
                nursery.start_soon(self._work, chance, end)

    async def _work(self, chance: random.Random, end: float) -> None:
        while trio.current_time() < end:
            name = chance.choices(list(DEEDS), [weight for _, weight in DEEDS.values()])[0]
            self._numbers += 1
            await DEEDS[name][0](self, chance, f"{self._numbers:08}")
            self.deeds[name] += 1

    def some(self, chance: random.Random, longest: int) -> memoryview:
        """Choose content: short ones as often as long ones."""
        length = min(longest, int(longest ** chance.random()))
        start = chance.randrange(CONTENT_BYTES - length)
        return self._content[start : start + length]

    async def check(self, name: str, content: memoryview) -> None:
        """Read a published file back, compare it and remove it. Raises BrokenContentError."""
        path = self.root / name
        if await trio.to_thread.run_sync(_crc_of, path) != crc32c(content):
            raise BrokenContentError(f"{name} ({len(content):,} bytes) is not what was sent")
        path.unlink()
        self.published_bytes += len(content)

    def url(self, chance: random.Random, transport: Transport = "auto") -> str:
        """Choose an address: memory is shared over the Unix socket only."""
        return (
            chance.choice([self.tcp, self.unix]) if transport in {"auto", "socket"} else self.unix
        )


async def send_file(load: Load, chance: random.Random, name: str) -> None:
    """Upload what can be read again, by any transport, through 1 to 4 lanes."""
    transport = chance.choice(TRANSPORTS)
    content = load.some(chance, LARGE_BYTES_MAX)
    lanes = chance.choice(LANES)
    async with connect(load.url(chance, transport), transport=transport) as client:
        try:
            async with client.upload(name, len(content), lanes=lanes) as upload:
                await upload.send_file(Slice(content))
                await upload.commit()
        except RefusedError as exc:
            if exc.code is ErrorCode.UNSUPPORTED and transport == "slab":
                load.deeds["slab refused: all are in use"] += 1
                return
            raise
    await load.check(name, content)


async def send_stream(load: Load, chance: random.Random, name: str) -> None:
    """Upload pieces of any length, the size unknown, with a sync now and then."""
    content = load.some(chance, LARGE_BYTES_MAX)
    async with connect(load.url(chance)) as client, client.upload(name) as upload:
        done = 0
        while done < len(content):
            length = chance.randrange(1, 2 << 20)
            await upload.write(content[done : done + length])
            done += length
            if chance.random() < 1 / 8:
                await upload.sync()
        await upload.commit()
    await load.check(name, content)


async def send_small(load: Load, chance: random.Random, name: str) -> None:
    """Upload many small files in requests of their own."""
    files = {
        f"{name}-{number}": load.some(chance, SMALL_BYTES_MAX)
        for number in range(chance.randrange(1, SMALL_COUNT_MAX))
    }

    def done(result: PutResult) -> None:
        if result.error is not None:
            raise result.error

    async with connect(load.url(chance)) as client:
        await client.put_many(files.items(), done)
    for each, content in files.items():
        await load.check(each, content)


async def go_on(load: Load, chance: random.Random, name: str) -> None:
    """Leave an upload in its middle, and go on with it over another connection."""
    content = load.some(chance, LARGE_BYTES_MAX)
    async with connect(load.url(chance)) as client:
        upload_id = await _begin(client, name, content)
    async with connect(load.url(chance)) as client, client.resume(upload_id) as upload:
        await upload.send_file(Slice(content))
        await upload.commit()
    await load.check(name, content)


async def give_up(load: Load, chance: random.Random, name: str) -> None:
    """Begin an upload, leave it, and abort it by its id."""
    content = load.some(chance, LARGE_BYTES_MAX)
    async with connect(load.url(chance)) as client:
        upload_id = await _begin(client, name, content)
        await client.abort(upload_id)


async def ask(load: Load, chance: random.Random, _name: str) -> None:
    """Ask what there is."""
    async with connect(load.url(chance)) as client:
        await client.list_files(limit=100)
        await client.list_uploads(limit=100)
        await client.ping()


async def _begin(client: Client, name: str, content: memoryview) -> str:
    async with client.upload(name) as upload:
        await upload.write(content[: len(content) // 2])
        upload.keep()
        return upload.id


DEEDS: dict[str, tuple[Deed, int]] = {
    "file": (send_file, 40),
    "stream": (send_stream, 20),
    "small": (send_small, 20),
    "resume": (go_on, 10),
    "abort": (give_up, 10),
    "ask": (ask, 10),
}
"""What a client may do next, and how often of their sum."""


def _crc_of(path: Path) -> int:
    crc = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            crc = crc32c(piece, crc)
    return crc
