"""`uringd put`: a file or standard input to a server, with progress and a receipt."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from uringd.client import RETRY_S, Client, ClientUpload, Receipt, connect
from uringd.errors import ClientError, ConnectionLostError, RefusedError, SourceError
from uringd.progress import Progress
from uringd.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from uringd.client import Transport
    from uringd.urls import Url


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    name: str | None
    lanes: int
    durability: str
    overwrite: bool
    transport: Transport
    read_back: bool
    resume: str | None
    retry_s: float | None
    page_checksums: bool
    token: str
    as_json: bool
    quiet: bool


async def put(file: str, url: Url, options: Options) -> None:
    """Upload, and print the receipt. Raises ClientError."""
    with Source(file) as source:
        name = options.name or os.path.basename(file)
        retry_s = RETRY_S if options.retry_s is None else options.retry_s
        async with connect(
            url,
            token=options.token,
            retry_s=retry_s,
            transport=options.transport,
            read_back=options.read_back,
        ) as client:
            with Progress(name, source.length, quiet=options.quiet) as progress:
                receipt = await _upload(client, source, name, options, progress)
    try:
        print_receipt(receipt, as_json=options.as_json)
    except OSError as exc:
        _silence_stdout()
        text = f"{receipt.name} is published, but its receipt cannot be printed: {exc.strerror}"
        raise ClientError(text) from exc


async def _upload(
    client: Client, source: Source, name: str, options: Options, progress: Progress
) -> Receipt:
    with _explaining(client):
        async with _begin(client, source, name, options, progress) as upload:
            try:
                if source.length is None:
                    await upload.send_from(source)
                else:
                    await upload.send_file(source)
                return await _commit(client, upload)
            except (SourceError, RefusedError):
                if options.resume is not None:
                    upload.keep()  # it may be the wrong file; whoever is sure of it aborts
                raise


async def _commit(client: Client, upload: ClientUpload) -> Receipt:
    try:
        return await upload.commit()
    except KeyboardInterrupt:
        look = shlex.join(["uringd", "stat", str(client.url), upload.id])
        raise KeyboardInterrupt(f"it may have been published: {look}") from None


def _begin(
    client: Client, source: Source, name: str, options: Options, progress: Progress
) -> AbstractAsyncContextManager[ClientUpload]:
    if options.resume is not None:
        return client.resume(
            options.resume,
            durability=options.durability,
            lanes=options.lanes,
            page_checksums=options.page_checksums,
            watcher=progress,
        )
    return client.upload(
        name,
        source.length,
        overwrite=options.overwrite,
        durability=options.durability,
        lanes=options.lanes,
        page_checksums=options.page_checksums,
        watcher=progress,
    )


@contextlib.contextmanager
def _explaining(client: Client) -> Iterator[None]:
    """Say how an upload goes on that was cut off."""
    try:
        yield
    except ConnectionLostError as exc:
        if exc.upload_id and "resume" in client.features:
            text = f"{exc.text}; go on with: {_command(exc.upload_id)}"
            raise ConnectionLostError(text, exc.upload_id) from exc
        raise


def _command(upload_id: str) -> str:
    """Return the command that goes on with an upload: this one, with its id."""
    words = ["uringd", *sys.argv[1:]]
    if "--resume" not in words:
        at = words.index("put") + 1 if "put" in words else len(words)
        words[at:at] = ["--resume", upload_id]
    return shlex.join(words)


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
