"""`uringd put`: a file or standard input to a server, with progress and a receipt.

Reading and sending overlap: a thread fills the next chunks and computes their checksums while the
one before is on its way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import anyio
import click
from anyio import to_thread

from uringd.client import Client, connect
from uringd.client_upload import Chunk, ClientUpload, Receipt
from uringd.errors import RefusedError, SourceError
from uringd.progress import Progress
from uringd.wire import ErrorCode, crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from uringd.urls import Url

Filled = tuple[Chunk, int, int]
"""A chunk, how many of its bytes were read, and their CRC32C."""

CHUNKS_AHEAD = 3
"""Chunks that are read while one is sent: bounds the memory of `put`, and hides a slow read."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    name: str | None
    lanes: int
    durability: str
    overwrite: bool
    transport: str
    resume: str | None
    token: str
    as_json: bool
    quiet: bool


async def put(file: str, url: Url, options: Options) -> None:
    """Upload, and print the receipt. Raises ClientError."""
    with _source(file) as (source, size):
        name = options.name or os.path.basename(file)
        async with connect(url, token=options.token) as client:
            _check_offered(client, options)
            async with client.upload(
                name, size, overwrite=options.overwrite, durability=options.durability
            ) as upload:
                with Progress(name, size, quiet=options.quiet) as progress:
                    await _send_all(upload, source, size, progress)
                    receipt = await upload.commit()
    print_receipt(receipt, as_json=options.as_json)


def _check_offered(client: Client, options: Options) -> None:
    """Refuse what this server does not offer: nothing is downgraded in silence."""
    wanted = {
        "resume": options.resume is not None,
        "lanes": options.lanes > 1,
        options.transport: options.transport not in {"auto", "socket"},
    }
    for feature, asked in wanted.items():
        if asked and feature not in client.features:
            text = f"the server at {client.url} does not offer {feature}"
            raise RefusedError(ErrorCode.UNSUPPORTED, text)


@contextlib.contextmanager
def _source(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open what is to be sent; the size is known for regular files."""
    if file == "-":
        yield sys.stdin.buffer, None
        return
    try:
        source = open(file, "rb", buffering=0)  # noqa: SIM115  # closed below
    except OSError as exc:
        raise SourceError(f"cannot read {file}: {exc.strerror}") from exc
    with source:
        found = os.fstat(source.fileno())
        yield source, found.st_size if stat.S_ISREG(found.st_mode) else None


async def _send_all(
    upload: ClientUpload, source: BinaryIO, size: int | None, progress: Progress
) -> None:
    filled_in, filled_out = anyio.create_memory_object_stream[Filled](CHUNKS_AHEAD)
    empty_in, empty_out = anyio.create_memory_object_stream[Chunk](CHUNKS_AHEAD + 1)
    for _ in range(CHUNKS_AHEAD + 1):
        empty_in.send_nowait(Chunk(upload.chunk_bytes))
    failures: list[Exception] = []
    # An error in either half ends both; it is raised outside, by itself and not in a group.
    async with anyio.create_task_group() as group:

        async def read() -> None:
            async with filled_in:
                try:
                    await _read_all(source, size, empty_out, filled_in)
                except SourceError as exc:
                    failures.append(exc)
                    group.cancel_scope.cancel()

        group.start_soon(read)
        try:
            async with filled_out, empty_in:
                async for chunk, length, checksum in filled_out:
                    await upload.send(chunk, length, checksum)
                    progress.advance(length)
                    empty_in.send_nowait(chunk)
        except Exception as exc:  # noqa: BLE001  # raised again below
            failures.append(exc)
            group.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _read_all(
    source: BinaryIO,
    size: int | None,
    empty: MemoryObjectReceiveStream[Chunk],
    filled: MemoryObjectSendStream[Filled],
) -> None:
    position = 0
    async for chunk in empty:
        length, checksum = await to_thread.run_sync(_fill, source, chunk, abandon_on_cancel=True)
        position += length
        if size is not None and (position > size or (length == 0 and position < size)):
            raise SourceError(
                f"the file had {size} bytes when the upload began and has another size now: "
                "upload a file that is not being written"
            )
        if not length:
            return
        await filled.send((chunk, length, checksum))
        if length < len(chunk.view):
            return


def _fill(source: BinaryIO, chunk: Chunk) -> tuple[int, int]:
    """Read until the chunk is full or the source ends; the result is its length and CRC32C."""
    length = 0
    try:
        while length < len(chunk.view):
            count = source.readinto(chunk.view[length:])  # type: ignore[attr-defined]
            if not count:
                break
            length += count
    except OSError as exc:
        raise SourceError(f"cannot read the data to send: {exc.strerror}") from exc
    return length, crc32c(chunk.view[:length])


def print_receipt(receipt: Receipt, *, as_json: bool) -> None:
    """Print a receipt on stdout: one JSON object on a line, or a line for each fact."""
    facts = dataclasses.asdict(receipt)
    if as_json:
        click.echo(json.dumps(facts))
        return
    facts["seconds"] = f"{receipt.seconds:.3f}"
    for key, value in facts.items():
        click.echo(f"{key:<12} {str(value).lower() if isinstance(value, bool) else value}")
