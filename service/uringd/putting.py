"""`uringd put`: a file or standard input to a server, with progress and a receipt.

One chunk's memory serves the whole upload: it is read into, and sent from. While the kernel takes a
chunk, the server's half of the work goes on, and so does the read-ahead of the next.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from uringd.client import Client, connect
from uringd.client_upload import Chunk, ClientUpload, Receipt
from uringd.errors import ClientError, RefusedError, SourceError
from uringd.progress import Progress
from uringd.source import Source
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from uringd.urls import Url


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
    with Source(file) as source:
        size = source.size
        name = options.name or os.path.basename(file)
        async with connect(url, token=options.token) as client:
            _check_offered(client, options)
            async with client.upload(
                name, size, overwrite=options.overwrite, durability=options.durability
            ) as upload:
                with Progress(name, size, quiet=options.quiet) as progress:
                    await _send_all(upload, source, size, progress)
                    receipt = await upload.commit()
    try:
        print_receipt(receipt, as_json=options.as_json)
    except OSError as exc:
        _silence_stdout()
        text = f"{name} is published, but its receipt cannot be printed: {exc.strerror}"
        raise ClientError(text) from exc


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


async def _send_all(
    upload: ClientUpload, source: Source, size: int | None, progress: Progress
) -> None:
    chunk = Chunk(upload.chunk_bytes)
    position = 0
    while True:
        length = await source.fill(chunk.view, upload.keep_alive)
        position += length
        at_end = length < len(chunk.view)
        if size is not None and (position > size or (at_end and position < size)):
            raise SourceError(
                f"the file had {size} bytes when the upload began and has another size now: "
                "upload a file that is not being written"
            )
        if length:
            await upload.send(chunk, length)
            progress.advance(length)
        if at_end:
            return


def _silence_stdout() -> None:
    """Let what stdout still holds go nowhere: at exit Python would try it again, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)


def print_receipt(receipt: Receipt, *, as_json: bool) -> None:
    """Print a receipt on stdout: one JSON object on a line, or a line for each fact."""
    facts = dataclasses.asdict(receipt)
    if as_json:
        click.echo(json.dumps(facts))
        return
    facts["seconds"] = f"{receipt.seconds:.3f}"
    for key, value in facts.items():
        click.echo(f"{key:<12} {str(value).lower() if isinstance(value, bool) else value}")
