"""uringd under its own client: each connection is a task that uploads one object after another.

The client runs under trio, as `uringd put` does, all connections in one process. Big objects come
from a source that can be read again, small ones from memory.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import anyio

from bench.harness.content import stamp
from bench.harness.daemon import Daemon, Transport
from bench.harness.ingest.load import LOAD_TIMEOUT_S, Load, measure_load
from bench.harness.ingest.plain import folder_of
from bench.harness.measurement import CannotRunError
from uringd.client import connect
from uringd.errors import ClientError, SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects
    from bench.harness.measurement import Measurement, Order
    from uringd.client import Client, ClientUpload
    from uringd.client.attaching import Transport as Through

    Commits = list[tuple[int, int]]
    Uploading = Callable[[Client, Objects, Iterator[int], Commits], Coroutine[Any, Any, None]]

PIPELINE = 64
"""Requests that one connection of `put_many` keeps without an answer."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the client is used: over what, through which memory, and how objects are uploaded.

    A connection of the cell's is one of the client's; or, pipelined, one for every 64 of them.
    """

    uploading: Uploading
    over: Transport = "tcp"
    through: Through = "socket"
    options: tuple[str, ...] = ()
    pipelined: bool = False


def over_tcp(order: Order) -> Measurement:
    """Upload over TCP loopback."""
    return _measure(order, Way(upload_each))


def over_unix(order: Order) -> Measurement:
    """Upload over a Unix socket."""
    return _measure(order, Way(upload_each, "unix"))


def two_workers(order: Order) -> Measurement:
    """Upload over TCP loopback to a daemon with a worker for each of two CPUs."""
    return _measure(order, Way(upload_each, options=("--workers", "2")))


def copied(order: Order) -> Measurement:
    """Upload through shared memory of the client's: the server copies from it."""
    return _measure(order, Way(upload_each, "unix", "copy"))


def sealed(order: Order) -> Measurement:
    """Upload through shared memory that the client seals: no copy in the server."""
    return _measure(order, Way(upload_each, "unix", "sealed"))


def slab(order: Order) -> Measurement:
    """Upload through the server's own slots, mapped by both."""
    return _measure(order, Way(upload_each, "unix", "slab"))


def small(order: Order) -> Measurement:
    """Send each object as one request, and the next one when that is answered."""
    return _measure(order, Way(put_each))


def pipelined(order: Order) -> Measurement:
    """Send each object as one request, 64 of them on their way over each connection."""
    return _measure(order, Way(put_many, pipelined=True))


def small_two_workers(order: Order) -> Measurement:
    """Send each object as one request to a daemon with a worker for each of two CPUs."""
    return _measure(order, Way(put_each, options=("--workers", "2")))


def _measure(order: Order, way: Way) -> Measurement:
    root = folder_of(order)
    server = Daemon(root, [way.over], way.options)

    @contextlib.contextmanager
    def prepare(objects: Objects) -> Iterator[Run]:
        url = server.urls[way.over]
        yield lambda begin: anyio.run(_upload_all, url, objects, way, begin, backend="trio")

    return measure_load(order, server, root, prepare)


async def _upload_all(url: str, objects: Objects, way: Way, begin: Begin) -> Load:
    commits_ns: Commits = []
    numbers = iter(range(objects.count))
    count = -(-objects.connections // PIPELINE) if way.pipelined else objects.connections
    try:
        async with _clients(url, count, way.through) as clients, _in_time():
            begin()
            began = time.perf_counter_ns()
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(way.uploading, client, objects, numbers, commits_ns)
            end = time.perf_counter_ns()
    except* ClientError as group:
        raise CannotRunError(str(_first(group))) from group
    return Load((end - began) / 1e9, commits_ns)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        with anyio.fail_after(LOAD_TIMEOUT_S):
            yield
    except TimeoutError as exc:
        raise CannotRunError(f"was not done after {LOAD_TIMEOUT_S:.0f} s") from exc


@contextlib.asynccontextmanager
async def _clients(url: str, count: int, through: Through) -> AsyncIterator[list[Client]]:
    """Connect so many times before anything is uploaded."""
    connecting = [connect(url, transport=through) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(one) for one in connecting]


async def upload_each(
    client: Client, objects: Objects, numbers: Iterator[int], commits_ns: Commits
) -> None:
    """Upload as any application does: CREATE, chunks, COMMIT."""
    block = objects.block()
    for number in numbers:
        began = time.perf_counter_ns()
        async with client.upload(objects.name(number), objects.size_bytes) as upload:
            if objects.small:
                stamp(block, number)
                await upload.write(block)
            else:
                await _send_big(upload, objects)
                began = time.perf_counter_ns()
            await upload.commit()
        commits_ns.append((began, time.perf_counter_ns()))


async def put_each(
    client: Client, objects: Objects, numbers: Iterator[int], commits_ns: Commits
) -> None:
    """Send one whole object in a request, wait for its answer, send the next."""
    for number in numbers:
        await put_many(client, objects, iter((number,)), commits_ns)


async def put_many(
    client: Client, objects: Objects, numbers: Iterator[int], commits_ns: Commits
) -> None:
    """Send many whole objects, a request each."""
    tail = objects.tail()
    began_ns: dict[str, int] = {}

    def files() -> Iterator[tuple[str, bytes]]:
        for number in numbers:
            name = objects.name(number)
            began_ns[name] = time.perf_counter_ns()
            yield name, objects.head(number) + tail

    def done(result: Any) -> None:
        if result.error is not None:
            raise result.error
        commits_ns.append((began_ns.pop(result.name), time.perf_counter_ns()))

    await client.put_many(files(), done)


async def _send_big(upload: ClientUpload, objects: Objects) -> None:
    with Prefix(objects.source, objects.size_bytes) as source:
        await upload.send_file(source)


class Prefix:
    """The begin of a file, as a source that can be read again."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._fd = os.open(path, os.O_RDONLY)

    def __enter__(self) -> Self:
        """Nothing more is needed."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def read_at(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on. Raises SourceError."""
        if os.preadv(self._fd, [view], offset) != len(view):
            raise SourceError("the source of the benchmark is shorter than its objects")

    def place_of(self, offset: int) -> tuple[int, int]:
        """Say where the bytes from `offset` on lie."""
        return self._fd, offset

    def check_size(self) -> None:
        """Find it as long as it was: nobody writes to it."""


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc
